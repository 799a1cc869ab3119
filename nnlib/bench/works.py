"""What is measured: networks with a batch size, and the arithmetic and memory traffic that they take."""

import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from nnlib import models
from nnlib.functional.checks import Array
from nnlib.network import Network

FLOAT = 4  # bytes of a float32
UPDATE_PASSES = 5  # over the parameters: read parameter, gradient and velocity, write parameter and velocity
ACTIVATION_PASSES = 4  # written and read forward; its gradient written and read backward


@dataclass(frozen=True)
class Work:
    """A network, its training batch and the batches of inference."""

    name: str
    model: str  # a function of nnlib.models
    options: dict[str, Any]  # its arguments, input_shape and classes among them
    batch: int  # of training
    inference: tuple[int, ...] = (1, 256)
    numpy: bool = False  # measured with NumPy alone, too

    def network(self) -> Network:
        """Return the network, its parameters random."""
        network: Network = getattr(models, self.model)(**self.options, rng=np.random.default_rng(0))
        return network

    def batch_of(self, size: int) -> tuple[Array, Array]:
        """Return ``(x, labels)`` of standard normal float32 inputs (size, *input_shape) and int64 labels (size,)."""
        rng = np.random.default_rng(1)
        x = rng.standard_normal((size, *self.options["input_shape"]), dtype=np.float32)
        return x, rng.integers(self.options["classes"], size=size)

    def to_json(self) -> str:
        """Return the work as a line that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Work":
        """Return the work that `to_json` wrote."""
        fields = json.loads(text)
        options = {key: tuple(value) if isinstance(value, list) else value for key, value in fields["options"].items()}
        return cls(**{**fields, "options": options, "inference": tuple(fields["inference"])})


_FACES = {"input_shape": (48, 48, 1), "classes": 7}
_COLOUR = {"input_shape": (32, 32, 3), "classes": 10}

WORKS = {
    work.name: work
    for work in (
        Work("fc", "mlp", {**_COLOUR, "hidden": (1024, 512)}, 100),
        Work("fc_dropout", "mlp", {**_FACES, "hidden": (1024, 512), "dropout": 0.5}, 128),
        Work("small_cnn_64", "small_cnn", _FACES, 64, numpy=True),
        Work("small_cnn_128", "small_cnn", _FACES, 128, numpy=True),
        Work("face_cnn", "face_cnn", _FACES, 128),
        Work("resnet50", "resnet", {**_FACES, "depth": 50, "version": 1}, 64, numpy=True),
        Work("resnet101", "resnet", {**_FACES, "depth": 101, "version": 1}, 64),
    )
}


def growing(side: int, batch: int) -> Work:
    """Return the small CNN on grey images of side x side pixels."""
    return Work(f"small_cnn at {side}x{side}", "small_cnn", {**_FACES, "input_shape": (side, side, 1)}, batch)


class Count(NamedTuple):
    """What one input takes, products as they are defined: an algorithm may do with fewer multiplications."""

    parameters: int
    inference: int  # multiply-adds of the products (convolutions and linear layers)
    training: int  # the same for forward pass, weight gradients and input gradients
    activations: int  # numbers handed from one product to the next

    def flops(self, *, train: bool, batch: int) -> int:
        """Return the floating-point operations of a batch: two a multiply-add."""
        return 2 * batch * (self.training if train else self.inference)

    def traffic(self, batch: int) -> int:
        """Return a lower bound of the bytes that a training step moves between processor and memory.

        Counted are the update, which reads parameter, gradient and velocity and writes parameter and velocity, and
        what products hand on: written and read once on the way forward, and its gradient once on the way back. Left
        out are weights and activations read a second time, norms, masks and the batch: caches or fusion may save them.
        """
        return FLOAT * (UPDATE_PASSES * self.parameters + ACTIVATION_PASSES * batch * self.activations)


def count(network: Network) -> Count:
    """Return what one input of a network takes, from the layers' own counts, as `Network.summary` shows them.

    A product's weight gradient and input gradient take as many multiply-adds as itself; the first product's input
    gradient is not computed and not counted. What a product hands on is counted where it is smallest before the next
    product: after pooling, say.
    """
    products: list[int] = []
    handed: list[int] = []
    for _, layer, y in network.layers.trace(np.zeros((1, *network.input_shape), dtype=np.float32)):
        if operations := layer.operations(y):
            products.append(operations)
            handed.append(y.size)
        elif handed:
            handed[-1] = min(handed[-1], y.size)
    total = sum(products)
    return Count(network.vector.size, total, 3 * total - products[0], sum(handed))
