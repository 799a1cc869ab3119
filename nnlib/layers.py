"""Layer objects: parameters and buffers around the functions of `nnlib.kernels`.

A layer's forward pass returns its output and a context, and the backward pass is given that context back. Nothing is
cached in the layer: it can stand in two places, and inference drops each context at once.
"""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from nnlib import kernels
from nnlib.functional.checks import Array, probability_to_drop

Context = Any
Generator = np.random.Generator
Gradients = dict[str, Array]


class Layer:
    """A differentiable function with parameters (learned) and buffers (not learned, saved all the same)."""

    kinds: ClassVar[dict[str, type["Layer"]]] = {}

    def __init__(self) -> None:
        self.params: dict[str, Array] = {}
        self.buffers: dict[str, Array] = {}

    def __init_subclass__(cls) -> None:
        Layer.kinds[cls.__name__] = cls

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> tuple[Array, Context]:
        """Return ``(y, context)`` for a batch x of shape (N, ...)."""
        raise NotImplementedError

    def backward(
        self, dy: Array, context: Context, *, input_grad: bool = True
    ) -> tuple[Array | None, Gradients]:
        """Return ``(dx, {parameter name: gradient})`` for dy = dL/dy; dx is None without ``input_grad``."""
        raise NotImplementedError

    def infer(self, x: Array) -> Array:
        """Return y in test mode, keeping no context."""
        return self.forward(x)[0]

    def children(self) -> dict[str, "Layer"]:
        """Return the layers inside, by the name that goes before their parameters' names."""
        return {}

    def named_layers(self, name: str = "") -> Iterator[tuple[str, "Layer"]]:
        """Yield ``(dotted name, layer)`` of this layer and all inside."""
        yield name, self
        for key, child in self.children().items():
            yield from child.named_layers(join(name, key))

    def trace(self, x: Array, name: str = "") -> Iterator[tuple[str, "Layer", Array]]:
        """Yield ``(name, layer, output)`` of each innermost layer in test mode; the last output is y."""
        yield name, self, self.infer(x)

    def operations(self, y: Array) -> int:
        """Return the multiply-adds that the output y, of shape (1, ...), took."""
        return 0

    def config(self) -> dict[str, Any]:
        """Return the JSON-able keyword arguments that build a layer of this shape again."""
        return {}

    @classmethod
    def build(cls, config: dict[str, Any]) -> "Layer":
        """Return a layer of the shape that `config` told; its arrays are zeros, to be filled."""
        return cls(**config)


def describe(layer: Layer) -> dict[str, Any]:
    """Return ``{"kind": class name, **config}``, a JSON-able description of a layer and all inside."""
    return {"kind": type(layer).__name__, **layer.config()}


def build(description: dict[str, Any]) -> Layer:
    """Return the layer that `describe` described. Only the kinds defined in the library can be named."""
    config = dict(description)
    kind = config.pop("kind", None)
    if kind not in Layer.kinds:
        raise ValueError(f"layer kind: expected one of {', '.join(sorted(Layer.kinds))}, got {kind!r}")
    return Layer.kinds[kind].build(config)


class Normalize(Layer):
    """Standardise the last axis with the training set's mean and deviation: (x - mean) / deviation.

    Buffers ``mean`` and ``deviation``: (channels,) float32. Takes uint8 or float input, gives the buffers' dtype.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.buffers = {
            "mean": np.zeros(channels, dtype=np.float32),
            "deviation": np.ones(channels, dtype=np.float32),
        }

    def fit(self, inputs: Array) -> None:
        """Set the buffers from inputs (N, ..., channels); a constant channel keeps deviation 1."""
        axes = tuple(range(inputs.ndim - 1))
        deviation = inputs.std(axis=axes, dtype=np.float64)
        varies = inputs.min(axis=axes) < inputs.max(axis=axes)  # rounding can give equal values, too, a deviation
        self.buffers["mean"][...] = inputs.mean(axis=axes, dtype=np.float64)
        self.buffers["deviation"][...] = np.where(varies & (deviation > 0), deviation, 1)

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> tuple[Array, Context]:
        return kernels.normalize(x, self.buffers["mean"], self.buffers["deviation"]), None

    def backward(self, dy: Array, context: Context, *, input_grad: bool = True) -> tuple[Array | None, Gradients]:
        return (dy / self.buffers["deviation"] if input_grad else None), {}

    def config(self) -> dict[str, Any]:
        return {"channels": len(self.buffers["mean"])}


class Standardize(Layer):
    """Give each image (row) by itself mean 0 and deviation 1 over all its values: (x - mean) / sqrt(variance + eps).

    Brightness and contrast, which say nothing about a face, then differ no more; a constant image becomes zeros. Takes
    uint8, which becomes float32, or floats, which keep their precision. Source: Goodfellow, Bengio and Courville 2016,
    eq. 12.3 (global contrast normalization); also Ba et al. 2016, eq. 3 (layer normalization) without gain and bias.
    """

    eps = 1e-5

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> tuple[Array, Context]:
        rows = x.reshape(len(x), math.prod(x.shape[1:]))
        floats = rows.astype(np.float32 if x.dtype.kind in "ui" else x.dtype, copy=False)
        # The mean in float64: that of equal values is then exactly their value.
        mean = rows.mean(axis=1, keepdims=True, dtype=np.float64).astype(floats.dtype)
        y = floats - mean
        variance = np.einsum("nd,nd->n", y, y)[:, None] / y.dtype.type(y.shape[1])
        scale = 1 / np.sqrt(variance + y.dtype.type(self.eps))
        y *= scale
        return y.reshape(x.shape), (y, scale)

    def backward(self, dy: Array, context: Context, *, input_grad: bool = True) -> tuple[Array | None, Gradients]:
        if not input_grad:
            return None, {}
        y, scale = context
        d = dy.reshape(y.shape)
        dx = scale * (d - d.mean(axis=1, keepdims=True) - y * (d * y).mean(axis=1, keepdims=True))
        return dx.reshape(dy.shape), {}


class Linear(Layer):
    """The affine layer y = x w + b on (N, ...) input, flattened; parameters ``weight`` (D, M) and ``bias`` (M,)."""

    def __init__(self, weight: Array) -> None:
        """Take the initial weight (D, M), from `nnlib.initialization`, say; the bias starts at 0."""
        super().__init__()
        self.params = {"weight": weight, "bias": np.zeros(weight.shape[1], dtype=weight.dtype)}

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> tuple[Array, Context]:
        return kernels.linear_forward(x, self.params["weight"], self.params["bias"]), x

    def backward(self, dy: Array, context: Context, *, input_grad: bool = True) -> tuple[Array | None, Gradients]:
        dx, dw, db = kernels.linear_backward(dy, context, self.params["weight"], input_grad=input_grad)
        return dx, {"weight": dw, "bias": db}

    def operations(self, y: Array) -> int:
        return int(self.params["weight"].size * len(y))

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.params["weight"].shape)}

    @classmethod
    def build(cls, config: dict[str, Any]) -> "Linear":
        return cls(np.zeros(config["shape"], dtype=np.float32))


class Conv2d(Layer):
    """The convolution y = x * w + b on NHWC images; parameters ``weight`` (KH, KW, Cin, Cout) and ``bias`` (Cout,)."""

    def __init__(self, weight: Array, *, bias: bool = True, stride: int = 1, padding: int = 0) -> None:
        """Take the initial weight; the bias starts at 0, and without ``bias`` there is none, as before a norm."""
        super().__init__()
        self.params = {"weight": weight}
        if bias:
            self.params["bias"] = np.zeros(weight.shape[-1], dtype=weight.dtype)
        self.stride, self.padding = stride, padding

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> tuple[Array, Context]:
        weight, bias = self.params["weight"], self.params.get("bias")
        return kernels.conv2d_forward(x, weight, bias, stride=self.stride, padding=self.padding), x

    def backward(self, dy: Array, context: Context, *, input_grad: bool = True) -> tuple[Array | None, Gradients]:
        dx, dw, db = kernels.conv2d_backward(
            dy, context, self.params["weight"], stride=self.stride, padding=self.padding, input_grad=input_grad
        )
        return dx, {"weight": dw, "bias": db} if "bias" in self.params else {"weight": dw}

    def operations(self, y: Array) -> int:
        return int(np.prod(self.params["weight"].shape[:-1])) * y.size

    def config(self) -> dict[str, Any]:
        shape = list(self.params["weight"].shape)
        return {"shape": shape, "bias": "bias" in self.params, "stride": self.stride, "padding": self.padding}

    @classmethod
    def build(cls, config: dict[str, Any]) -> "Conv2d":
        options = {key: value for key, value in config.items() if key != "shape"}
        return cls(np.zeros(config["shape"], dtype=np.float32), **options)


class MaxPool2d(Layer):
    """The largest value of each size x size window of NHWC images, ``stride`` apart (None: side by side)."""

    def __init__(self, size: int, *, stride: int | None = None, padding: int = 0) -> None:
        super().__init__()
        self.size, self.stride, self.padding = size, stride, padding

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> tuple[Array, Context]:
        y, argmax = kernels.max_pool2d_forward(x, self.size, stride=self.stride, padding=self.padding)
        return y, (argmax, x.shape)

    def backward(self, dy: Array, context: Context, *, input_grad: bool = True) -> tuple[Array | None, Gradients]:
        if not input_grad:
            return None, {}
        argmax, shape = context
        return kernels.max_pool2d_backward(dy, argmax, shape, self.size, stride=self.stride, padding=self.padding), {}

    def config(self) -> dict[str, Any]:
        return {"size": self.size, "stride": self.stride, "padding": self.padding}


class GlobalAvgPool2d(Layer):
    """The mean over all pixels: (N, H, W, C) to (N, C)."""

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> tuple[Array, Context]:
        return kernels.global_avg_pool2d_forward(x), x.shape

    def backward(self, dy: Array, context: Context, *, input_grad: bool = True) -> tuple[Array | None, Gradients]:
        return (kernels.global_avg_pool2d_backward(dy, context) if input_grad else None), {}


class BatchNorm(Layer):
    """Batch normalisation over all axes but the last; in test mode the running statistics stand for the batch's own.

    Parameters ``weight`` (the scale gamma, 1 at first) and ``bias`` (the shift beta, 0): (channels,). Buffers
    ``running_mean`` and ``running_var``: (channels,), moved a tenth of the way to each training batch's.
    """

    momentum = 0.1
    eps = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.params = {"weight": np.ones(channels, dtype=np.float32), "bias": np.zeros(channels, dtype=np.float32)}
        self.buffers = {
            "running_mean": np.zeros(channels, dtype=np.float32),
            "running_var": np.ones(channels, dtype=np.float32),
        }

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> tuple[Array, Context]:
        gamma, beta = self.params["weight"], self.params["bias"]
        mean, variance = self.buffers["running_mean"], self.buffers["running_var"]
        return kernels.batch_norm_forward(
            x, gamma, beta, mean, variance, train=train, momentum=self.momentum, eps=self.eps
        )

    def backward(self, dy: Array, context: Context, *, input_grad: bool = True) -> tuple[Array | None, Gradients]:
        dx, dgamma, dbeta = kernels.batch_norm_backward(dy, context)
        return (dx if input_grad else None), {"weight": dgamma, "bias": dbeta}

    def config(self) -> dict[str, Any]:
        return {"channels": len(self.params["weight"])}


class ReLU(Layer):
    """The rectifier y = max(0, x)."""

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> tuple[Array, Context]:
        return kernels.relu_forward(x), x

    def backward(self, dy: Array, context: Context, *, input_grad: bool = True) -> tuple[Array | None, Gradients]:
        return (kernels.relu_backward(dy, context) if input_grad else None), {}


class Dropout(Layer):
    """Inverted dropout with probability p to drop; the identity in test mode."""

    def __init__(self, p: float) -> None:
        super().__init__()
        probability_to_drop(p)
        self.p = p

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> tuple[Array, Context]:
        return kernels.dropout_forward(x, self.p, rng, train=train)

    def backward(self, dy: Array, context: Context, *, input_grad: bool = True) -> tuple[Array | None, Gradients]:
        return (kernels.dropout_backward(dy, context, self.p) if input_grad else None), {}

    def config(self) -> dict[str, Any]:
        return {"p": self.p}


def join(prefix: str, name: str) -> str:
    """Return the dotted name of ``name`` inside ``prefix``; either may be empty, and the other then stands alone."""
    return f"{prefix}.{name}" if prefix and name else prefix or name
