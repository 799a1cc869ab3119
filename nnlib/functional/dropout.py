"""Inverted dropout: drop with probability p, scale what is kept by 1 / (1 - p)."""

import numpy as np

from nnlib.functional.checks import Array, probability_to_drop, same_shape


def dropout_forward(
    x: Array, p: float, rng: np.random.Generator | None, *, train: bool = True
) -> tuple[Array, Array | None]:
    """Return ``(y, mask)``: x with each element zeroed with probability p, the others divided by 1 - p.

    x: any shape;  p in [0, 1): the probability to drop.  y: shape and dtype of x;  mask: bool, True where kept, drawn
    anew from ``rng`` at each call. With ``train=False`` the input is returned as it is and the mask is None.
    Raises ValueError for p outside [0, 1) and for training without a generator. Source: Srivastava et al. 2014,
    section 10 (there p is the probability to keep).
    """
    probability_to_drop(p)
    if not train:
        return x, None
    if not isinstance(rng, np.random.Generator):
        raise ValueError("dropout: training needs rng, a numpy.random.Generator to draw the mask from")
    # float32 draws for every dtype: the same seed gives the same mask in float32 training and float64 checks.
    mask = rng.random(x.shape, dtype=np.float32) >= p
    return _keep(x, mask, p), mask


def dropout_backward(dy: Array, mask: Array | None, p: float) -> Array:
    """Return ``dx``: dy through the mask and the scale of the forward pass; as it is where mask is None.

    dy, mask and dx have one shape. Raises ValueError when they differ or p is outside [0, 1).
    """
    probability_to_drop(p)
    if mask is None:
        return dy
    same_shape("dropout: mask", mask, dy.shape)
    return _keep(dy, mask, p)


def _keep(x: Array, mask: Array, p: float) -> Array:
    """Return ``x * mask / (1 - p)`` in the dtype of x."""
    return x * (mask * x.dtype.type(1 / (1 - p)))
