"""Neighbouring layers that share passes over memory, where kernels are compiled.

Deep networks repeat one pattern: a product (convolution or linear layer), a norm, the sum with a shortcut, a rectifier,
perhaps pooling. Layer by layer, each of these reads and writes all activations. A `Chain` does the same arithmetic, but
what follows a product is applied while its results are in the first cache, and the rectifier's slope is taken where the
gradient is read anyway. In test mode a norm is an affine map with fixed numbers: the whole chain is then one product.

This module imports the compiled kernels; `Sequential` imports it where there are any.
"""

from typing import Any, NamedTuple

import numpy as np

from nnlib.functional.checks import Array, conv2d_operands, norm_operands, same_branches
from nnlib.functional.linear import check_operands
from nnlib.kernels import convolution, linear
from nnlib.kernels.elementwise import column_sums, relu_backward
from nnlib.kernels.norm import NormContext, norm, norm_gradient
from nnlib.kernels.pool import max_pool2d_backward, pool
from nnlib.layers import BatchNorm, Conv2d, Generator, Gradients, Layer, Linear, MaxPool2d, ReLU, join

# What a chain may be made of, in this order: a product or a norm, or both, then the rest.
PATTERNS: tuple[tuple[type[Layer], ...], ...] = (
    (Conv2d, ReLU, MaxPool2d),
    *((product, *rest) for product in (Conv2d, Linear) for rest in ((BatchNorm, ReLU), (BatchNorm,), (ReLU,), ())),
    (BatchNorm, ReLU),
    (BatchNorm,),
)


def chains(layers: dict[str, Layer]) -> list[tuple[str, "Layer | Chain"]]:
    """Return the stages of a stack of layers: chains where a pattern fits, the longest first, else the layers."""
    items, stages = list(layers.items()), list[tuple[str, "Layer | Chain"]]()
    while items:
        kinds = tuple(type(layer) for _, layer in items)
        length = max((len(pattern) for pattern in PATTERNS if kinds[: len(pattern)] == pattern), default=0)
        stages.append(("", Chain(dict(items[:length]))) if length else items[0])
        items = items[length or 1 :]
    return stages


class ChainContext(NamedTuple):
    """What a chain's backward pass needs."""

    x: Array  # that was multiplied; without a product, the input
    norm: NormContext | None = None
    y: Array | None = None  # the output, where it was rectified without a norm
    pooled: tuple[Array, tuple[int, ...]] | None = None  # argmax, and the shape before pooling


class Chain:
    """[product] [norm] [rectifier] [pooling], run as one layer; a ``shortcut`` may be added before the rectifier."""

    def __init__(self, layers: dict[str, Layer]) -> None:
        self.layers = layers
        self.product_name, self.product = self._find(Conv2d, Linear)
        self.norm_name, self.norm = self._find(BatchNorm)
        self.rectify = self._find(ReLU)[1] is not None
        self.pool = self._find(MaxPool2d)[1]

    def _find(self, *kinds: type[Layer]) -> tuple[str, Any]:
        return next(((name, layer) for name, layer in self.layers.items() if isinstance(layer, kinds)), ("", None))

    def named_layers(self) -> list[tuple[str, Layer]]:
        """Return the layers inside, with their names."""
        return list(self.layers.items())

    def forward(
        self,
        x: Array,
        *,
        train: bool = False,
        rng: Generator | None = None,
        shortcut: Array | None = None,
        relu: bool = False,
    ) -> tuple[Array, ChainContext]:
        """Return ``(y, context)``; with ``relu`` the sum with the shortcut is rectified."""
        rectify = self.rectify or relu
        x = self._typed(x)
        if self.norm is not None:
            z = x if self.product is None else _multiply(self.product, x, shift=self.product.params.get("bias"))
            gamma, beta = self.norm.params["weight"], self.norm.params["bias"]
            mean, variance = self.norm.buffers["running_mean"], self.norm.buffers["running_var"]
            norm_operands(z, gamma, beta, mean, variance, train)
            if shortcut is not None:
                same_branches(z.shape, shortcut.shape)
            y, context = norm(
                z, gamma, beta, mean, variance,
                train=train, momentum=self.norm.momentum, eps=self.norm.eps, residual=shortcut, rectify=rectify,
            )  # fmt: skip
            return y, ChainContext(x, norm=context)
        bias = self.product.params.get("bias")
        if self.pool is None:
            y = _multiply(self.product, x, shift=bias, residual=shortcut, rectify=rectify)
            return y, ChainContext(x, y=y if rectify else None)
        z = _multiply(self.product, x)
        y, argmax = pool(
            z, self.pool.size, stride=self.pool.stride, padding=self.pool.padding, shift=bias, rectify=rectify
        )
        return y, ChainContext(x, y=y, pooled=(argmax, z.shape))

    def infer(self, x: Array, *, shortcut: Array | None = None, relu: bool = False) -> Array:
        """Return y in test mode, keeping no context."""
        if self.product is None or self.norm is None:
            return self.forward(x, shortcut=shortcut, relu=relu)[0]
        mean, variance = self.norm.buffers["running_mean"], self.norm.buffers["running_var"]
        scale = self.norm.params["weight"] / np.sqrt(variance + variance.dtype.type(self.norm.eps))
        shift = self.norm.params["bias"] - (mean - self.product.params.get("bias", 0)) * scale
        options = {"scale": scale, "shift": shift, "residual": shortcut, "rectify": self.rectify or relu}
        return _multiply(self.product, self._typed(x), **options)

    def _typed(self, x: Array) -> Array:
        """Return x in the precision of the parameters."""
        return x.astype((self.product or self.norm).params["weight"].dtype, copy=False)

    def backward(
        self, dy: Array, context: ChainContext, *, input_grad: bool = True, add: Array | None = None
    ) -> tuple[Array | None, Gradients, Array]:
        """Return ``(dx + add, gradients, g)``; g is the gradient at the sum, which the shortcut's branch gets too."""
        gradients: Gradients = {}
        if context.norm is not None:
            d, dgamma, dbeta, g = norm_gradient(dy, context.norm, add=add if self.product is None else None)
            gradients |= {join(self.norm_name, "weight"): dgamma, join(self.norm_name, "bias"): dbeta}
            if self.product is None:
                return (d if input_grad else None), gradients, g
        else:
            d = g = dy if context.y is None else relu_backward(dy, context.y)
        if "bias" in self.product.params:
            gradients[join(self.product_name, "bias")] = column_sums(d)
        if context.pooled is not None:
            options = {"stride": self.pool.stride, "padding": self.pool.padding}
            d = max_pool2d_backward(d, *context.pooled, self.pool.size, **options)
        gradients[join(self.product_name, "weight")] = _weight_gradient(self.product, d, context.x)
        dx = _input_gradient(self.product, d, context.x.shape, add) if input_grad else None
        return dx, gradients, g


def _multiply(layer: Any, x: Array, *, residual: Array | None = None, **following: Any) -> Array:
    """Return the layer's product without its bias, and what follows it (`linear.affine`)."""
    weight = layer.params["weight"]
    middle: tuple[int, ...] = ()
    if isinstance(layer, Linear):
        check_operands(x, weight)
    else:
        middle = conv2d_operands(x, weight, None, layer.stride, layer.padding)
    if residual is not None:
        same_branches((len(x), *middle, weight.shape[-1]), residual.shape)
    if isinstance(layer, Linear):
        return linear.affine(x, weight, residual=residual, **following)
    return convolution.convolve(
        x, weight, stride=layer.stride, padding=layer.padding, residual=residual, **following
    )


def _weight_gradient(layer: Any, dy: Array, x: Array) -> Array:
    shape = layer.params["weight"].shape
    if isinstance(layer, Linear):
        return linear.weight_gradient(dy, x, shape)
    return convolution.weight_gradient(dy, x, shape, stride=layer.stride, padding=layer.padding)


def _input_gradient(layer: Any, dy: Array, shape: tuple[int, ...], add: Array | None) -> Array:
    weight = layer.params["weight"]
    if isinstance(layer, Linear):
        return linear.input_gradient(dy, weight, shape, add)
    return convolution.input_gradient(
        dy, weight, shape, stride=layer.stride, padding=layer.padding, residual=add
    )
