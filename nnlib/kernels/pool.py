"""Maximum pooling; a bias and a rectifier before it keep the order of numbers, so they may as well come after it."""

import numpy as np
from numba import prange

from nnlib.functional import max_pool2d_backward as plain_backward
from nnlib.functional import max_pool2d_forward as plain_forward
from nnlib.functional.checks import Array, pool_operands, pooled_size, same_shape
from nnlib.kernels import tile
from nnlib.kernels.arrays import no_vector, packed, twin
from nnlib.kernels.product import lanes
from nnlib.kernels.runtime import inline, kernel, threads
from nnlib.memory import empty


@twin(plain_forward)
def max_pool2d_forward(
    x: Array, size: int, *, stride: int | None = None, padding: int = 0
) -> tuple[Array, Array]:
    return pool(x, size, stride=stride, padding=padding)


def pool(
    x: Array,
    size: int,
    *,
    stride: int | None = None,
    padding: int = 0,
    shift: Array | None = None,
    rectify: bool = False,
) -> tuple[Array, Array]:
    """Return ``(y, argmax)`` of max_pool(x) + shift, rectified where asked; shift holds a number a channel."""
    stride = size if stride is None else stride
    height, width = pool_operands(x, size, stride, padding)
    y = empty((len(x), height, width, x.shape[3]), x.dtype)
    argmax = empty(y.shape, np.min_scalar_type(size * size - 1))
    shift = no_vector(x.dtype) if shift is None else packed(shift)
    largest(packed(x), size, stride, padding, shift, rectify, y, argmax, threads())
    return y, argmax


def max_pool2d_backward(
    dy: Array, argmax: Array, x_shape: tuple[int, ...], size: int, *, stride: int | None = None, padding: int = 0
) -> Array:
    if dy.dtype not in (np.float32, np.float64):
        return plain_backward(dy, argmax, x_shape, size, stride=stride, padding=padding)
    stride = size if stride is None else stride
    same_shape("max_pool2d: dy", dy, (x_shape[0], *pooled_size(x_shape, size, stride, padding), x_shape[3]))
    same_shape("max_pool2d: argmax", argmax, dy.shape)
    dx = empty(x_shape, dy.dtype)
    spread(packed(dy), packed(argmax), size, stride, padding, dx, threads())
    return dx


max_pool2d_backward.__doc__ = plain_backward.__doc__


@kernel
def largest(x, size, stride, padding, shift, rectify, y, argmax, threads):
    """y = the largest number of each window, and argmax where it stands in the window, the first of equal ones."""
    height, width, channels = y.shape[1:]
    rows, columns = x.shape[1:3]
    lines, flat, best, at = len(x) * height, x.reshape(-1), y.reshape(-1), argmax.reshape(-1)
    line, lane = columns * channels, lanes(x)
    whole = channels // lane * lane
    for thread in prange(threads):
        for k in range(lines * thread // threads, lines * (thread + 1) // threads):
            top = k % height * stride - padding
            a, last_a = max(0, -top), min(size, rows - top)
            for j in range(width):
                left = j * stride - padding
                b, last_b = max(0, -left), min(size, columns - left)
                corner, out = (k // height * rows + top) * line + left * channels, (k * width + j) * channels
                for c in range(0, whole, lane):
                    tile.largest_of_window(
                        flat, corner + c, line, channels, a, last_a, b, last_b, size, best, at, out + c
                    )
                    tile.finish_vector(best, out + c, c, shift, shift, shift, False, shift.size > 0, False, rectify)
                for c in range(whole, channels):
                    number, place = search(flat, corner + c, line, channels, a, last_a, b, last_b, size)
                    number = number + shift[c] if shift.size else number
                    best[out + c], at[out + c] = x.dtype.type(0) if rectify and number < 0 else number, place


@inline
def search(x, corner, line, pixel, first_a, last_a, first_b, last_b, size):
    """Return the largest number of a window and its place: `tile.largest_of_window` for one channel."""
    best, place = x.dtype.type(-np.inf), first_a * size + first_b
    for a in range(first_a, last_a):
        for b in range(first_b, last_b):
            number = x[corner + a * line + b * pixel]
            if number > best or number != number:
                best, place = number, a * size + b
    return best, place


@kernel
def spread(dy, argmax, size, stride, padding, dx, threads):
    """dx = the sum of dy over the windows whose largest number stood there."""
    height, width, channels = dy.shape[1:]
    zero = dy.dtype.type(0)
    for thread in prange(threads):
        for image in range(len(dx) * thread // threads, len(dx) * (thread + 1) // threads):
            dx[image] = 0
            for i in range(height):
                top = i * stride - padding
                for j in range(width):
                    left = j * stride - padding
                    slope, at = dy[image, i, j], argmax[image, i, j]
                    for a in range(max(0, -top), min(size, dx.shape[1] - top)):
                        for b in range(max(0, -left), min(size, dx.shape[2] - left)):
                            row, place = dx[image, top + a, left + b], a * size + b
                            for c in range(channels):
                                row[c] += slope[c] if at[c] == place else zero
