"""Convolution as products of patches that are never copied, see `product`; its gradients are convolutions again.

Where kernels of 3 x 3 pixels meet enough pixels, `winograd` does it in fewer multiplications.
"""

from functools import lru_cache

import numpy as np
from numba import prange

from nnlib.functional import conv2d_backward as plain_backward
from nnlib.functional import conv2d_forward as plain_forward
from nnlib.functional.checks import Array, conv2d_operands, same_shape
from nnlib.kernels import winograd
from nnlib.kernels.arrays import no_matrix, no_vector, packed, rows, twin
from nnlib.kernels.elementwise import column_sums
from nnlib.kernels.product import product, transposed_product
from nnlib.kernels.runtime import kernel, threads, threads_for_product
from nnlib.memory import empty


@twin(plain_forward)
def conv2d_forward(x: Array, w: Array, b: Array | None = None, *, stride: int = 1, padding: int = 0) -> Array:
    conv2d_operands(x, w, b, stride, padding)
    return convolve(x, w, stride=stride, padding=padding, shift=b)


@twin(plain_backward)
def conv2d_backward(
    dy: Array, x: Array, w: Array, *, stride: int = 1, padding: int = 0, input_grad: bool = True
) -> tuple[Array | None, Array, Array]:
    height, width = conv2d_operands(x, w, None, stride, padding)
    same_shape("conv2d: dy", dy, (len(x), height, width, w.shape[3]))
    dx = input_gradient(dy, w, x.shape, stride=stride, padding=padding) if input_grad else None
    return dx, weight_gradient(dy, x, w.shape, stride=stride, padding=padding), column_sums(dy)


def convolve(
    x: Array,
    w: Array,
    *,
    stride: int,
    padding: int,
    scale: Array | None = None,
    shift: Array | None = None,
    residual: Array | None = None,
    rectify: bool = False,
) -> Array:
    """Return conv(x, w) * scale + shift + residual, rectified where asked.

    scale and shift hold a number for each channel; residual has the shape of the result.
    """
    kh, kw, channels, filters = w.shape
    height, width = x.shape[1] + 2 * padding, x.shape[2] + 2 * padding
    y = empty((len(x), (height - kh) // stride + 1, (width - kw) // stride + 1, filters), x.dtype)
    if stride == 1 and winograd.suits(w.shape, x, y):
        winograd.convolve(x, w, padding, y, scale=scale, shift=shift, residual=residual, rectify=rectify)
        return y
    framed = pad(x, padding, padding, height, width)
    product(
        framed.reshape(-1), places(*y.shape[:3], height, width, channels, stride),
        kh, width * channels, kw * channels,
        packed(w).reshape(kh * kw, channels, filters), in_order(kh * kw), False,
        y.reshape(-1, filters),
        no_vector(y.dtype) if scale is None else packed(scale),
        no_vector(y.dtype) if shift is None else packed(shift),
        no_matrix(y.dtype) if residual is None else rows(residual),
        rectify, threads_for_product(y.size // filters, w.size),
    )  # fmt: skip
    return y


def weight_gradient(dy: Array, x: Array, shape: tuple[int, ...], *, stride: int, padding: int) -> Array:
    """Return dw of the given shape: the sum over all pixels of (patch of x) times (dy at that pixel)."""
    if stride == 1 and winograd.suits(shape, x, dy, copies=threads()):
        return winograd.weight_gradient(dy, x, padding)
    kh, kw, channels, filters = shape
    height, width = x.shape[1] + 2 * padding, x.shape[2] + 2 * padding
    framed = pad(x, padding, padding, height, width)  # again: kept from the forward pass it would take more memory
    dw = empty(shape, dy.dtype)
    transposed_product(
        framed.reshape(-1), places(*dy.shape[:3], height, width, channels, stride),
        kh, width * channels, kw * channels,
        rows(dy), dw.reshape(-1, filters), threads(),
    )  # fmt: skip
    return dw


def input_gradient(
    dy: Array, w: Array, shape: tuple[int, ...], *, stride: int, padding: int, residual: Array | None = None
) -> Array:
    """Return dx of the given shape, plus ``residual``.

    A pixel of x at padded coordinate a met the kernel rows k with k = a modulo the stride. So the pixels of each of the
    stride * stride phases are a convolution with stride 1 of dy with those rows and columns of the kernel, turned by
    180 degrees, and the roles of its channels exchanged.
    """
    dx = empty(shape, dy.dtype)
    if stride == 1 and winograd.suits(w.shape, dy, dx):
        winograd.convolve(dy, w, 2 - padding, dx, turned=True, residual=residual)
        return dx
    for phase_row in range(stride):
        for phase_column in range(stride):
            row = _Phase(phase_row, w.shape[0], shape[1], stride, padding)
            column = _Phase(phase_column, w.shape[1], shape[2], stride, padding)
            part = (slice(None), slice(row.first, None, stride), slice(column.first, None, stride))
            other = None if residual is None else residual[part]
            if not row.taps.size or not column.taps.size:
                dx[part] = 0 if other is None else other
            elif row.count and column.count:
                result = dx if stride == 1 else empty(dx[part].shape, dy.dtype)
                _phase_gradient(dy, w, row, column, result, other)
                if stride > 1:
                    dx[part] = result
    return dx


class _Phase:
    """Along one axis: the pixels first, first + stride, ... of x, and the kernel positions that met them."""

    def __init__(self, phase: int, kernel: int, length: int, stride: int, padding: int) -> None:
        self.first = (phase - padding) % stride
        self.count = max(0, -(-(length - self.first) // stride))
        self.taps = np.arange(phase, kernel, stride)[::-1]
        # The first pixel's patch of dy begins here; before 0 there are zeros.
        self.begin = (self.first + padding - phase) // stride - (len(self.taps) - 1)


def _phase_gradient(dy: Array, w: Array, row: _Phase, column: _Phase, result: Array, residual: Array | None) -> None:
    kw, channels, filters = w.shape[1:]
    height, width = row.count + len(row.taps) - 1, column.count + len(column.taps) - 1
    padded = pad(dy, -row.begin, -column.begin, height, width)
    product(
        padded.reshape(-1),
        places(len(dy), row.count, column.count, height, width, filters, 1),
        len(row.taps), width * filters, len(column.taps) * filters,
        packed(w).reshape(-1, channels, filters), (row.taps[:, None] * kw + column.taps).reshape(-1), True,
        result.reshape(-1, channels),
        no_vector(dy.dtype), no_vector(dy.dtype),
        no_matrix(dy.dtype) if residual is None else rows(residual),
        False, threads(),
    )  # fmt: skip


@lru_cache(maxsize=256)
def places(n: int, height: int, width: int, padded_height: int, padded_width: int, channels: int, stride: int) -> Array:
    """Return where the patch of each output pixel begins in a flat padded image batch: (n * height * width,) int64."""
    image = (np.arange(height)[:, None] * padded_width + np.arange(width)) * stride
    return ((np.arange(n)[:, None] * padded_height * padded_width + image.reshape(-1)) * channels).reshape(-1)


@lru_cache(maxsize=64)
def in_order(count: int) -> Array:
    """Return 0, 1, ..., count - 1: the kernel's positions as they stand."""
    return np.arange(count)


def pad(x: Array, top: int, left: int, height: int, width: int) -> Array:
    """Return images of height x width that hold x from row ``top`` and column ``left`` on, zeros elsewhere."""
    x = packed(x)
    if (top, left, height, width) == (0, 0, *x.shape[1:3]):
        return x
    padded = empty((len(x), height, width, x.shape[3]), x.dtype)
    copy_images(x, top, left, padded, threads())
    return padded


@kernel
def copy_images(x, top, left, padded, threads):
    """Copy images into larger or smaller frames, zeros around them; top and left may be negative."""
    n, height, width, channels = padded.shape
    first, last = min(max(left, 0), width) * channels, min(max(left + x.shape[2], 0), width) * channels
    last = max(first, last)
    source_start = max(-left, 0) * channels
    for thread in prange(threads):
        for line in range(n * height * thread // threads, n * height * (thread + 1) // threads):
            image, source = line // height, line % height - top
            target = padded[image, line % height].reshape(-1)
            if source < 0 or source >= x.shape[1]:
                target[:] = 0
            else:
                target[:first] = 0
                target[first:last] = x[image, source].reshape(-1)[source_start : source_start + last - first]
                target[last:] = 0
