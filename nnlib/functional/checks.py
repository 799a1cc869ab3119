"""What the functions of this package demand of their operands, each violation one clear line."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def same_shape(what: str, array: Array, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``array`` has ``shape``."""
    if array.shape != shape:
        raise ValueError(f"{what} has shape {array.shape}, expected {shape}")


def probability_to_drop(p: float) -> None:
    """Raise ValueError unless 0 <= p < 1."""
    if not 0.0 <= p < 1.0:
        raise ValueError(f"dropout: p is the probability to drop and lies in [0, 1), got {p}")


def class_labels(labels: Array, samples: int, classes: int) -> None:
    """Raise TypeError or ValueError unless ``labels`` are ``samples`` integers in [0, classes)."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"labels: expected integers, one class index a sample, got {labels.dtype}")
    same_shape("labels", labels, (samples,))
    if samples and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(
            f"labels: expected 0 to {classes - 1} for {classes} classes, got {labels.min()} to {labels.max()}"
        )
