"""Maximum pooling; a bias and a rectifier before it keep the order of numbers, so they may as well come after it."""

import numpy as np
from numba import prange

from nnlib.functional import max_pool2d_backward as plain_backward
from nnlib.functional import max_pool2d_forward as plain_forward
from nnlib.functional.checks import Array, pool_operands, pooled_size, same_shape
from nnlib.kernels.arrays import no_vector, packed, twin
from nnlib.kernels.runtime import inline, kernel, threads


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
    y = np.empty((len(x), height, width, x.shape[3]), dtype=x.dtype)
    argmax = np.empty(y.shape, dtype=np.min_scalar_type(size * size - 1))
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
    dx = np.empty(x_shape, dtype=dy.dtype)
    spread(packed(dy), packed(argmax), size, stride, padding, dx, threads())
    return dx


max_pool2d_backward.__doc__ = plain_backward.__doc__


@kernel
def largest(x, size, stride, padding, shift, rectify, y, argmax, threads):
    """y = the largest number of each window, and argmax where it stands in the window, the first of equal ones."""
    height, width = y.shape[1:3]
    lines = len(x) * height
    for thread in prange(threads):
        for line in range(lines * thread // threads, lines * (thread + 1) // threads):
            image, i = line // height, line % height
            for j in range(width):
                window = x[image], i * stride - padding, j * stride - padding, size
                search(window, y[image, i, j], argmax[image, i, j])
                finish(y[image, i], j, shift, rectify)


@inline
def search(window, best, at):
    """Write the largest number of a window of one image (H, W, C), and its place, into best and at: (C,)."""
    image, top, left, size = window
    best[:] = -np.inf
    at[:] = max(0, -top) * size + max(0, -left)
    for a in range(max(0, -top), min(size, image.shape[0] - top)):
        for b in range(max(0, -left), min(size, image.shape[1] - left)):
            row, place = image[top + a, left + b], at.dtype.type(a * size + b)
            for c in range(len(best)):
                better = row[c] > best[c] or row[c] != row[c]  # a NaN is passed on
                at[c] = place if better else at[c]
                best[c] = row[c] if better else best[c]


@inline
def finish(line, j, shift, rectify):
    """Apply to pixel j of a line what follows the pooling."""
    if shift.size:
        for c in range(line.shape[1]):
            line[j, c] += shift[c]
    if rectify:
        for c in range(line.shape[1]):
            line[j, c] = line.dtype.type(0) if line[j, c] < 0 else line[j, c]


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
