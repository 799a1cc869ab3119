"""Softmax, and the cross-entropy loss with its gradient."""

import numpy as np

from nnlib.functional.checks import Array, class_labels


def softmax(logits: Array) -> Array:
    """Return the probabilities ``exp(z_j) / sum_k exp(z_k)`` of each row.

    logits: (..., C) floats;  result: same shape and dtype, rows sum to 1. The row's maximum is subtracted first: it
    cancels in the quotient, and every exponent is then at most 0, so nothing overflows. Source: Bishop 2006, eq. 4.62.
    """
    return np.exp(log_softmax(logits))


def log_softmax(logits: Array) -> Array:
    """Return ``z_j - log sum_k exp(z_k)`` of each row, shifted by the row's maximum; (..., C) to (..., C)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax_cross_entropy(
    logits: Array, labels: Array, *, label_smoothing: float = 0.0
) -> tuple[float, Array]:
    """Return ``(loss, dlogits)``: the mean negative log-likelihood of the labels, and its gradient.

    logits: (N, C) floats;  labels: (N,) integers in [0, C).  loss: the mean over the batch, in nats;
    dlogits = (softmax(logits) - targets) / N: (N, C), the dtype of logits. The targets are one-hot rows; with
    ``label_smoothing`` e in [0, 1) they are (1 - e) one-hot + e / C (Szegedy et al. 2016, section 7).
    Raises ValueError or TypeError for wrong shapes, labels that are no classes, an empty batch and e outside [0, 1).
    """
    if logits.ndim != 2 or len(logits) == 0:
        raise ValueError(f"softmax_cross_entropy: logits have shape {logits.shape}, expected (N, C) with N >= 1")
    samples, classes = logits.shape
    class_labels(labels, samples, classes)
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"softmax_cross_entropy: label_smoothing lies in [0, 1), got {label_smoothing}")
    targets = np.full_like(logits, label_smoothing / classes)
    targets[np.arange(samples), labels] += 1 - label_smoothing
    log_probabilities = log_softmax(logits)
    loss = -(targets * log_probabilities).sum() / samples
    return float(loss), (np.exp(log_probabilities) - targets) / logits.dtype.type(samples)
