"""The networks of the report, built from layers."""

import math

from nnlib import initialization
from nnlib.layers import Dropout, Generator, Layer, Linear, Normalize, ReLU
from nnlib.network import Network, Sequential


def mlp(
    input_shape: tuple[int, ...],
    hidden: tuple[int, ...],
    classes: int,
    *,
    dropout: float = 0.0,
    rng: Generator,
) -> Network:
    """Return a fully connected network: normalise, then (linear, ReLU, dropout) for each hidden width, then linear.

    input_shape: (32, 32, 3) for images, (20,) for features;  hidden: widths, () for a linear classifier;  dropout: the
    probability to drop after each hidden layer. Hidden weights start as He et al. 2015 say, the last layer small, so
    that the loss starts at ln(classes). Raises ValueError for widths or classes below 1.
    """
    input_shape, hidden = tuple(input_shape), tuple(hidden)
    if not input_shape or min((*input_shape, *hidden, classes)) < 1:
        raise ValueError(
            f"mlp: expected sizes of at least 1, got input_shape {input_shape}, hidden {hidden}, classes {classes}"
        )
    layers: dict[str, Layer] = {"normalize": Normalize(input_shape[-1])}
    width = math.prod(input_shape)
    for number, units in enumerate(hidden, 1):
        layers[f"fc{number}"] = Linear(initialization.he((width, units), rng))
        layers[f"relu{number}"] = ReLU()
        if dropout:
            layers[f"dropout{number}"] = Dropout(dropout)
        width = units
    layers["fc"] = Linear(initialization.small((width, classes), rng))
    return Network(Sequential(layers), input_shape)
