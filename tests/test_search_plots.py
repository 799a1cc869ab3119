"""Figures of searches: they show the trials they were given."""

import numpy as np
import pytest

from nnlib import search_plots
from nnlib.history import EpochRecord
from nnlib.study import Trial


def trial(number, rate, shape, accuracy, state="complete"):
    epochs = [EpochRecord(1, 1.0, 0.5, 1.0, accuracy, 0.1)] if accuracy is not None else []
    return Trial(number, {"rate": rate, "hidden": shape}, state, accuracy, epochs, 0.1)


TRIALS = [
    trial(0, 0.01, "64", 0.5),
    trial(1, 0.1, "64-64", 0.7),
    trial(2, 1.0, "64", 0.2, "pruned"),
    trial(3, 0.3, "64-64", 0.6),
    trial(4, 9.0, "64", None, "diverged"),
]


def test_trials_that_did_not_finish_are_hollow_and_those_without_an_epoch_left_out():
    figure = search_plots.trials(TRIALS, "rate", colour="hidden", x="learning rate", log=True)
    (axes,) = figure.axes
    drawn = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(drawn["hidden 64"].get_xydata(), [[0.01, 50]])
    np.testing.assert_allclose(drawn["hidden 64-64"].get_xydata(), [[0.1, 30], [0.3, 40]])
    np.testing.assert_allclose(drawn["hidden 64, not finished"].get_xydata(), [[1.0, 80]])
    assert drawn["hidden 64, not finished"].get_fillstyle() == "none"
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "learning rate")


def test_the_history_shows_the_least_error_so_far():
    (axes,) = search_plots.history(TRIALS).axes
    every, least = axes.lines
    np.testing.assert_allclose(every.get_xydata(), [[0, 50], [1, 30], [3, 40]])
    np.testing.assert_allclose(least.get_ydata(), [50, 30, 30])


def test_the_most_important_parameter_is_on_top():
    (axes,) = search_plots.importances({"a": 0.2, "b": 0.7, "c": 0.1}).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["c", "a", "b"]
    assert [bar.get_width() for bar in axes.patches] == [0.1, 0.2, 0.7]


def test_parallel_coordinates_place_each_trial_between_the_least_and_the_greatest():
    (axes,) = search_plots.parallel_coordinates(TRIALS, {"rate": "learning rate"}, log=("rate",)).axes
    lines = axes.lines[:3]  # the best last, over the others
    middle = np.log10(30) / np.log10(30)
    np.testing.assert_allclose(lines[-1].get_ydata(), [np.log10(10) / np.log10(30), 1, 0])
    np.testing.assert_allclose(lines[0].get_ydata(), [0, 0, 1])
    np.testing.assert_allclose(lines[1].get_ydata(), [middle, 1, 0.5])
    assert float(lines[-1].get_color()) < float(lines[0].get_color())
    assert [text.get_text() for text in axes.get_xticklabels()] == ["learning rate", "hidden", "error (%)"]


def test_one_value_of_a_parameter_is_no_division_by_zero():
    with np.errstate(all="raise"):
        search_plots.parallel_coordinates([trial(0, 0.1, "64", 0.5)], {})


def test_what_has_no_value_has_a_place_beside_names():
    (axes,) = search_plots.parallel_coordinates([trial(0, 0.1, None, 0.5), trial(1, 0.1, "64", 0.6)], {}).axes
    assert {line.get_ydata()[1] for line in axes.lines[:2]} == {0, 1}
    assert {"None", "64"} <= {text.get_text() for text in axes.texts}


def test_parallel_coordinates_need_a_complete_trial():
    with pytest.raises(ValueError, match="expected a complete trial, got none among 2"):
        search_plots.parallel_coordinates([TRIALS[2], TRIALS[4]], {})


@pytest.mark.parametrize("draw", [search_plots.history, lambda t: search_plots.parallel_coordinates(t, {})])
def test_figures_can_be_drawn(draw):
    figure = draw(TRIALS)
    figure.canvas.draw()
    assert figure.axes
