"""The affine layer: y = x w + b."""

import math

from nnlib.functional.checks import Array, same_shape


def linear_forward(x: Array, w: Array, b: Array) -> Array:
    """Return ``y = x w + b``, one row per sample.

    x: (N, ...) floats, flattened to (N, D);  w: (D, M);  b: (M,).  y: (N, M), the dtype of the operands.
    Raises ValueError when the shapes do not fit. Source: Goodfellow et al. 2016, section 6.1.
    """
    check_operands(x, w, b)
    return x.reshape(len(x), len(w)) @ w + b


def linear_backward(
    dy: Array, x: Array, w: Array, *, input_grad: bool = True
) -> tuple[Array | None, Array, Array]:
    """Return ``(dx, dw, db)``, the gradients of a scalar loss L with dy = dL/dy.

    dy: (N, M);  x: (N, ...);  w: (D, M).  dx = dy w^T in the shape of x, or None without ``input_grad`` (the first
    layer of a network needs none);  dw = x^T dy: (D, M);  db = sum of dy over the batch: (M,).
    Raises ValueError when the shapes do not fit.
    """
    check_operands(x, w)
    same_shape("linear: dy", dy, (len(x), w.shape[1]))
    flat = x.reshape(len(x), len(w))
    dx = (dy @ w.T).reshape(x.shape) if input_grad else None
    return dx, flat.T @ dy, dy.sum(axis=0)


def check_operands(x: Array, w: Array, b: Array | None = None) -> None:
    """Raise ValueError unless x (N, ...), w (D, M) and b (M,) fit each other."""
    if w.ndim != 2:
        raise ValueError(f"linear: w has shape {w.shape}, expected (inputs, outputs)")
    if x.ndim < 2:
        raise ValueError(f"linear: x has shape {x.shape}, expected (N, ...): one row per sample")
    features = math.prod(x.shape[1:])
    if features != w.shape[0]:
        raise ValueError(f"linear: x has {features} features, w expects {w.shape[0]}")
    if b is not None and b.shape != w.shape[1:]:
        raise ValueError(f"linear: b has shape {b.shape}, w of shape {w.shape} expects {w.shape[1:]}")
