"""Layers put together: `Sequential`, `Residual`, and `Network`, which names, packs, trains and saves them."""

import copy
import json
from collections.abc import Iterator, Mapping
from os import PathLike
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from nnlib import checkpoint, kernels
from nnlib.functional.checks import Array
from nnlib.layers import Context, Generator, Gradients, Layer, Normalize, build, describe, join

EVALUATION_BATCH = 500  # images at a time in test mode: large enough for BLAS, small enough for memory


class Sequential(Layer):
    """Layers one after the other, each under a name of its own: ``Sequential({"fc": ..., "relu": ...})``."""

    def __init__(self, layers: dict[str, Layer]) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> tuple[Array, Context]:
        contexts = []
        for layer in self.layers.values():
            x, context = layer.forward(x, train=train, rng=rng)
            contexts.append(context)
        return x, contexts

    def backward(self, dy: Array, context: Context, *, input_grad: bool = True) -> tuple[Array | None, Gradients]:
        names = list(self.layers)
        # Unless the caller wants dx, the pass ends at the first layer that learns: below it no gradient is needed.
        lowest = 0 if input_grad else next((i for i, n in enumerate(names) if learns(self.layers[n])), len(names))
        gradients: Gradients = {}
        dx: Array | None = dy
        for i in range(len(names) - 1, lowest - 1, -1):
            assert dx is not None
            dx, inner = self.layers[names[i]].backward(dx, context[i], input_grad=input_grad or i > lowest)
            gradients |= {join(names[i], key): gradient for key, gradient in inner.items()}
        return (dx if input_grad else None), gradients

    def infer(self, x: Array) -> Array:
        for layer in self.layers.values():
            x = layer.infer(x)
        return x

    def children(self) -> dict[str, Layer]:
        return self.layers

    def trace(self, x: Array, name: str = "") -> Iterator[tuple[str, Layer, Array]]:
        for key, layer in self.layers.items():
            for row in layer.trace(x, join(name, key)):
                yield row
            x = row[-1]

    def config(self) -> dict[str, Any]:
        return {"layers": {name: describe(layer) for name, layer in self.layers.items()}}

    @classmethod
    def build(cls, config: dict[str, Any]) -> "Sequential":
        return cls({name: build(description) for name, description in config["layers"].items()})


class Residual(Layer):
    """y = body(x) + shortcut(x), the shortcut the identity or ``downsample``.

    The body's layers stand under their own names, as in torchvision, beside ``downsample``. Source: He et al. 2015
    (Deep residual learning), eq. 1 and 2.
    """

    def __init__(self, body: Sequential, downsample: Layer | None = None) -> None:
        super().__init__()
        self.body, self.downsample = body, downsample

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> tuple[Array, Context]:
        y, body = self.body.forward(x, train=train, rng=rng)
        if self.downsample is None:
            return add(y, x), (body, None)
        shortcut, down = self.downsample.forward(x, train=train, rng=rng)
        return add(y, shortcut), (body, down)

    def backward(self, dy: Array, context: Context, *, input_grad: bool = True) -> tuple[Array | None, Gradients]:
        body, down = context
        dx, gradients = self.body.backward(dy, body, input_grad=input_grad)
        shortcut: Array | None = dy
        if self.downsample is not None:
            shortcut, inner = self.downsample.backward(dy, down, input_grad=input_grad)
            gradients |= {join("downsample", key): gradient for key, gradient in inner.items()}
        return (None if dx is None or shortcut is None else dx + shortcut), gradients

    def infer(self, x: Array) -> Array:
        return add(self.body.infer(x), x if self.downsample is None else self.downsample.infer(x))

    def children(self) -> dict[str, Layer]:
        return self.body.layers | ({} if self.downsample is None else {"downsample": self.downsample})

    def trace(self, x: Array, name: str = "") -> Iterator[tuple[str, Layer, Array]]:
        *rows, (last, layer, y) = self.body.trace(x, name)
        yield from [*rows, (last, layer, y)]
        shortcut = x
        if self.downsample is not None:
            for row in self.downsample.trace(x, join(name, "downsample")):
                yield row
            shortcut = row[-1]
        yield name, self, add(y, shortcut)

    def config(self) -> dict[str, Any]:
        return {
            "body": self.body.config(),
            "downsample": None if self.downsample is None else describe(self.downsample),
        }

    @classmethod
    def build(cls, config: dict[str, Any]) -> "Residual":
        down = config["downsample"]
        return cls(Sequential.build(config["body"]), None if down is None else build(down))


class Pass(NamedTuple):
    """What one forward and backward pass gives."""

    data_loss: float  # mean cross-entropy of the batch, nats
    penalty: float  # 0.5 * l2 * sum of squared weights
    logits: Array  # (N, classes)
    gradients: Gradients  # of data_loss + penalty, by parameter name


class Network:
    """A stack of layers on inputs of one shape that ends in logits.

    All parameters lie in one flat vector; ``parameters`` are its named views. To change one, write into its view.
    """

    def __init__(self, layers: Sequential, input_shape: tuple[int, ...]) -> None:
        self.layers = layers
        self.input_shape = tuple(input_shape)
        self.metadata: dict[str, str] = {}
        self._pack()

    def _pack(self) -> None:
        """Move every parameter into one vector. A layer that stands in two places keeps its first name."""
        owners: dict[int, str] = {}
        self._aliases: dict[str, str] = {}
        arrays: dict[str, tuple[Layer, str]] = {}
        buffers: dict[str, Array] = {}
        for name, layer in self.layers.named_layers():
            first = owners.setdefault(id(layer), name)
            if first != name:
                self._aliases |= {join(name, key): join(first, key) for key in layer.params}
                continue
            arrays |= {join(name, key): (layer, key) for key in layer.params}
            buffers |= {join(name, key): buffer for key, buffer in layer.buffers.items()}
        self.vector = np.concatenate([layer.params[key].ravel() for layer, key in arrays.values()])
        views: dict[str, Array] = {}
        start = 0
        for name, (layer, key) in arrays.items():
            old = layer.params[key]
            views[name] = layer.params[key] = self.vector[start : start + old.size].reshape(old.shape)
            start += old.size
        self.parameters: Mapping[str, Array] = MappingProxyType(views)
        self.buffers: Mapping[str, Array] = MappingProxyType(buffers)

    # ---- computing -------------------------------------------------------------------------------------------------

    def fit_normalization(self, inputs: Array) -> None:
        """Set the `Normalize` layer's mean and deviation from training inputs (N, *input_shape)."""
        self._check(inputs)
        for _, layer in self.layers.named_layers():
            if isinstance(layer, Normalize):
                layer.fit(inputs)

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> Array:
        """Return the logits (N, classes) of inputs x (N, *input_shape); dropout draws from ``rng`` in training."""
        self._check(x)
        return self.layers.forward(x, train=True, rng=rng)[0] if train else self.layers.infer(x)

    def backpropagate(
        self,
        x: Array,
        labels: Array,
        *,
        train: bool = True,
        l2: float = 0.0,
        label_smoothing: float = 0.0,
        rng: Generator | None = None,
    ) -> Pass:
        """Return the loss in its parts, the logits and every gradient, for x (N, *input_shape) and labels (N,)."""
        self._check(x)
        logits, context = self.layers.forward(x, train=train, rng=rng)
        data_loss, dlogits = kernels.softmax_cross_entropy(logits, labels, label_smoothing=label_smoothing)
        _, gradients = self.layers.backward(dlogits, context, input_grad=False)
        for name, first in self._aliases.items():
            gradients[first] += gradients.pop(name)
        if l2:
            for name in self.weights():
                gradients[name] += self.vector.dtype.type(l2) * self.parameters[name]
        return Pass(data_loss, self.penalty(l2), logits, gradients)

    def loss(
        self,
        x: Array,
        labels: Array,
        *,
        train: bool = True,
        l2: float = 0.0,
        label_smoothing: float = 0.0,
        rng: Generator | None = None,
    ) -> tuple[float, Gradients]:
        """Return ``(loss, gradients)``: mean cross-entropy plus the L2 penalty, and its gradients by parameter name."""
        result = self.backpropagate(x, labels, train=train, l2=l2, label_smoothing=label_smoothing, rng=rng)
        return result.data_loss + result.penalty, result.gradients

    def weights(self) -> list[str]:
        """Return the names of the parameters that L2 acts on: weights, neither biases nor a norm's scale."""
        return [name for name, array in self.parameters.items() if array.ndim > 1]

    def penalty(self, l2: float) -> float:
        """Return ``0.5 * l2 * sum(w ** 2)`` over the weights."""
        if not l2:
            return 0.0
        return 0.5 * l2 * sum(float(np.vdot(w, w)) for w in map(self.parameters.__getitem__, self.weights()))

    def predict_proba(self, x: Array) -> Array:
        """Return the class probabilities (N, classes) of x (N, *input_shape), computed a few hundred rows at a time."""
        self._check(x)
        parts = range(0, max(len(x), 1), EVALUATION_BATCH)
        return np.concatenate([kernels.softmax(self.layers.infer(x[i : i + EVALUATION_BATCH])) for i in parts])

    def predict(self, x: Array) -> Array:
        """Return the most probable class (N,) of each row, int64."""
        return self.predict_proba(x).argmax(axis=1)

    def activations(self, x: Array) -> dict[str, Array]:
        """Return every innermost layer's output in test mode, by layer name."""
        self._check(x)
        return {name: y for name, _, y in self.layers.trace(x)}

    def astype(self, dtype: Any) -> "Network":
        """Return a copy whose parameters and buffers have ``dtype``: float64 for gradient checks."""
        layers = copy.deepcopy(self.layers)
        for _, layer in layers.named_layers():
            layer.params = {name: array.astype(dtype) for name, array in layer.params.items()}
            layer.buffers = {name: array.astype(dtype) for name, array in layer.buffers.items()}
        return Network(layers, self.input_shape)

    def _check(self, x: Array) -> None:
        if x.dtype.kind not in "uif":
            raise TypeError(f"network: expected numbers (uint8 images or floats), got {x.dtype}")
        if x.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, ("N", *self.input_shape)))
            raise ValueError(f"network: x has shape {x.shape}, expected ({expected}); images are NHWC")

    # ---- showing and saving ----------------------------------------------------------------------------------------

    def summary(self) -> str:
        """Return a table: layer, output shape, parameters, operations (multiply-adds for one input)."""
        rows = [("layer", "output shape", "parameters", "operations")]
        total = operations = 0
        for name, layer, y in self.layers.trace(np.zeros((1, *self.input_shape), dtype=self.vector.dtype)):
            parameters = sum(array.size for array in layer.params.values())
            total, operations = total + parameters, operations + layer.operations(y)
            title = f"{name} ({type(layer).__name__})"
            rows.append((title, str(y.shape[1:]), f"{parameters:,}", f"{layer.operations(y):,}"))
        rows.append(("total", "", f"{total:,}", f"{operations:,}"))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return "\n".join(
            f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in rows
        )

    def save(
        self, path: str | PathLike[str], *, dtype: Any = None, metadata: dict[str, str] | None = None
    ) -> None:
        """Write the network to a safetensors file, atomically: parameters (as ``dtype``, say float16), buffers, layout.

        ``metadata``: further strings, kept as ``network.metadata`` after `load`. Raises OSError, the old file intact.
        """
        arrays = {name: array.astype(dtype or array.dtype) for name, array in self.parameters.items()}
        layout = {"layers": describe(self.layers), "input_shape": self.input_shape}
        texts = {**(metadata or {}), "nnlib_network": json.dumps(layout)}
        checkpoint.write(path, {**arrays, **self.buffers}, texts)


def load(path: str | PathLike[str]) -> Network:
    """Return the network that `Network.save` wrote, its parameters in float32; nothing in the file is executed.

    Raises FileNotFoundError, and ValueError for a file that is no saved network or whose tensors do not fit its layout.
    """
    tensors, metadata = checkpoint.read(path)
    try:
        layout = json.loads(metadata.pop("nnlib_network"))
        layers = build(layout["layers"])
        if not isinstance(layers, Sequential):
            raise ValueError("the outermost layer is not a Sequential")
        network = Network(layers, tuple(layout["input_shape"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a network saved by nnlib, got something else ({error})") from error
    checkpoint.fill({**network.parameters, **network.buffers}, tensors, str(path))
    network.metadata = metadata
    return network


def learns(layer: Layer) -> bool:
    """Tell whether a layer, or any inside it, has parameters."""
    return any(inner.params for _, inner in layer.named_layers())


def add(y: Array, shortcut: Array) -> Array:
    """Return the sum of a residual block's two branches; ValueError where their shapes differ."""
    if y.shape != shortcut.shape:
        raise ValueError(
            f"residual: the body gives {y.shape[1:]}, the shortcut {shortcut.shape[1:]}; "
            "give downsample, a layer that brings the shortcut to the body's shape"
        )
    return y + shortcut
