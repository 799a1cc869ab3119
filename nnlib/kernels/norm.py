"""Batch normalisation in the fewest passes over memory, with what follows it: a residual sum and the rectifier."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import prange

from nnlib.functional import batch_norm_backward as plain_backward
from nnlib.functional import batch_norm_forward as plain_forward
from nnlib.functional.checks import Array, norm_operands, same_shape
from nnlib.kernels.arrays import no_matrix, packed, twin
from nnlib.kernels.product import part
from nnlib.kernels.runtime import inline, kernel, threads

NUMBERS = 8192  # of a block of rows, which the first cache holds for a second look
WIDTH = 512  # numbers in a row, which may hold several pixels


class NormContext(NamedTuple):
    """What the backward pass needs."""

    x: Array
    mean: Array  # that was subtracted, (C,)
    inverse: Array  # 1 / sqrt(variance + eps), (C,)
    gamma: Array
    beta: Array
    train: bool
    rectified: bool
    y: Array | None  # the output, where a residual went into what was rectified


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
    norm_operands(x, gamma, beta, running_mean, running_var, train)
    return norm(x, gamma, beta, running_mean, running_var, train=train, momentum=momentum, eps=eps)


batch_norm_forward = twin(plain_forward)(batch_norm_forward)


def batch_norm_backward(dy: Array, context: NormContext) -> tuple[Array, Array, Array]:
    if not isinstance(context, NormContext):  # of a forward pass that the NumPy function served
        return plain_backward(dy, context)
    same_shape("batch_norm: dy", dy, context.x.shape)
    dx, dgamma, dbeta, _ = norm_gradient(dy, context)
    return dx, dgamma, dbeta


batch_norm_backward.__doc__ = plain_backward.__doc__


def norm(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    *,
    train: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    residual: Array | None = None,
    rectify: bool = False,
) -> tuple[Array, NormContext]:
    """Return batch norm of x, plus ``residual``, rectified where asked, and the context of `norm_gradient`."""
    if train:
        mean, variance, count = moments(x)
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (variance * (count / (count - 1)) - running_var)
    else:
        mean, variance = running_mean, running_var
    mean, inverse = mean.astype(x.dtype), (1 / np.sqrt(variance + eps)).astype(x.dtype)
    y = np.empty(x.shape, dtype=x.dtype)
    wide, fold = widener(x)
    apply(
        wide(x), fold(mean), fold(gamma * inverse), fold(beta),
        no_matrix(x.dtype) if residual is None else wide(residual), rectify, wide(y), threads(),
    )  # fmt: skip
    keep_y = y if rectify and residual is not None else None
    return y, NormContext(x, mean, inverse, gamma, beta, train, rectify, keep_y)


def norm_gradient(dy: Array, context: NormContext, *, add: Array | None = None) -> tuple[Array, Array, Array, Array]:
    """Return ``(dx + add, dgamma, dbeta, g)``: g is dy, or after a sum with a residual what its rectifier let pass."""
    dtype, channels = dy.dtype, dy.shape[-1]
    count = dy.size // channels
    wide, fold = widener(dy)
    x, mean, beta = wide(context.x), fold(context.mean), fold(context.beta)
    scale = context.gamma * context.inverse
    passed = None if context.y is None else np.empty(dy.shape, dtype=dtype)
    sums = np.empty((threads(), 2, x.shape[1]))
    output = no_matrix(dtype) if context.y is None else wide(context.y)
    gradient_sums(
        wide(dy), x, output, mean, fold(scale), beta, context.rectified,
        no_matrix(dtype) if passed is None else wide(passed), sums, threads(),
    )  # fmt: skip
    dbeta, centred = sums.reshape(threads(), 2, -1, channels).sum(axis=(0, 2))
    dgamma = centred * context.inverse
    slope = intercept = np.zeros(channels, dtype=dtype)
    if context.train:  # the batch's own mean and variance answer to x too
        slope = (-scale * dgamma * context.inverse / count).astype(dtype)
        intercept = (-scale * dbeta / count).astype(dtype)
    dx = np.empty(dy.shape, dtype=dtype)
    rectified = context.rectified and passed is None
    apply_gradient(
        wide(dy if passed is None else passed), x, mean, fold(scale), beta, rectified,
        fold(slope), fold(intercept), no_matrix(dtype) if add is None else wide(add), wide(dx), threads(),
    )  # fmt: skip
    return dx, dgamma.astype(dtype), dbeta.astype(dtype), dy if passed is None else passed


def moments(x: Array) -> tuple[Array, Array, int]:
    """Return ``(mean, variance, count)`` over all axes but the last, float64; variance is that of the sample itself.

    Each thread's means and squares are merged as Chan et al. 1979 say, so nothing cancels where |mean| >> deviation.
    """
    wide, _ = widener(x)
    channels = x.shape[-1]
    x = wide(x)
    parts = np.empty((threads(), 3, x.shape[1]))
    part_moments(x, parts, threads())
    counts, means, squares = parts.reshape(threads(), 3, -1, channels).transpose(1, 0, 2, 3).reshape(3, -1, channels)
    count = x.size // channels
    mean = (counts * means).sum(axis=0) / count
    return mean, (squares + counts * (means - mean) ** 2).sum(axis=0) / count, count


def widener(x: Array) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Return ``(wide, fold)``: views of arrays (..., C) as rows of several pixels, and vectors (C,) repeated to fit.

    Loops run along rows, and short rows do not fill the vector registers.
    """
    channels = x.shape[-1]
    pixels = 1
    while 2 * pixels * channels <= WIDTH and (x.size // channels) % (2 * pixels) == 0:
        pixels *= 2
    return (
        lambda array: packed(array).reshape(-1, pixels * channels),
        lambda vector: packed(vector) if pixels == 1 else np.tile(vector, pixels),
    )


@kernel
def part_moments(x, parts, threads):
    """parts[thread] = count, mean and sum of squared differences from the mean of the thread's rows of x (M, C)."""
    channels = x.shape[1]
    block = max(1, NUMBERS // channels)
    for thread in prange(threads):
        begin, end = part(len(x), block, thread, threads)
        count, mean, squares = 0, np.zeros(channels), np.zeros(channels)
        local, spread = np.empty(channels, dtype=x.dtype), np.empty(channels, dtype=x.dtype)
        for r in range(begin, end, block):
            stop = min(end, r + block)
            n = stop - r
            local[:] = 0
            for i in range(r, stop):
                for j in range(channels):
                    local[j] += x[i, j]
            for j in range(channels):
                local[j] /= n
            spread[:] = 0
            for i in range(r, stop):
                for j in range(channels):
                    d = x[i, j] - local[j]
                    spread[j] += d * d
            for j in range(channels):
                difference = local[j] - mean[j]
                mean[j] += difference * n / (count + n)
                squares[j] += spread[j] + difference * difference * count * n / (count + n)
            count += n
        parts[thread, 0] = count
        parts[thread, 1] = mean
        parts[thread, 2] = squares


@kernel
def apply(x, mean, scale, beta, residual, rectify, y, threads):
    """y = (x - mean) * scale + beta + residual, rectified where asked; all (M, C) but the vectors."""
    channels = x.shape[1]
    for thread in prange(threads):
        begin, end = part(len(x), 1, thread, threads)
        for i in range(begin, end):
            for j in range(channels):
                y[i, j] = (x[i, j] - mean[j]) * scale[j] + beta[j]
            if residual.size:
                for j in range(channels):
                    y[i, j] += residual[i, j]
            if rectify:
                for j in range(channels):
                    y[i, j] = x.dtype.type(0) if y[i, j] < 0 else y[i, j]


@inline
def pass_gradient(dy, x, y, has_y, mean, scale, beta, rectified, g):
    """Write into g a row of dy where the rectifier let it pass, else 0."""
    if not rectified:
        for j in range(len(g)):
            g[j] = dy[j]
    elif has_y:
        for j in range(len(g)):
            g[j] = dy[j] if y[j] > 0 else dy.dtype.type(0)
    else:
        for j in range(len(g)):
            g[j] = dy[j] if (x[j] - mean[j]) * scale[j] + beta[j] > 0 else dy.dtype.type(0)


@kernel
def gradient_sums(dy, x, y, mean, scale, beta, rectified, passed, sums, threads):
    """sums[thread] = the thread's sums of g and of g * (x - mean), g being dy where the rectifier let it pass.

    That is where y > 0, and without y where what went into the rectifier is. g is written into ``passed`` if given.
    """
    channels = x.shape[1]
    block = max(1, NUMBERS // channels)
    for thread in prange(threads):
        begin, end = part(len(x), block, thread, threads)
        total, product = np.zeros(channels), np.zeros(channels)
        some, some_product = np.empty(channels, dtype=x.dtype), np.empty(channels, dtype=x.dtype)
        g = np.empty(channels, dtype=x.dtype)
        for r in range(begin, end, block):
            some[:] = 0
            some_product[:] = 0
            for i in range(r, min(end, r + block)):
                pass_gradient(dy[i], x[i], y[i] if y.size else mean, y.size > 0, mean, scale, beta, rectified, g)
                for j in range(channels):
                    some[j] += g[j]
                for j in range(channels):
                    some_product[j] += g[j] * (x[i, j] - mean[j])
                if passed.size:
                    for j in range(channels):
                        passed[i, j] = g[j]
            for j in range(channels):
                total[j] += some[j]
                product[j] += some_product[j]
        sums[thread, 0] = total
        sums[thread, 1] = product


@kernel
def apply_gradient(dy, x, mean, scale, beta, rectified, slope, intercept, add, dx, threads):
    """dx = g * scale + (x - mean) * slope + intercept + add, with g as in `gradient_sums`."""
    channels = x.shape[1]
    for thread in prange(threads):
        begin, end = part(len(x), 1, thread, threads)
        g = np.empty(channels, dtype=x.dtype)
        for i in range(begin, end):
            pass_gradient(dy[i], x[i], mean, False, mean, scale, beta, rectified, g)
            for j in range(channels):
                dx[i, j] = g[j] * scale[j] + (x[i, j] - mean[j]) * slope[j] + intercept[j]
            if add.size:
                for j in range(channels):
                    dx[i, j] += add[i, j]
