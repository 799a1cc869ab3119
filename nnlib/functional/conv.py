"""Convolution: y[n, a, b] = bias + sum over (i, j) of x[n, a s + i - p, b s + j - p] w[i, j]; stride s, padding p.

Each x[...] is a pixel's row of channels, 0 beyond the edge, and each w[i, j] a matrix from channels in to channels out.
As in every library this is a cross-correlation: the kernel is not flipped (Goodfellow et al. 2016, eq. 9.6).

The sum is computed in one of three orders, whichever makes the better matrices. With few channels, the patches of some
images are laid out as the rows of one matrix ("im2col", Chellapilla et al. 2006), times w as (KH KW Cin, Cout); a 1 x 1
kernel's patches are the pixels, which lie so already. Where fewer channels come out than go in, as in the gradient of a
layer that widens, patches are long and results short: then only patches one row high are laid out, times the rows of w
side by side, (KW Cin, KH Cout), and the results of the KH rows that a pixel sees are added up. With many channels,
pixels times w[i, j], for one offset (i, j) after the other, are large enough products: nothing is laid out, and no work
is spent on the padding's zeros.
"""

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from nnlib.functional.checks import Array, conv2d_operands, same_shape
from nnlib.functional.norm import sum_rows
from nnlib.functional.windows import line, offsets

PATCH_BYTES = 4 * 2**20  # of patches laid out at a time, which stay in the processor's cache
LARGE = 128 * 128  # channels in times channels out from which a product per offset is the faster


def conv2d_forward(
    x: Array, w: Array, b: Array | None = None, *, stride: int = 1, padding: int = 0
) -> Array:
    """Return the convolution of images x with kernels w, plus b.

    x: (N, H, W, Cin) floats;  w: (KH, KW, Cin, Cout);  b: (Cout,) or None;  stride >= 1 and padding >= 0 in pixels.
    y: (N, OH, OW, Cout), the dtype of the operands, with OH = floor((H + 2 padding - KH) / stride) + 1, OW likewise.
    Raises ValueError or TypeError when operands do not fit. Source: Goodfellow et al. 2016, sections 9.1 and 9.5.
    """
    out = conv2d_operands(x, w, b, stride, padding)
    y = np.empty((len(x), *out, w.shape[3]), np.result_type(x, w))
    if not _by_offsets(w):
        _convolve(x, w, stride, (padding, padding), y)
        if b is not None:
            y += b
        return y
    y[...] = 0 if b is None else b
    for i, j, pixels, outputs in offsets(w.shape[:2], stride, padding, x.shape[1:3], out):
        seen = x[pixels]
        y[outputs] += (_rows(seen) @ w[i, j]).reshape(*seen.shape[:3], w.shape[3])
    return y


def conv2d_backward(
    dy: Array, x: Array, w: Array, *, stride: int = 1, padding: int = 0, input_grad: bool = True
) -> tuple[Array | None, Array, Array]:
    """Return ``(dx, dw, db)``, the gradients of a scalar loss L with dy = dL/dy.

    dy: (N, OH, OW, Cout);  x: (N, H, W, Cin);  w: (KH, KW, Cin, Cout);  stride and padding: as in the forward pass.
    dx, in the shape of x, or None without ``input_grad``: dx[n, a s + i - p, b s + j - p] sums dy[n, a, b] w[i, j]^T;
    dw[i, j] = sum over (n, a, b) of x[n, a s + i - p, b s + j - p]^T dy[n, a, b], in the shape of w;
    db = sum of dy over batch and pixels: (Cout,).
    Raises ValueError or TypeError when operands do not fit. Source: Goodfellow et al. 2016, eqs. 9.11 to 9.13.
    """
    out = conv2d_operands(x, w, None, stride, padding)
    same_shape("conv2d: dy", dy, (len(x), *out, w.shape[3]))
    dx = _input_gradient(dy, x.shape, w, stride, padding) if input_grad else None
    return dx, _weight_gradient(dy, x, w, stride, padding), sum_rows(_rows(dy))


def _weight_gradient(dy: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    if _by_offsets(w):
        dw = np.zeros(w.shape, dy.dtype)
        for i, j, pixels, outputs in offsets(w.shape[:2], stride, padding, x.shape[1:3], dy.shape[1:3]):
            dw[i, j] = _rows(x[pixels]).T @ _rows(dy[outputs])
        return dw
    dw = np.zeros((w[..., 0].size, w.shape[3]), dy.dtype)
    for images, patches in _patches(x, w.shape[:2], stride, (padding, padding)):
        dw += patches.T @ _rows(dy[images])
    return dw.reshape(w.shape)


def _input_gradient(dy: Array, shape: tuple[int, ...], w: Array, stride: int, padding: int) -> Array:
    reach = (w.shape[0] - 1 - padding, w.shape[1] - 1 - padding)
    if stride == 1 and min(reach) >= 0 and not _by_offsets(w):
        # Pixel h reaches output a with the weight i = h + p - a, so dx is dy's convolution with the flipped kernel.
        dx = np.empty(shape, dy.dtype)
        _convolve(dy, w[::-1, ::-1].swapaxes(2, 3), 1, reach, dx)
        return dx
    dx = np.zeros(shape, dy.dtype)
    for i, j, pixels, outputs in offsets(w.shape[:2], stride, padding, shape[1:3], dy.shape[1:3]):
        dx[pixels] += (_rows(dy[outputs]) @ w[i, j].T).reshape(dx[pixels].shape)
    return dx


def _by_offsets(w: Array) -> bool:
    """Return whether to multiply offset by offset, rather than whole patches."""
    return w.shape[:2] != (1, 1) and w.shape[2] * w.shape[3] >= LARGE


def _by_rows(w: Array) -> bool:
    """Return whether patches one row high, and their products, take half the memory of whole patches at most."""
    kh, kw, channels, filters = w.shape
    return 2 * (kw * channels + kh * filters) <= kh * kw * channels


def _convolve(x: Array, w: Array, stride: int, padding: tuple[int, int], y: Array) -> None:
    """Write the convolution of x with w into y, by patches or by their rows."""
    if stride == 1 and _by_rows(w):
        _add_rows(x, w, padding, y)
        return
    matrix = w.reshape(-1, w.shape[3])
    for images, patches in _patches(x, w.shape[:2], stride, padding):
        np.matmul(patches, matrix, out=_rows(y[images]))


def _add_rows(x: Array, w: Array, padding: tuple[int, int], y: Array) -> None:
    """Write the convolution of x with w, of stride 1, into y: row a of y adds up row a + i - p of x under w[i]."""
    kh, kw, channels, filters = w.shape
    matrix = w.transpose(1, 2, 0, 3).reshape(kw * channels, kh * filters)
    seen = [line(i, 1, padding[0], x.shape[1], y.shape[1]) for i in range(kh)]
    y[...] = 0
    for images, patches in _patches(x, (1, kw), 1, (0, padding[1])):
        products = (patches @ matrix).reshape(-1, x.shape[1], y.shape[2], kh, filters)
        for i, rows in enumerate(seen):
            if rows:
                y[images, rows[1]] += products[:, rows[0], :, i]


def _patches(
    x: Array, size: tuple[int, ...], stride: int, padding: tuple[int, int]
) -> Iterator[tuple[slice, Array]]:
    """Yield ``(images, patches)``: some images after the others, and their patches as a matrix (pixels, KH KW C)."""
    (kh, kw), c = size, x.shape[3]
    if size == (1, 1) and not any(padding):
        yield slice(None), _rows(x[:, ::stride, ::stride])
        return
    if any(padding):
        x = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    windows = sliding_window_view(x, size, axis=(1, 2))[:, ::stride, ::stride]  # (N, OH, OW, C, KH, KW), not copied
    step = max(1, PATCH_BYTES // max(1, windows[:1].nbytes))
    for first in range(0, len(x), step):
        images = slice(first, first + step)
        if c <= 4:  # runs of neighbours in memory are longer along an image's rows than along a patch's
            yield images, windows[images].transpose(4, 5, 3, 0, 1, 2).reshape(kh * kw * c, -1).T
        else:
            yield images, windows[images].transpose(0, 1, 2, 4, 5, 3).reshape(-1, kh * kw * c)


def _rows(images: Array) -> Array:
    """Return (N, H, W, C) as a matrix (N H W, C)."""
    return images.reshape(-1, images.shape[-1])
