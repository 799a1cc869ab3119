"""Figures that compare runs: they show the values they were given, with names on both axes."""

import numpy as np
import pytest

from nnlib import metrics, plots
from nnlib.history import EpochRecord, History
from nnlib.range_test import RangeTest


def history(*accuracies):
    epochs = [EpochRecord(n, 1.0, 0.9, 2.0, accuracy, 0.0) for n, accuracy in enumerate(accuracies, 1)]
    return History(epochs=epochs)


def named(figure):
    """Draw the figure and check that every panel names what it shows."""
    figure.canvas.draw()
    for axes in figure.axes:
        assert axes.get_xlabel()
    assert figure.axes[0].get_ylabel()
    return figure.axes


def test_curves_of_seeds_are_their_mean_in_a_band_from_least_to_greatest():
    runs = {"a": [history(0.2, 0.4, 0.9), history(0.4, 0.5)], "b": [history(0.1, 0.2)]}
    _, right = named(plots.seed_curves(runs))
    first, second = right.lines
    np.testing.assert_allclose(first.get_ydata(), [30, 45])
    np.testing.assert_allclose(second.get_ydata(), [10, 20])
    assert first.get_linestyle() != second.get_linestyle()
    band = right.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(20)
    assert band[:, 1].max() == pytest.approx(50)


def test_every_seed_is_a_dot_and_their_mean_a_bar():
    panels = {"validation error (%)": {"0": [50.0, 54.0], "0.5": [48.0]}, "training error (%)": {"0": [1.0, 2.0]}}
    left, right = named(plots.seed_dots(panels, setting="dropout"))
    assert [line.get_ydata().tolist() for line in left.lines] == [[52, 52], [50, 54], [48, 48], [48]]
    assert [text.get_text() for text in left.get_xticklabels()] == ["0", "0.5"]
    assert (left.get_ylabel(), right.get_ylabel()) == tuple(panels)


@pytest.mark.parametrize(("chosen", "marked"), [(None, 0.01), (0.03, 0.03)])
def test_the_rate_that_is_trained_with_is_marked(chosen, marked):
    result = RangeTest(np.array([0.01, 0.1, 1.0]), np.array([2.0, 1.0, 90.0]), np.array([2.0, 1.0, 30.0]))
    (axes,) = named(plots.range_test(result, chosen=chosen))
    assert axes.get_xscale() == "log"
    assert axes.lines[-1].get_xdata()[0] == pytest.approx(marked)
    assert axes.get_ylim()[1] < 10


def test_a_report_of_classes_shows_their_rates_in_per_cent():
    report = metrics.classification_report(np.array([[3, 1], [0, 4]]))
    (axes,) = named(plots.class_report(report, ["cat", "dog"]))
    shown = {line.get_label(): np.atleast_1d(line.get_ydata()) for line in axes.lines}
    np.testing.assert_allclose(shown["precision"], [100, 80])
    np.testing.assert_allclose(shown["recall"], [75, 100])
    assert shown["classification rate"][0] == pytest.approx(87.5)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["cat\n4", "dog\n4"]


def test_mistakes_are_shown_with_both_classes_and_the_probability():
    images = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 6, 6, 1), dtype=np.uint8)
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])
    figure = plots.mistakes(images, probabilities, np.array([1, 0, 0, 1]), ["cat", "dog"], columns=2)
    figure.canvas.draw()
    assert [axes.get_title() for axes in figure.axes] == ["dog\n→ cat 90 %", "cat\n→ dog 80 %"]
    assert (figure.axes[1].images[0].get_array() == 1).all()
    with pytest.raises(ValueError, match="every prediction is right"):
        plots.mistakes(images, probabilities, np.array([0, 1, 0, 1]), ["cat", "dog"])
