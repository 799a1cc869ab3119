"""Batch normalisation in the fewest passes over memory, with what follows it: a residual sum and the rectifier.

And what comes before all: the normalisation of inputs.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import prange

from nnlib.functional import batch_norm_backward as plain_backward
from nnlib.functional import batch_norm_forward as plain_forward
from nnlib.functional import normalize as plain_normalize
from nnlib.functional.checks import Array, norm_operands, per_channel, same_shape
from nnlib.kernels.arrays import FLOATS, no_matrix, packed, twin
from nnlib.kernels.product import part
from nnlib.kernels.runtime import inline, kernel, threads, threads_for
from nnlib.memory import empty

NUMBERS = 32768  # of a block of rows, which the second cache holds for a second look
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
    wide = widener(x)
    mean, inverse, y = np.empty_like(gamma), np.empty_like(gamma), empty(x.shape, x.dtype)
    statistics = [array if array.flags.carray else np.array(array) for array in (running_mean, running_var)]
    normalise(
        wide(x), packed(gamma), packed(beta), *statistics, train, momentum, eps,
        no_matrix(x.dtype) if residual is None else wide(residual), rectify, mean, inverse, wide(y), threads(),
    )  # fmt: skip
    if train:
        for array, moved in zip((running_mean, running_var), statistics, strict=True):
            if moved is not array:
                array[...] = moved
    keep_y = y if rectify and residual is not None else None
    return y, NormContext(x, mean, inverse, gamma, beta, train, rectify, keep_y)


def norm_gradient(dy: Array, context: NormContext, *, add: Array | None = None) -> tuple[Array, Array, Array, Array]:
    """Return ``(dx + add, dgamma, dbeta, g)``: g is dy, or after a sum with a residual what its rectifier let pass."""
    wide, nothing = widener(dy), no_matrix(dy.dtype)
    g = dy if context.y is None else empty(dy.shape, dy.dtype)
    dx, dgamma, dbeta = empty(dy.shape, dy.dtype), np.empty_like(context.gamma), np.empty_like(context.gamma)
    normalise_gradient(
        wide(dy), wide(context.x), nothing if context.y is None else wide(context.y), context.mean, context.inverse,
        packed(context.gamma), packed(context.beta), context.train, context.rectified,
        nothing if context.y is None else wide(g), nothing if add is None else wide(add),
        dgamma, dbeta, wide(dx), threads(),
    )  # fmt: skip
    return dx, dgamma, dbeta, g


def normalize(x: Array, mean: Array, deviation: Array) -> Array:
    kind = mean.dtype
    if kind not in FLOATS or deviation.dtype != kind or x.dtype not in (np.uint8, kind) or not x.size:
        return plain_normalize(x, mean, deviation)
    per_channel("normalize", x, mean=mean, deviation=deviation)
    wide, y = widener(x), empty(x.shape, kind)
    centre(wide(x), packed(mean), packed(deviation), wide(y), threads_for(x.size))
    return y


normalize.__doc__ = plain_normalize.__doc__


def widener(x: Array) -> Callable[[Array], Array]:
    """Return a function that views arrays like x (..., C) as rows of several pixels.

    Loops run along rows, and short rows do not fill the vector registers.
    """
    channels = x.shape[-1]
    pixels = 1
    while 2 * pixels * channels <= WIDTH and (x.size // channels) % (2 * pixels) == 0:
        pixels *= 2
    return lambda array: packed(array).reshape(-1, pixels * channels)


@inline
def repeated(vector, width):
    """Return a vector (C,) so often after itself that it fits rows of several pixels."""
    return vector if len(vector) == width else np.ascontiguousarray(
        np.broadcast_to(vector, (width // len(vector), len(vector)))
    ).reshape(-1)


@kernel
def centre(x, mean, deviation, y, threads):
    """Write into y (x - mean) / deviation."""
    width = x.shape[1]
    means, deviations = repeated(mean, width), repeated(deviation, width)
    for thread in prange(threads):
        begin, end = part(len(x), 1, thread, threads)
        for r in range(begin, end):
            for j in range(width):
                y[r, j] = (mean.dtype.type(x[r, j]) - means[j]) / deviations[j]


@kernel
def normalise(
    x, gamma, beta, running_mean, running_var, train, momentum, eps, residual, rectify, mean, inverse, y, threads
):
    """Write into y batch norm of x, plus the residual, rectified where asked; and what was subtracted and multiplied.

    x, residual and y hold rows of several pixels. In training the running statistics move towards the batch's.
    """
    count = x.size // len(gamma)
    parts = np.empty((threads if train else 0, 3, x.shape[1]))
    for thread in prange(len(parts)):
        part_moments(x, parts[thread], thread, threads)
    if train:
        merge_moments(parts, count, mean, inverse)
    for c in range(len(gamma)):
        if train:
            variance = np.float64(inverse[c])
            running_mean[c] += momentum * (mean[c] - running_mean[c])
            running_var[c] += momentum * (variance * (count / (count - 1)) - running_var[c])
        else:
            mean[c], variance = running_mean[c], np.float64(running_var[c])
        inverse[c] = 1 / np.sqrt(variance + eps)
    width = x.shape[1]
    means, scales, shifts = repeated(mean, width), repeated(gamma * inverse, width), repeated(beta, width)
    for thread in prange(threads):
        begin, end = part(len(x), 1, thread, threads)
        apply(x, means, scales, shifts, residual, rectify, y, begin, end)


@inline
def part_moments(x, moments, thread, threads):
    """moments = count, mean and sum of squared differences from the mean of a thread's rows of x (M, C)."""
    channels = x.shape[1]
    block = max(1, NUMBERS // channels)
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
    moments[0] = count
    moments[1] = mean
    moments[2] = squares


@inline
def merge_moments(parts, count, mean, variance):
    """Write the mean and variance of all rows: the parts' differences are added as Chan et al. 1979 say.

    So nothing cancels where the mean is much larger than the deviation.
    """
    channels = len(mean)
    for c in range(channels):
        total = 0.0
        for p in range(len(parts)):
            for j in range(c, parts.shape[2], channels):
                total += parts[p, 0, j] * parts[p, 1, j]
        middle, squares = total / count, 0.0
        for p in range(len(parts)):
            for j in range(c, parts.shape[2], channels):
                squares += parts[p, 2, j] + parts[p, 0, j] * (parts[p, 1, j] - middle) ** 2
        mean[c], variance[c] = middle, squares / count


@inline
def apply(x, mean, scale, beta, residual, rectify, y, begin, end):
    """y = (x - mean) * scale + beta + residual, rectified where asked, for rows begin..end."""
    channels = x.shape[1]
    for i in range(begin, end):
        for j in range(channels):
            y[i, j] = (x[i, j] - mean[j]) * scale[j] + beta[j]
        if residual.size:
            for j in range(channels):
                y[i, j] += residual[i, j]
        if rectify:
            for j in range(channels):
                y[i, j] = x.dtype.type(0) if y[i, j] < 0 else y[i, j]


@kernel
def normalise_gradient(
    dy, x, y, mean, inverse, gamma, beta, train, rectified, passed, add, dgamma, dbeta, dx, threads
):
    """Write dx + add, dgamma and dbeta of `normalise`, and into ``passed`` what its rectifier let pass, given y."""
    count, channels, width = x.size // len(gamma), len(gamma), x.shape[1]
    means, scales, shifts = repeated(mean, width), repeated(gamma * inverse, width), repeated(beta, width)
    sums = np.empty((threads, 2, width))
    for thread in prange(threads):
        gradient_sums(dy, x, y, means, scales, shifts, rectified, passed, sums[thread], thread, threads)
    slope, intercept = np.zeros_like(gamma), np.zeros_like(gamma)
    for c in range(channels):
        total, centred = 0.0, 0.0
        for thread in range(threads):
            for j in range(c, width, channels):
                total += sums[thread, 0, j]
                centred += sums[thread, 1, j]
        dbeta[c], dgamma[c] = total, centred * inverse[c]
        if train:  # the batch's own mean and variance answer to x too
            slope[c] = -gamma[c] * inverse[c] * inverse[c] * inverse[c] * centred / count
            intercept[c] = -gamma[c] * inverse[c] * total / count
    slopes, intercepts = repeated(slope, width), repeated(intercept, width)
    source = passed if y.size else dy
    for thread in prange(threads):
        begin, end = part(len(x), 1, thread, threads)
        rectify = rectified and not y.size
        apply_gradient(source, x, means, scales, shifts, rectify, slopes, intercepts, add, dx, begin, end)


@inline
def gradient_sums(dy, x, y, mean, scale, beta, rectified, passed, sums, thread, threads):
    """sums = a thread's sums of g and of g * (x - mean), g being dy where the rectifier let it pass.

    That is where y > 0, and g is then written into ``passed``; without y, where what went into the rectifier is.
    """
    channels = x.shape[1]
    block = max(1, NUMBERS // channels)
    begin, end = part(len(x), block, thread, threads)
    some, some_product = np.empty(channels, dtype=x.dtype), np.empty(channels, dtype=x.dtype)
    sums[:] = 0
    for r in range(begin, end, block):
        stop = min(end, r + block)
        some[:] = 0
        some_product[:] = 0
        if y.size:
            sum_where_positive(dy, x, y, mean, r, stop, passed, some, some_product)
        elif rectified:
            sum_rectified(dy, x, mean, scale, beta, r, stop, some, some_product)
        else:
            sum_all(dy, x, mean, r, stop, some, some_product)
        for j in range(channels):
            sums[0, j] += some[j]
            sums[1, j] += some_product[j]


@inline
def sum_where_positive(dy, x, y, mean, begin, end, passed, some, some_product):
    """Add rows begin..end to the sums of `gradient_sums`, g being dy where y > 0."""
    for i in range(begin, end):
        for j in range(x.shape[1]):
            passed[i, j] = dy[i, j] if y[i, j] > 0 else dy.dtype.type(0)
        for j in range(x.shape[1]):
            some[j] += passed[i, j]
            some_product[j] += passed[i, j] * (x[i, j] - mean[j])


@inline
def sum_rectified(dy, x, mean, scale, beta, begin, end, some, some_product):
    """Add rows begin..end to the sums of `gradient_sums`, g being dy where the normalised x is positive."""
    for i in range(begin, end):
        for j in range(x.shape[1]):
            centred = x[i, j] - mean[j]
            g = dy[i, j] if centred * scale[j] + beta[j] > 0 else dy.dtype.type(0)
            some[j] += g
            some_product[j] += g * centred


@inline
def sum_all(dy, x, mean, begin, end, some, some_product):
    """Add rows begin..end to the sums of `gradient_sums`, g being dy."""
    for i in range(begin, end):
        for j in range(x.shape[1]):
            some[j] += dy[i, j]
            some_product[j] += dy[i, j] * (x[i, j] - mean[j])


@inline
def apply_gradient(dy, x, mean, scale, beta, rectified, slope, intercept, add, dx, begin, end):
    """dx = g * scale + (x - mean) * slope + intercept + add for rows begin..end, g as in `gradient_sums` without y."""
    channels = x.shape[1]
    for i in range(begin, end):
        if rectified:
            for j in range(channels):
                centred = x[i, j] - mean[j]
                g = dy[i, j] if centred * scale[j] + beta[j] > 0 else dy.dtype.type(0)
                dx[i, j] = g * scale[j] + centred * slope[j] + intercept[j]
        else:
            for j in range(channels):
                dx[i, j] = dy[i, j] * scale[j] + (x[i, j] - mean[j]) * slope[j] + intercept[j]
        if add.size:
            for j in range(channels):
                dx[i, j] += add[i, j]
