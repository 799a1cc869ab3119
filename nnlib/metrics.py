"""How good a classifier is, from its predictions."""

from typing import NamedTuple

import numpy as np

from nnlib.functional.checks import Array, class_labels


def confusion_matrix(labels: Array, predictions: Array, classes: int) -> Array:
    """Return counts (C, C) int64: row = true class, column = predicted class.

    labels, predictions: (N,) integers in [0, C). Raises ValueError or TypeError where they are not.
    """
    class_labels(labels, len(labels), classes)
    class_labels(predictions, len(labels), classes)
    counts = np.bincount(labels.astype(np.int64) * classes + predictions, minlength=classes**2)
    return counts.reshape(classes, classes)


def classification_rate(confusion: Array) -> float:
    """Return the share of samples on the diagonal, in [0, 1]."""
    return float(np.trace(confusion) / confusion.sum())


def precision(confusion: Array) -> Array:
    """Return for each class (C,) the share of its predictions that are right; 0 where nothing was predicted."""
    return _ratio(np.diag(confusion), confusion.sum(axis=0))


def recall(confusion: Array) -> Array:
    """Return for each class (C,) the share of its samples that were found; 0 where it has none."""
    return _ratio(np.diag(confusion), confusion.sum(axis=1))


def f1(confusion: Array) -> Array:
    """Return for each class (C,) the harmonic mean of precision and recall; 0 where both are."""
    return _ratio(2 * np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1))


class ClassificationReport(NamedTuple):
    """How well each class is found, and all together."""

    precision: Array  # (C,)
    recall: Array  # (C,)
    f1: Array  # (C,)
    support: Array  # (C,) int64: samples of each class
    rate: float  # share of right predictions


def classification_report(confusion: Array) -> ClassificationReport:
    """Return precision, recall, F1 and number of samples of each class, and the classification rate.

    confusion: counts (C, C), as `confusion_matrix` gives them. What is 0 / 0 counts as 0.
    """
    support = confusion.sum(axis=1)
    return ClassificationReport(
        precision(confusion), recall(confusion), f1(confusion), support, classification_rate(confusion)
    )


def confident_mistakes(probabilities: Array, labels: Array, count: int) -> Array:
    """Return the rows (M,) int64 of the ``count`` wrong predictions with the highest probability, the highest first.

    probabilities: (N, C);  labels: (N,). M is smaller than ``count`` where there are fewer mistakes.
    """
    class_labels(labels, len(probabilities), probabilities.shape[1])
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order[:count]]


class Reliability(NamedTuple):
    """Confidence against accuracy in bins of equal width over [0, 1]; empty bins hold nan."""

    confidence: Array  # (B,) mean probability of the predicted class
    accuracy: Array  # (B,) share of right predictions
    share: Array  # (B,) share of all samples
    error: float  # expected calibration error: mean of |accuracy - confidence| over the samples


def reliability(probabilities: Array, labels: Array, *, bins: int = 10) -> Reliability:
    """Return how well the probability of the predicted class tells the accuracy.

    probabilities: (N, C);  labels: (N,). Source: Guo et al. 2017, eq. 2 and 3.
    """
    class_labels(labels, len(probabilities), probabilities.shape[1])
    confidence = probabilities.max(axis=1).astype(np.float64)
    hits = probabilities.argmax(axis=1) == labels
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(places, minlength=bins)
    mean_confidence = _ratio(np.bincount(places, confidence, minlength=bins), counts, empty=np.nan)
    accuracy = _ratio(np.bincount(places, hits, minlength=bins), counts, empty=np.nan)
    share = counts / len(labels)
    return Reliability(mean_confidence, accuracy, share, float(np.nansum(share * np.abs(accuracy - mean_confidence))))


def negative_log_likelihood(probabilities: Array, labels: Array) -> float:
    """Return the mean of -log p(label), in nats, of probabilities (N, C), labels (N,).

    A probability of 0, which float16 has below 6e-8, counts as the smallest positive float of its type.
    """
    class_labels(labels, len(probabilities), probabilities.shape[1])
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(chosen, np.finfo(probabilities.dtype).smallest_subnormal)).mean())


def _ratio(part: Array, whole: Array, *, empty: float = 0.0) -> Array:
    """Return part / whole elementwise, ``empty`` where whole is 0."""
    return np.divide(part, whole, out=np.full(len(whole), empty), where=whole > 0)
