"""What the functions of this package demand of their operands, each violation one clear line."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def same_shape(what: str, array: Array, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``array`` has ``shape``."""
    if array.shape != shape:
        raise ValueError(f"{what} has shape {array.shape}, expected {shape}")


def probability_to_drop(p: float) -> None:
    """Raise ValueError unless 0 <= p < 1."""
    if not 0.0 <= p < 1.0:
        raise ValueError(f"dropout: p is the probability to drop and lies in [0, 1), got {p}")


def class_labels(labels: Array, samples: int, classes: int) -> None:
    """Raise TypeError or ValueError unless ``labels`` are ``samples`` integers in [0, classes)."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"labels: expected integers, one class index a sample, got {labels.dtype}")
    same_shape("labels", labels, (samples,))
    if samples and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(
            f"labels: expected 0 to {classes - 1} for {classes} classes, got {labels.min()} to {labels.max()}"
        )


def conv2d_operands(x: Array, w: Array, b: Array | None, stride: int, padding: int) -> tuple[int, int]:
    """Return the height and width of a convolution's output; raise ValueError or TypeError where there is none."""
    if w.ndim != 4 or 0 in w.shape[:2]:
        raise ValueError(f"conv2d: w has shape {w.shape}, expected (kernel height, kernel width, in, out)")
    if x.ndim != 4:
        raise ValueError(f"conv2d: x has shape {x.shape}, expected images (N, H, W, C)")
    if x.shape[3] != w.shape[2]:
        message = f"conv2d: x has {x.shape[3]} channels, w expects {w.shape[2]}"
        if x.shape[1] == w.shape[2]:
            message += f"; {x.shape} looks like NCHW; images are NHWC: x.transpose(0, 2, 3, 1)"
        raise ValueError(message)
    if b is not None and b.shape != w.shape[3:]:
        raise ValueError(f"conv2d: b has shape {b.shape}, w of shape {w.shape} expects {w.shape[3:]}")
    return _output_size("conv2d", x.shape[1:3], w.shape[:2], stride, padding)


def pool_operands(x: Array, size: int, stride: int, padding: int) -> tuple[int, int]:
    """Return the height and width of a pooling's output; raise ValueError or TypeError where there is none."""
    return pooled_size(x.shape, size, stride, padding)


def pooled_size(x_shape: tuple[int, ...], size: int, stride: int, padding: int) -> tuple[int, int]:
    """Return what `pool_operands` does, for an x of which the shape is known."""
    if len(x_shape) != 4:
        raise ValueError(f"max_pool2d: x has shape {tuple(x_shape)}, expected images (N, H, W, C)")
    _integer("max_pool2d: size", size, 1)
    out = _output_size("max_pool2d", x_shape[1:3], (size, size), stride, padding)
    if padding > size // 2:
        raise ValueError(f"max_pool2d: padding is at most half the size, {size // 2}, got {padding}")
    return out


def norm_operands(
    x: Array, gamma: Array, beta: Array, running_mean: Array, running_var: Array, train: bool
) -> None:
    """Raise ValueError unless the arrays fit a batch normalisation of x over all axes but the last."""
    if x.ndim < 2:
        raise ValueError(f"batch_norm: x has shape {x.shape}, expected (N, C) or (N, H, W, C)")
    per_channel("batch_norm", x, gamma=gamma, beta=beta, running_mean=running_mean, running_var=running_var)
    values = math.prod(x.shape[:-1])
    if train and values < 2:
        raise ValueError(f"batch_norm: training needs two values a channel at least, x of shape {x.shape} has {values}")


def per_channel(what: str, x: Array, **vectors: Array) -> None:
    """Raise ValueError unless each of the vectors has a number for each channel of x, its last axis."""
    for name, vector in vectors.items():
        same_shape(f"{what}: {name}", vector, x.shape[-1:])


def _integer(what: str, value: int, least: int) -> None:
    """Raise TypeError unless ``value`` is an integer, ValueError unless it is ``least`` or more."""
    if not isinstance(value, (int, np.integer)):
        raise TypeError(f"{what} is an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{what} is {least} or more, got {value}")


def _output_size(
    what: str, image: tuple[int, ...], window: tuple[int, ...], stride: int, padding: int
) -> tuple[int, int]:
    """Return how many windows fit down and across, ``stride`` apart, in an image with ``padding`` on every side."""
    _integer(f"{what}: stride", stride, 1)
    _integer(f"{what}: padding", padding, 0)
    padded = image[0] + 2 * padding, image[1] + 2 * padding
    if window[0] > padded[0] or window[1] > padded[1]:
        raise ValueError(
            f"{what}: a window of {window[0]}x{window[1]} does not fit the padded image of {padded[0]}x{padded[1]}"
        )
    return (padded[0] - window[0]) // stride + 1, (padded[1] - window[1]) // stride + 1


def same_branches(y_shape: tuple[int, ...], shortcut_shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the two branches of a residual block have one shape."""
    if y_shape != shortcut_shape:
        raise ValueError(
            f"residual: the body gives {y_shape[1:]}, the shortcut {shortcut_shape[1:]}; "
            "give downsample, a layer that brings the shortcut to the body's shape"
        )
