"""Batch normalisation: y = gamma (x - mean) / sqrt(variance + eps) + beta, channel by channel."""

from typing import NamedTuple

import numpy as np

from nnlib.functional.checks import Array, norm_operands, per_channel, same_shape


class NormContext(NamedTuple):
    """What the backward pass of a batch normalisation needs."""

    centred: Array  # x - mean, in the shape of x
    gamma: Array  # (C,)
    inverse: Array  # 1 / sqrt(variance + eps): (C,)
    train: bool  # whether mean and variance are those of the batch, so that x moves them


def batch_norm_forward(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    *,
    train: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, NormContext]:
    """Return ``(y, context)``: x brought to mean beta and deviation gamma in each channel, over all axes but the last.

    x: (N, C) or (N, H, W, C) floats;  gamma, beta: (C,);  running_mean, running_var: (C,), float32 or float64.
    y: shape and dtype of x. In training mean and variance are those of the batch (the variance over m values divides
    by m), and the running statistics are updated in place, r <- (1 - momentum) r + momentum new, with the variance that
    divides by m - 1, as in PyTorch; otherwise mean and variance are the running ones.
    Raises ValueError when the shapes do not fit and for training with a single value a channel.
    Source: Ioffe and Szegedy 2015, algorithms 1 and 2.
    """
    norm_operands(x, gamma, beta, running_mean, running_var, train)
    rows = x.reshape(-1, x.shape[-1])
    m = len(rows)
    if train:
        mean = sum_rows(rows) / m
        centred = rows - mean
        var = _sum_products(centred, centred) / m
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (var * (m / (m - 1)) - running_var)
    else:
        centred = rows - running_mean.astype(x.dtype)
        var = running_var.astype(x.dtype)
    inverse = 1 / np.sqrt(var + eps)
    y = centred * (gamma * inverse)
    y += beta
    return y.reshape(x.shape), NormContext(centred.reshape(x.shape), gamma, inverse, train)


def batch_norm_backward(dy: Array, context: NormContext) -> tuple[Array, Array, Array]:
    """Return ``(dx, dgamma, dbeta)``, the gradients of a scalar loss L with dy = dL/dy.

    dy and dx have the shape of x;  dgamma = sum of dy xhat and dbeta = sum of dy: (C,), where xhat = (x - mean) / sqrt(
    variance + eps).  In training dx = gamma / sqrt(variance + eps) (dy - dbeta / m - xhat dgamma / m), for a step in x
    also moves the mean and the variance of its m values; with running statistics only dy stays in the parentheses.
    Raises ValueError when the shapes do not fit. Source: Ioffe and Szegedy 2015, section 3, simplified.
    """
    same_shape("batch_norm: dy", dy, context.centred.shape)
    channels = dy.shape[-1]
    rows, centred, inverse = dy.reshape(-1, channels), context.centred.reshape(-1, channels), context.inverse
    m = len(rows)
    dbeta = sum_rows(rows)
    dgamma = _sum_products(rows, centred) * inverse
    scale = context.gamma * inverse
    if not context.train:
        return (rows * scale).reshape(dy.shape), dgamma, dbeta
    dx = centred * (inverse * dgamma / -m)
    dx += rows
    dx -= dbeta / m
    dx *= scale
    return dx.reshape(dy.shape), dgamma, dbeta


def sum_rows(rows: Array) -> Array:
    """Return the sum over the first axis, (M, C) to (C,), as a product with ones: that runs on every core."""
    return np.ones(len(rows), rows.dtype) @ rows


def _sum_products(a: Array, b: Array) -> Array:
    """Return the sum of a * b over the first axis, (M, C) to (C,), without the array of products."""
    return np.einsum("mc,mc->c", a, b)


def normalize(x: Array, mean: Array, deviation: Array) -> Array:
    """Return ``y = (x - mean) / deviation``, along the last axis.

    x: (N, ..., C), uint8 or floats;  mean, deviation: (C,).  y: shape of x, dtype of mean.
    Raises ValueError when the shapes do not fit.
    """
    per_channel("normalize", x, mean=mean, deviation=deviation)
    # One for each number in a row of an image: with three channels in its innermost loop NumPy would take six times as
    # long, and one for each in an image would cost a single input more than the rest.
    row = x.shape[1:][-2:]
    y = x.astype(mean.dtype)
    y -= np.full(row, mean)
    y /= np.full(row, deviation)
    return y
