"""The rectifier: y = max(0, x)."""

import numpy as np

from nnlib.functional.checks import Array, same_shape


def relu_forward(x: Array) -> Array:
    """Return ``max(0, x)`` elementwise, in the shape and dtype of x. Source: Goodfellow et al. 2016, section 6.3."""
    return np.maximum(x, 0)


def relu_backward(dy: Array, x: Array) -> Array:
    """Return ``dx = dy`` where x > 0, else 0.

    dy, x and dx have one shape. At the kink x = 0, where every slope in [0, 1] is a subgradient, 0 is taken: a unit
    that is off stays untouched. Raises ValueError when the shapes differ.
    """
    same_shape("relu: dy", dy, x.shape)
    return dy * (x > 0)
