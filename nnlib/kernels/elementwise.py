"""Passes over memory: rectifier, dropout, sums over rows, the transpose, and the optimiser's update.

Loops count from 0 in slices of a thread's own: an index that might be negative, which to NumPy means from the end, is
looked at for each number, and one number is then computed at a time instead of a vector.
"""

import numpy as np
from numba import prange

from nnlib.functional import add_decay as plain_add_decay
from nnlib.functional import dropout_backward as plain_dropout_backward
from nnlib.functional import dropout_forward as plain_dropout_forward
from nnlib.functional import momentum_step as plain_momentum_step
from nnlib.functional import relu_backward as plain_relu_backward
from nnlib.functional import relu_forward as plain_relu_forward
from nnlib.functional import sum_of_squares as plain_sum_of_squares
from nnlib.functional.checks import Array, probability_to_drop, same_shape
from nnlib.kernels import tile
from nnlib.kernels.arrays import packed, rows, twin
from nnlib.kernels.pcg64 import number, take, words
from nnlib.kernels.product import lanes, part
from nnlib.kernels.runtime import kernel, threads_for
from nnlib.memory import empty

UNIT = 4096  # elements that one thread takes at the least, an even number
WIDE = 256  # columns of a matrix whose update threads share out by columns; more rows of fewer take longer
SQUARES = 512  # sums of squares that go on side by side
SUMMED = 64  # rows that are added up before the sum goes on in double precision


@twin(plain_relu_forward)
def relu_forward(x: Array) -> Array:
    y = empty(x.shape, x.dtype)
    rectify(packed(x).reshape(-1), y.reshape(-1), threads_for(x.size))
    return y


@twin(plain_relu_backward)
def relu_backward(dy: Array, x: Array) -> Array:
    same_shape("relu: dy", dy, x.shape)
    dx = empty(x.shape, x.dtype)
    pass_where_positive(packed(dy).reshape(-1), packed(x).reshape(-1), dx.reshape(-1), threads_for(x.size))
    return dx


@twin(plain_dropout_forward)
def dropout_forward(
    x: Array, p: float, rng: np.random.Generator | None, *, train: bool = True
) -> tuple[Array, Array | None]:
    probability_to_drop(p)
    if not train or not isinstance(rng, np.random.Generator):
        return plain_dropout_forward(x, p, rng, train=train)
    workers = threads_for(x.size)
    taken = take(rng, x.size, UNIT, workers)
    if taken is None:
        return plain_dropout_forward(x, p, rng)
    y, mask = empty(x.shape, x.dtype), empty(x.shape, np.bool_)
    scale = x.dtype.type(1 / (1 - p))
    draw_mask(packed(x).reshape(-1), *taken, np.float32(p), scale, mask.reshape(-1), y.reshape(-1), workers)
    return y, mask


@twin(plain_dropout_backward)
def dropout_backward(dy: Array, mask: Array | None, p: float) -> Array:
    probability_to_drop(p)
    if mask is None:
        return dy
    same_shape("dropout: mask", mask, dy.shape)
    dx = empty(dy.shape, dy.dtype)
    scale = dy.dtype.type(1 / (1 - p))
    keep(packed(dy).reshape(-1), packed(mask).reshape(-1), scale, dx.reshape(-1), threads_for(dy.size))
    return dx


@twin(plain_momentum_step)
def momentum_step(
    parameter: Array, gradient: Array, velocity: Array, *, rate: float, momentum: float, nesterov: bool = False
) -> None:
    kind = parameter.dtype.type
    wide = parameter.ndim > 1 and parameter.shape[-1] >= WIDE
    columns = parameter.shape[-1] if wide else max(1, parameter.size)  # a narrow matrix is one long row
    matrices = [array.reshape(-1, columns) for array in (parameter, packed(gradient), velocity)]
    tiny = np.finfo(kind).tiny
    move(*matrices, kind(rate), kind(momentum), nesterov, tiny, threads_for(parameter.size))


@twin(plain_add_decay)
def add_decay(gradient: Array, parameter: Array, l2: float) -> None:
    factor = gradient.dtype.type(l2)
    add_multiple(gradient.reshape(-1), packed(parameter).reshape(-1), factor, threads_for(parameter.size))


@twin(plain_sum_of_squares)
def sum_of_squares(parameter: Array) -> float:
    workers = threads_for(parameter.size)
    sums = np.empty(workers)
    part_squares(packed(parameter).reshape(-1), sums, workers)
    return float(sums.sum())


def column_sums(y: Array) -> Array:
    """Return the sum of y (..., C) over all axes but the last: (C,), added up in double precision."""
    workers = threads_for(y.size)
    sums = np.empty((workers, y.shape[-1]))
    add_rows(rows(y), sums, workers)
    return sums.sum(axis=0).astype(y.dtype)


@kernel
def rectify(x, y, threads):
    """y = max(0, x); a NaN stays."""
    for thread in prange(threads):
        begin, end = part(x.size, UNIT, thread, threads)
        source, target = x[begin:end], y[begin:end]
        for i in range(end - begin):
            target[i] = x.dtype.type(0) if source[i] < 0 else source[i]


@kernel
def pass_where_positive(dy, x, dx, threads):
    """dx = dy where x > 0, else 0."""
    for thread in prange(threads):
        begin, end = part(x.size, UNIT, thread, threads)
        slope, source, target = dy[begin:end], x[begin:end], dx[begin:end]
        for i in range(end - begin):
            target[i] = slope[i] if source[i] > 0 else dy.dtype.type(0)


@kernel
def draw_mask(x, states, skipped, p, scale, mask, y, threads):
    """mask = draws >= p; y = x * scale where the mask is set, else 0. The draws begin as `pcg64.take` tells."""
    for thread in prange(threads):
        begin, end = part(x.size, UNIT, thread, threads)
        bits = np.empty(UNIT + 2, dtype=np.uint32)
        high, low = states[thread]
        if skipped:  # begin with the upper half
            high, low = words(states, high, low, bits, 0, 2)
            bits[0] = bits[1]
        for first in range(begin, end, UNIT):
            count = min(UNIT, end - first)
            high, low = words(states, high, low, bits, skipped, count)
            source, target, kept = x[first : first + count], y[first : first + count], mask[first : first + count]
            for i in range(count):
                kept[i] = number(bits[i]) >= p
            for i in range(count):
                target[i] = source[i] * (scale if kept[i] else x.dtype.type(0))
            bits[0] = bits[count]  # the half that is left, where one was skipped


@kernel
def keep(dy, mask, scale, dx, threads):
    """dx = dy * scale where the mask is set, else 0."""
    for thread in prange(threads):
        begin, end = part(dy.size, UNIT, thread, threads)
        slope, kept, target = dy[begin:end], mask[begin:end], dx[begin:end]
        for i in range(end - begin):
            target[i] = slope[i] * (scale if kept[i] else dy.dtype.type(0))


@kernel
def add_rows(y, sums, threads):
    """sums[thread] = the sum of the thread's rows of y (M, C)."""
    columns = y.shape[1]
    for thread in prange(threads):
        begin, end = part(len(y), SUMMED, thread, threads)
        total = np.zeros(columns)
        some = np.empty(columns, dtype=y.dtype)
        for r in range(begin, end, SUMMED):
            some[:] = 0
            for i in range(r, min(end, r + SUMMED)):
                for j in range(columns):
                    some[j] += y[i, j]
            for j in range(columns):
                total[j] += some[j]
        sums[thread] = total


@kernel
def transpose(x, y, threads):
    """y (N, M) = the transpose of x (M, N), in square blocks of as many numbers a side as a vector holds."""
    (rows, columns), lane = x.shape, lanes(x)
    source, target = x.reshape(-1), y.reshape(-1)
    for thread in prange(threads):
        first, last = part(rows, lane, thread, threads)
        for r in range(first, last, lane):
            for c in range(0, columns, lane):
                if r + lane <= last and c + lane <= columns:
                    tile.transpose_vectors(source, r * columns + c, target, c * rows + r, columns, rows)
                else:
                    for i in range(r, min(r + lane, last)):
                        for j in range(c, min(c + lane, columns)):
                            y[j, i] = x[i, j]


@kernel
def move(parameter, gradient, velocity, rate, momentum, nesterov, tiny, threads):
    """Do `momentum_step` for matrices, each thread in the columns whose gradient it has computed.

    Processors may have caches apart, where it takes three times as long to write what another one has written or read.
    A velocity below ``tiny``, the smallest number in full precision, is 0: where a unit has died, the gradient is 0 and
    the velocity shrinks to numbers with which some processors compute a hundred times as slowly.
    """
    for thread in prange(threads):
        first, last = part(parameter.shape[1], lanes(parameter), thread, threads)
        for i in range(len(parameter)):
            w, g, v = parameter[i, first:last], gradient[i, first:last], velocity[i, first:last]
            if nesterov:
                for j in range(last - first):
                    moved = momentum * v[j] + g[j]
                    v[j] = 0 if abs(moved) < tiny else moved
                    w[j] -= rate * (g[j] + momentum * v[j])
            else:
                for j in range(last - first):
                    moved = momentum * v[j] + g[j]
                    v[j] = 0 if abs(moved) < tiny else moved
                    w[j] -= rate * v[j]


@kernel
def add_multiple(y, x, factor, threads):
    """y += factor * x, flat."""
    for thread in prange(threads):
        begin, end = part(x.size, UNIT, thread, threads)
        source, target = x[begin:end], y[begin:end]
        for i in range(end - begin):
            target[i] += factor * source[i]


@kernel
def part_squares(x, sums, threads):
    """sums[thread] = the sum of squares of the thread's part of x, in double precision."""
    for thread in prange(threads):
        begin, end = part(x.size, UNIT, thread, threads)
        squares = np.zeros(SQUARES)
        for first in range(begin, end, SQUARES):
            some = x[first : min(end, first + SQUARES)]
            for i in range(len(some)):
                squares[i] += some[i] * np.float64(some[i])
        sums[thread] = squares.sum()
