"""Metrics against scikit-learn's."""

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlib import metrics
from nnlib.functional import softmax


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(max_examples=30, deadline=None, derandomize=True)
@given(n=st.integers(1, 60), classes=st.integers(1, 6), seed=st.integers(0, 999))
def test_confusion_and_rates_equal_scikit_learn_s(n, classes, seed):
    rng = np.random.default_rng(seed)
    labels, predictions = rng.integers(0, classes, size=(2, n))
    matrix = metrics.confusion_matrix(labels, predictions, classes)
    names = range(classes)
    np.testing.assert_array_equal(matrix, sklearn.metrics.confusion_matrix(labels, predictions, labels=names))
    assert metrics.classification_rate(matrix) == pytest.approx(sklearn.metrics.accuracy_score(labels, predictions))
    expected = sklearn.metrics.precision_recall_fscore_support(labels, predictions, labels=names, zero_division=0)
    report = metrics.classification_report(matrix)
    assert report.rate == metrics.classification_rate(matrix)
    for ours, theirs in zip(report[:4], expected, strict=True):
        np.testing.assert_allclose(ours, theirs)


def test_the_most_confident_mistakes_come_first():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7], [0.4, 0.6]])
    labels = np.array([0, 0, 1, 0, 1])
    assert metrics.confident_mistakes(probabilities, labels, 2).tolist() == [1, 3]
    assert metrics.confident_mistakes(probabilities, labels, 9).tolist() == [1, 3, 2]
    with pytest.raises(ValueError, match="expected 0 to 1"):
        metrics.confident_mistakes(probabilities, labels + 1, 2)


def test_log_likelihood_equals_scikit_learn_s():
    rng = np.random.default_rng(0)
    probabilities, labels = softmax(rng.normal(size=(40, 5))), rng.integers(0, 5, size=40)
    expected = sklearn.metrics.log_loss(labels, probabilities, labels=range(5))
    assert metrics.negative_log_likelihood(probabilities, labels) == pytest.approx(expected)
    # Of float16 the smallest positive number is 2 ** -24, far below the smallest normal one.
    for stored in (0, 2**-24):
        row = np.array([[1, stored]], dtype=np.float16)
        assert metrics.negative_log_likelihood(row, np.array([1])) == pytest.approx(24 * np.log(2))


def test_reliability_equals_scikit_learn_s_calibration_curve():
    rng = np.random.default_rng(0)
    probabilities, labels = softmax(3 * rng.normal(size=(3000, 4))), rng.integers(0, 4, size=3000)
    hits = probabilities.argmax(axis=1) == labels
    result = metrics.reliability(probabilities, labels)
    accuracy, confidence = sklearn.calibration.calibration_curve(hits, probabilities.max(axis=1), n_bins=10)
    filled = result.share > 0
    np.testing.assert_allclose(result.accuracy[filled], accuracy)
    np.testing.assert_allclose(result.confidence[filled], confidence)
    assert result.error == pytest.approx((result.share[filled] * abs(accuracy - confidence)).sum())


def test_a_calibrated_predictor_has_no_calibration_error():
    rng = np.random.default_rng(0)
    probabilities = softmax(2 * rng.normal(size=(60_000, 3)))
    labels = (rng.random((60_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    assert metrics.reliability(probabilities, labels).error < 0.01


def test_labels_that_are_no_classes():
    with pytest.raises(ValueError, match="expected 0 to 2"):
        metrics.confusion_matrix(np.array([0, 3]), np.array([0, 1]), 3)
    with pytest.raises(ValueError, match="shape"):
        metrics.confusion_matrix(np.array([0, 1]), np.array([0]), 3)
