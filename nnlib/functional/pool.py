"""Pooling: the largest value of each window, and the mean of a whole image; channel by channel."""

import numpy as np

from nnlib.functional.checks import Array, pool_operands, pooled_size, same_shape
from nnlib.functional.windows import offsets


def max_pool2d_forward(
    x: Array, size: int, *, stride: int | None = None, padding: int = 0
) -> tuple[Array, Array]:
    """Return ``(y, argmax)``: the largest value in each window of size x size pixels, and where it stands.

    x: (N, H, W, C) floats;  stride: pixels from window to window, None for ``size``;  padding <= size / 2: pixels of
    -inf around the image, so that they are never the largest.
    y: (N, OH, OW, C), the dtype of x, with OH = floor((H + 2 padding - size) / stride) + 1, OW likewise;
    argmax: the shape of y, row * size + column in the window, the first of equals, in the smallest unsigned integers
    that hold it. Raises ValueError or TypeError when operands do not fit. Source: Goodfellow et al. 2016, section 9.3.
    """
    stride = size if stride is None else stride
    out = pool_operands(x, size, stride, padding)
    y = np.full((len(x), *out, x.shape[3]), -np.inf, x.dtype)
    argmax = np.zeros(y.shape, np.min_scalar_type(size * size - 1))
    # From the last offset to the first, a value replaces the largest so far unless smaller: of equals the first stays.
    for i, j, pixels, outputs in reversed(list(offsets((size, size), stride, padding, x.shape[1:3], out))):
        value, largest, place = x[pixels], y[outputs], argmax[outputs]
        smaller = value < largest
        place *= smaller  # arithmetic with 0 and 1 is several times as fast as a selection
        place += ~smaller * place.dtype.type(i * size + j)
        np.maximum(value, largest, out=largest)
    return y, argmax


def max_pool2d_backward(
    dy: Array,
    argmax: Array,
    x_shape: tuple[int, ...],
    size: int,
    *,
    stride: int | None = None,
    padding: int = 0,
) -> Array:
    """Return ``dx``: each dy is added at the pixel that was its window's largest, all others get 0.

    dy, argmax: (N, OH, OW, C);  x_shape: (N, H, W, C), the shape of dx;  size, stride, padding: as in the forward pass.
    Raises ValueError or TypeError when operands do not fit.
    """
    stride = size if stride is None else stride
    out = pooled_size(x_shape, size, stride, padding)
    same_shape("max_pool2d: dy", dy, (x_shape[0], *out, x_shape[3]))
    same_shape("max_pool2d: argmax", argmax, dy.shape)
    dx = np.zeros(x_shape, dy.dtype)
    for i, j, pixels, outputs in offsets((size, size), stride, padding, x_shape[1:3], out):
        chosen = argmax[outputs] == i * size + j
        if stride < size:  # windows overlap: a pixel may be the largest of several
            dx[pixels] += dy[outputs] * chosen
        else:
            np.multiply(dy[outputs], chosen, out=dx[pixels])
    return dx


def global_avg_pool2d_forward(x: Array) -> Array:
    """Return the mean of each channel over all pixels: (N, H, W, C) to (N, C), in the dtype of x.

    Raises ValueError when x is no batch of images. Source: Lin et al. 2014, section 3.2.
    """
    if x.ndim != 4 or 0 in x.shape[1:3]:
        raise ValueError(f"global_avg_pool2d: x has shape {x.shape}, expected (N, H, W, C) with a pixel at least")
    return x.mean(axis=(1, 2))


def global_avg_pool2d_backward(dy: Array, x_shape: tuple[int, ...]) -> Array:
    """Return ``dx``: dy / (H W) at every pixel; dy (N, C), dx in ``x_shape`` (N, H, W, C).

    Raises ValueError when the shapes do not fit.
    """
    n, h, w, c = x_shape
    same_shape("global_avg_pool2d: dy", dy, (n, c))
    return np.broadcast_to((dy / (h * w))[:, None, None, :], x_shape).copy()
