"""Brushes for drawing many images at once: fields over a grid of pixels, (N, H, W) float32.

Whatever is drawn with these is the same to the last bit on every machine. They use only operations that IEEE 754
rounds correctly (+ - * / sqrt) or exactly (comparison, floor), element by element: no sine, exponential, matrix
product or sum, whose last bit differs between processors. Random numbers come from `Generator.random` alone.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray
Generator = np.random.Generator


def uniform(rng: Generator, low: float, high: float, *shape: int) -> Array:
    """float32 numbers of the given shape between low and high."""
    values = rng.random(shape, dtype=np.float32)
    values *= high - low
    values += low
    return values


def bell(rng: Generator, deviation: float | Array, *shape: int) -> Array:
    """Sums of three uniform numbers, near enough to normal with mean 0 and this deviation; never beyond 3 of it."""
    total = uniform(rng, -1, 1, *shape)
    total += uniform(rng, -1, 1, *shape)
    total += uniform(rng, -1, 1, *shape)
    return total * deviation


def chosen(rng: Generator, probability: float, count: int) -> Array:
    """Indices of those of `count` images that are chosen, each with this probability."""
    return np.flatnonzero(rng.random(count, dtype=np.float32) < probability)


def turn(angle: Array) -> tuple[Array, Array]:
    """Cosine and sine of angles from -pi/2 to pi/2 (radians), the sine by its series (error below 2e-4)."""
    square = angle * angle
    sine = angle * (1 - square * (1 / 6 - square * (1 / 120 - square / 5040)))
    sine = np.clip(sine, -1, 1)
    return np.sqrt(1 - sine * sine), sine


def pixels(side: int) -> tuple[Array, Array]:
    """x (1, 1, side) to the right and y (1, side, 1) downwards: the pixels' centres, from -1 to 1."""
    centres = ((np.arange(side, dtype=np.float32) + 0.5) * 2 - side) / side
    return centres.reshape(1, 1, side), centres.reshape(1, side, 1)


def cover(distance: Array, softness: float | Array) -> Array:
    """How much of a pixel a shape covers (0..1), from the signed distance to its edge (negative inside)."""
    return np.clip(0.5 - distance / softness, 0, 1)


def bump(distance: Array) -> Array:
    """A smooth hill: 1 at distance 0, falling to 0 at distances of 1 and more."""
    falling = np.maximum(1 - distance * distance, 0)
    return falling * falling


def wave(phase: Array) -> Array:
    """A wave of period 1 between -1 and 1, made of parabolas: a sine but for 6 %."""
    place = phase - np.floor(phase)
    half = 2 * place - 1
    return 4 * half * (np.abs(half) - 1)


def length(x: Array, y: Array) -> Array:
    """The length of the vectors (x, y)."""
    return np.sqrt(x * x + y * y)


def paint(canvas: Array, colour: float | Array, amount: Array) -> None:
    """Lay a colour over the canvas, in place; amount 0 leaves the canvas, 1 hides it."""
    change = colour - canvas
    change *= amount
    canvas += change


def clouds(rng: Generator, count: int, cells: int, side: int) -> Array:
    """Smooth random fields (count, side, side) between 0 and 1: a grid of cells x cells, interpolated."""
    grid = rng.random((count, cells + 1, cells + 1), dtype=np.float32)
    place = (np.arange(side, dtype=np.float32) + 0.5) * cells / side
    corner = np.floor(place).astype(np.int64)
    rest = place - corner
    weight = rest * rest * (3 - 2 * rest)
    rows = grid[:, corner] + (grid[:, corner + 1] - grid[:, corner]) * weight[:, None]
    return rows[:, :, corner] + (rows[:, :, corner + 1] - rows[:, :, corner]) * weight
