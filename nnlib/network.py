"""Layers put together: `Sequential`, `Residual`, and `Network`, which names, packs, trains and saves them."""

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from nnlib import checkpoint, kernels, memory
from nnlib.functional.checks import Array, same_branches
from nnlib.layers import (
    Context,
    Conv2d,
    Generator,
    GlobalAvgPool2d,
    Gradients,
    Layer,
    MaxPool2d,
    Normalize,
    build,
    describe,
    join,
)

# Inputs at a time in test mode: a matrix is read once for all of them; what convolutions make of them should stay in
# the last cache.
EVALUATION_BATCH, EVALUATION_IMAGES = 500, 64


class Sequential(Layer):
    """Layers one after the other, each under a name of its own: ``Sequential({"fc": ..., "relu": ...})``."""

    def __init__(self, layers: dict[str, Layer]) -> None:
        super().__init__()
        self.layers = layers
        self.stages = stages(layers)

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> tuple[Array, Context]:
        contexts = []
        for _, stage in self.stages:
            x, context = stage.forward(x, train=train, rng=rng)
            contexts.append(context)
        return x, contexts

    def backward(self, dy: Array, context: Context, *, input_grad: bool = True) -> tuple[Array | None, Gradients]:
        # Unless the caller wants dx, the pass ends at the first stage that learns: below it no gradient is needed.
        places = range(len(self.stages))
        lowest = 0 if input_grad else next((i for i in places if learns(self.stages[i][1])), len(self.stages))
        gradients: Gradients = {}
        dx: Array | None = dy
        for i in reversed(places[lowest:]):
            assert dx is not None
            name, stage = self.stages[i]
            dx, inner, *_ = stage.backward(dx, context[i], input_grad=input_grad or i > lowest)
            gradients |= {join(name, key): gradient for key, gradient in inner.items()}
        return (dx if input_grad else None), gradients

    def infer(self, x: Array) -> Array:
        return infer(self.stages, x)

    def children(self) -> dict[str, Layer]:
        return self.layers

    def trace(self, x: Array, name: str = "") -> Iterator[tuple[str, Layer, Array]]:
        for key, layer in self.layers.items():
            for row in layer.trace(x, join(name, key)):
                yield row
            x = row[-1]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.layers,)  # the stages are found anew: the machine that reads may compile nothing

    def config(self) -> dict[str, Any]:
        return {"layers": {name: describe(layer) for name, layer in self.layers.items()}}

    @classmethod
    def build(cls, config: dict[str, Any]) -> "Sequential":
        return cls({name: build(description) for name, description in config["layers"].items()})


class Residual(Layer):
    """y = body(x) + shortcut(x), the shortcut the identity or ``downsample``; with ``relu``, y = max(0, that sum).

    The body's layers stand under their own names, as in torchvision, beside ``downsample``. Source: He et al. 2015
    (Deep residual learning), eq. 1 and 2, where the rectifier follows the addition.
    """

    def __init__(self, body: Sequential, downsample: Layer | None = None, *, relu: bool = False) -> None:
        super().__init__()
        self.body, self.downsample, self.relu = body, downsample, relu

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> tuple[Array, Context]:
        shortcut, down = x, None
        if self.downsample is not None:
            shortcut, down = self.downsample.forward(x, train=train, rng=rng)
        *front, (_, last) = self.body.stages
        contexts = []
        for _, stage in front:
            x, context = stage.forward(x, train=train, rng=rng)
            contexts.append(context)
        if isinstance(last, Layer):
            y, context = last.forward(x, train=train, rng=rng)
            y = self._end(y, shortcut)
        else:
            y, context = last.forward(x, train=train, rng=rng, shortcut=shortcut, relu=self.relu)
        # The rectifier's slope is 1 where its output is positive, so the block's own output serves as its context.
        return y, ([*contexts, context], down, y if self.relu else None)

    def backward(self, dy: Array, context: Context, *, input_grad: bool = True) -> tuple[Array | None, Gradients]:
        contexts, down, y = context
        *rest, (name, last) = self.body.stages
        wanted = input_grad or bool(rest)
        if isinstance(last, Layer):
            g = kernels.relu_backward(dy, y) if self.relu else dy
            dx, inner = last.backward(g, contexts[-1], input_grad=wanted)
        else:
            dx, inner, g = last.backward(dy, contexts[-1], input_grad=wanted)
        gradients = {join(name, key): gradient for key, gradient in inner.items()}
        shortcut: Array | None = g
        if self.downsample is not None:
            shortcut, inner = self.downsample.backward(g, down, input_grad=input_grad)
            gradients |= {join("downsample", key): gradient for key, gradient in inner.items()}
        for i, (name, stage) in reversed(list(enumerate(rest))):
            if i == 0 and input_grad and not isinstance(stage, Layer):
                dx, inner, _ = stage.backward(dx, contexts[i], add=shortcut)
                shortcut = None  # it is in dx
            else:
                dx, inner, *_ = stage.backward(dx, contexts[i], input_grad=input_grad or i > 0)
            gradients |= {join(name, key): gradient for key, gradient in inner.items()}
        return (dx if dx is None or shortcut is None else dx + shortcut), gradients

    def infer(self, x: Array) -> Array:
        shortcut = x if self.downsample is None else self.downsample.infer(x)
        *front, (_, last) = self.body.stages
        for _, stage in front:
            x = stage.infer(x)
        if isinstance(last, Layer):
            return self._end(last.infer(x), shortcut)
        return last.infer(x, shortcut=shortcut, relu=self.relu)

    def _end(self, y: Array, shortcut: Array) -> Array:
        return kernels.relu_forward(add(y, shortcut)) if self.relu else add(y, shortcut)

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
        yield name, self, self._end(y, shortcut)

    def config(self) -> dict[str, Any]:
        return {
            "body": self.body.config(),
            "downsample": None if self.downsample is None else describe(self.downsample),
            "relu": self.relu,
        }

    @classmethod
    def build(cls, config: dict[str, Any]) -> "Residual":
        down = config["downsample"]
        return cls(Sequential.build(config["body"]), None if down is None else build(down), relu=config["relu"])


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
        memory.keep_freed_memory()
        self.layers = layers
        self.input_shape = tuple(input_shape)
        self.metadata: dict[str, str] = {}
        # The stages up to the last one that looks at images, and those behind it.
        images = [i for i, (_, stage) in enumerate(layers.stages) if holds(stage, Conv2d, MaxPool2d, GlobalAvgPool2d)]
        middle = images[-1] + 1 if images else 0
        self._stages = layers.stages[:middle], layers.stages[middle:]
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
        unpacked = [layer.params[key].ravel() for layer, key in arrays.values()]
        size, dtype = sum(array.size for array in unpacked), np.result_type(*unpacked)
        self.vector = np.concatenate(unpacked, out=memory.empty((size,), dtype))
        views: dict[str, Array] = {}
        start = 0
        for name, (layer, key) in arrays.items():
            old = layer.params[key]
            views[name] = layer.params[key] = self.vector[start : start + old.size].reshape(old.shape)
            start += old.size
        self.parameters: Mapping[str, Array] = MappingProxyType(views)
        self.buffers: Mapping[str, Array] = MappingProxyType(buffers)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the layers and pack them anew: views, stored one by one, would no longer share a vector."""
        return Network, (self.layers, self.input_shape), {"metadata": self.metadata}

    # ---- computing -------------------------------------------------------------------------------------------------

    def fit_normalization(self, inputs: Array) -> None:
        """Set the `Normalize` layer's mean and deviation from training inputs (N, *input_shape)."""
        self._checked(inputs)
        for _, layer in self.layers.named_layers():
            if isinstance(layer, Normalize):
                layer.fit(inputs)

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> Array:
        """Return the logits (N, classes) of inputs x (N, *input_shape); dropout draws from ``rng`` in training."""
        x = self._checked(x)
        return self.layers.forward(x, train=True, rng=rng)[0] if train else self._infer(x)

    def _infer(self, x: Array) -> Array:
        """Return the logits in test mode, computed for some of the inputs at a time."""
        front, back = self._stages

        def infer_batch(some: Array) -> Array:
            features = in_parts(lambda few: infer(front, few), some, EVALUATION_IMAGES) if front else some
            return infer(back, features)

        return in_parts(infer_batch, x, EVALUATION_BATCH)

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
        x = self._checked(x)
        logits, context = self.layers.forward(x, train=train, rng=rng)
        data_loss, dlogits = kernels.softmax_cross_entropy(logits, labels, label_smoothing=label_smoothing)
        _, gradients = self.layers.backward(dlogits, context, input_grad=False)
        for name, first in self._aliases.items():
            gradients[first] += gradients.pop(name)
        if l2:
            for name in self.weights():
                kernels.add_decay(gradients[name], self.parameters[name], l2)
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
        return 0.5 * l2 * sum(kernels.sum_of_squares(self.parameters[name]) for name in self.weights())

    def predict_proba(self, x: Array, *, mirrored: bool = False) -> Array:
        """Return the class probabilities (N, classes) of x (N, *input_shape).

        ``mirrored``: the mean of each image's probabilities and those of its left-right mirror image (the horizontal
        reflections of Krizhevsky et al. 2012, section 4.1). Raises ValueError where the inputs are no images (H, W, C).
        """
        if mirrored:
            if len(self.input_shape) != 3:
                raise ValueError(
                    f"predict_proba: only images (H, W, C) can be mirrored; this network takes {self.input_shape}"
                )
            return 0.5 * (self.predict_proba(x) + self.predict_proba(x[:, :, ::-1]))
        return kernels.softmax(self.forward(x))

    def predict(self, x: Array) -> Array:
        """Return the most probable class (N,) of each row, int64."""
        return self.predict_proba(x).argmax(axis=1)

    def activations(self, x: Array) -> dict[str, Array]:
        """Return every innermost layer's output in test mode, by layer name."""
        x = self._checked(x)
        return {name: y for name, _, y in self.layers.trace(x)}

    def astype(self, dtype: Any) -> "Network":
        """Return a copy whose parameters and buffers have ``dtype``: float64 for gradient checks."""
        layers = copy.deepcopy(self.layers)
        for _, layer in layers.named_layers():
            layer.params = {name: array.astype(dtype) for name, array in layer.params.items()}
            layer.buffers = {name: array.astype(dtype) for name, array in layer.buffers.items()}
        return Network(layers, self.input_shape)

    def _checked(self, x: Array) -> Array:
        """Return x, floats in the precision of the parameters. Raises TypeError or ValueError for what is no input."""
        if x.dtype.kind not in "uif":
            raise TypeError(f"network: expected numbers (uint8 images or floats), got {x.dtype}")
        if x.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, ("N", *self.input_shape)))
            hint = "images are NHWC"
            if x.ndim == 4 and (*x.shape[2:], x.shape[1]) == self.input_shape:
                hint = "its channels come first (NCHW), but images are NHWC: give x.transpose(0, 2, 3, 1)"
            raise ValueError(f"network: x has shape {x.shape}, expected ({expected}); {hint}")
        # A finite sum of squares, one pass in all threads, says that all is finite; of large numbers it need not be.
        doubtful = x.dtype.kind == "f" and not math.isfinite(kernels.sum_of_squares(x))
        if doubtful and not (finite := np.isfinite(x)).all():
            row = int(np.argwhere(~finite)[0, 0])
            raise ValueError(f"network: expected finite values, but row {row} of x holds NaN or infinity")
        return x if x.dtype.kind != "f" else x.astype(self.vector.dtype, copy=False)

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
        declared, held = _declared(layout), sum(tensor.size for tensor in tensors.values())
        if declared > held:  # seen before memory for it is asked for
            raise ValueError(f"its layers have {declared:,} numbers, its tensors {held:,}")
        layers = build(layout["layers"])
        if not isinstance(layers, Sequential):
            raise ValueError("the outermost layer is not a Sequential")
        network = Network(layers, tuple(layout["input_shape"]))
    except (AttributeError, IndexError, KeyError, MemoryError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a network saved by nnlib, got something else ({error})") from error
    checkpoint.fill({**network.parameters, **network.buffers}, tensors, str(path))
    network.metadata = metadata
    return network


def _declared(layout: Any) -> int:
    """Return how many weights the shapes in a layout promise, at the least."""
    if isinstance(layout, list):
        return sum(map(_declared, layout))
    if not isinstance(layout, dict):
        return 0
    own = math.prod(layout["shape"]) if "shape" in layout else layout.get("channels", 0)
    return int(own) + sum(map(_declared, layout.values()))


def stages(layers: dict[str, Layer]) -> list[tuple[str, Any]]:
    """Return what runs a stack of layers: where kernels are compiled chains of them, see `nnlib.chain`; else they."""
    if not kernels.accelerated():
        return list(layers.items())
    from nnlib.chain import chains  # numba takes a moment to import: not before there is a network

    return chains(layers)


def infer(stages: list[tuple[str, Any]], x: Array) -> Array:
    """Return what stages make of x in test mode, one after the other."""
    for _, stage in stages:
        x = stage.infer(x)
    return x


def in_parts(function: Callable[[Array], Array], x: Array, size: int) -> Array:
    """Return what a function makes of the rows of x, given ``size`` of them at a time."""
    parts = [function(x[i : i + size]) for i in range(0, max(len(x), 1), size)]
    if len(parts) == 1:
        return parts[0]
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    return np.concatenate(parts, out=memory.empty(shape, parts[0].dtype))


def holds(stage: Any, *kinds: type[Layer]) -> bool:
    """Tell whether a layer or chain is or has inside it a layer of one of these kinds."""
    return any(isinstance(inner, kinds) for _, inner in stage.named_layers())


def learns(stage: Any) -> bool:
    """Tell whether a layer or chain, or any layer inside it, has parameters."""
    return any(inner.params for _, inner in stage.named_layers())


def add(y: Array, shortcut: Array) -> Array:
    """Return the sum of a residual block's two branches; ValueError where their shapes differ."""
    same_branches(y.shape, shortcut.shape)
    return y + shortcut
