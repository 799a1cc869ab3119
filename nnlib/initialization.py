"""How weights start: functions of (shape, generator) that return float32 arrays.

The fan-in of a weight of shape (..., in, out) is the product of all axes but the last: what one output sums over.
"""

import numpy as np

from nnlib.functional.checks import Array


def he(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Normal with variance 2 / fan_in, which keeps the scale of activations through ReLU layers.

    shape: (..., in, out). Source: He et al. 2015 (Delving deep into rectifiers), eq. 10.
    """
    return normal(shape, rng, np.sqrt(2 / np.prod(shape[:-1])))


def xavier(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Normal with variance 2 / (fan_in + fan_out), for layers without a rectifier.

    shape: (..., in, out). Source: Glorot and Bengio 2010, eq. 12.
    """
    fan_in = np.prod(shape[:-1])
    fan_out = np.prod(shape[:-2]) * shape[-1]
    return normal(shape, rng, np.sqrt(2 / (fan_in + fan_out)))


def small(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """A hundredth of Xavier: for the last layer, so that an untrained net gives every class the same probability."""
    return xavier(shape, rng) * np.float32(0.01)


def normal(shape: tuple[int, ...], rng: np.random.Generator, deviation: float) -> Array:
    """Normal with mean 0 and the given standard deviation, whatever the fan-in."""
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation)
