"""Layer objects: parameters and buffers around the functions of `nnlib.kernels`.

A layer's forward pass returns its output and a context, and the backward pass is given that context back. Nothing is
cached in the layer: it can stand in two places, and inference drops each context at once.
"""

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
        self.buffers["mean"][...] = inputs.mean(axis=axes, dtype=np.float64)
        self.buffers["deviation"][...] = np.where(deviation > 0, deviation, 1)

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> tuple[Array, Context]:
        mean, deviation = self.buffers["mean"], self.buffers["deviation"]
        return (x.astype(mean.dtype, copy=False) - mean) / deviation, None

    def backward(self, dy: Array, context: Context, *, input_grad: bool = True) -> tuple[Array | None, Gradients]:
        return (dy / self.buffers["deviation"] if input_grad else None), {}

    def config(self) -> dict[str, Any]:
        return {"channels": len(self.buffers["mean"])}


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
    """Return the dotted name of ``name`` inside ``prefix``, which may be empty."""
    return f"{prefix}.{name}" if prefix else name
