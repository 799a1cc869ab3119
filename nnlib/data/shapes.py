"""The pictures of shapes10: ten kinds of coloured, textured shape on cluttered ground."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .drawing import Array, Generator, bell, bump, chosen, clouds, cover, length, paint, pixels, turn, uniform, wave

SIDE = 32

# Each shape: the signed distance to its edge at (x, y), y downwards, for a shape of radius about 1.


def _disc(x: Array, y: Array) -> Array:
    return length(x, y) - 0.85


def _ring(x: Array, y: Array) -> Array:
    return np.abs(length(x, y) - 0.7) - 0.21


def _square(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - 0.74


def _triangle(x: Array, y: Array) -> Array:
    return np.maximum(y - 0.6, 0.866 * np.abs(x) - 0.5 * y - 0.52)


def _star(x: Array, y: Array) -> Array:
    """Five points: the plane is folded along two of the star's axes, which leaves half a point."""
    x, y = np.abs(x), -y
    for slope in (0.809017, -0.809017):
        beyond = 2 * np.maximum(slope * x - 0.587785 * y, 0)
        x, y = x - slope * beyond, y + 0.587785 * beyond
    x, y = np.abs(x), y - 1
    edge_x, edge_y = 0.44 * 0.587785, 0.44 * 0.809017 - 1
    along = np.clip((x * edge_x + y * edge_y) / (edge_x**2 + edge_y**2), 0, 1)
    side = np.where(y * edge_x < x * edge_y, -1, 1).astype(np.float32)
    return side * length(x - edge_x * along, y - edge_y * along)


def _cross(x: Array, y: Array) -> Array:
    across, down = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(across, down) - 0.9, np.minimum(across, down) - 0.28)


def _crescent(x: Array, y: Array) -> Array:
    return np.maximum(length(x, y) - 0.95, 0.72 - length(x - 0.45, y))


def _heart(x: Array, y: Array) -> Array:
    """A square on its corner and two discs on its upper edges."""
    x, y = np.abs(x), y - 0.08
    square = (x + np.abs(y)) * 0.7071 - 0.52
    return np.minimum(square, length(x - 0.37, y + 0.37) - 0.52)


def _arrow(x: Array, y: Array) -> Array:
    head = np.maximum(y + 0.02, 0.7071 * np.abs(x) - 0.7071 * y - 0.67)
    shaft = np.maximum(np.abs(x) - 0.25, np.abs(y - 0.4) - 0.52)
    return np.minimum(head, shaft)


def _hourglass(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(y) - 0.85, 0.75 * (np.abs(x) - 0.85 * np.abs(y) - 0.07))


KINDS: dict[str, Callable[[Array, Array], Array]] = {
    "disc": _disc, "ring": _ring, "square": _square, "triangle": _triangle, "star": _star, "cross": _cross,
    "crescent": _crescent, "heart": _heart, "arrow": _arrow, "hourglass": _hourglass,
}  # fmt: skip


def draw(labels: Array, rng: Generator) -> Array:
    """Draw an image (N, 32, 32, 3) uint8 of the kind that each label (N,) names by its place in KINDS."""
    count = len(labels)
    polarity = np.where(rng.random((count, 1, 1), dtype=np.float32) < 0.2, -1, 1).astype(np.float32)
    canvas = _ground(rng, count, 0.44 - 0.14 * polarity)
    _clutter(canvas, rng, 0.44 - 0.10 * polarity)
    distance, x, y = _outline(labels, rng)
    _fill(canvas, rng, distance, x, y, 0.5 + 0.18 * polarity)
    _clutter_over(canvas, rng)
    canvas *= _light(rng, count)
    canvas += uniform(rng, -0.08, 0.08, *canvas.shape)
    levels = np.clip(canvas * 255 + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(1, 2, 3, 0))


def _outline(labels: Array, rng: Generator) -> tuple[Array, Array, Array]:
    """Distance to each shape's edge in pixels, and its own coordinates, each (N, 32, 32)."""
    count = len(labels)
    x, y = pixels(SIDE)
    x = x - bell(rng, 0.14, count, 1, 1)
    y = y - bell(rng, 0.14, count, 1, 1)
    cosine, sine = turn(bell(rng, 0.20, count, 1, 1))
    radius = uniform(rng, 0.48, 0.78, count, 1, 1)
    stretch = uniform(rng, 0.88, 1.14, count, 1, 1)
    x, y = (x * cosine + y * sine) / (radius * stretch), (y * cosine - x * sine) / (radius / stretch)
    distance = np.empty_like(x)
    for label, kind in enumerate(KINDS.values()):
        rows = labels == label
        if rows.any():
            distance[rows] = kind(x[rows], y[rows])
    return distance * (radius * (SIDE / 2)), x, y


def _colour(rng: Generator, count: int, level: float | Array, spread: float, vivid: float) -> Array:
    """Colours (3, N, 1, 1) of about this lightness, in any hue."""
    mix = rng.random((3, count, 1, 1), dtype=np.float32)
    grey = (mix[0] + mix[1] + mix[2]) / 3
    return level + uniform(rng, -spread, spread, count, 1, 1) + vivid * (mix - grey)


def _ground(rng: Generator, count: int, level: Array) -> Array:
    """Two colours run into each other along a direction, with clouds: (3, N, 32, 32)."""
    x, y = pixels(SIDE)
    cosine, sine = turn(uniform(rng, -1.57, 1.57, count, 1, 1))
    blend = 0.5 + 0.45 * (cosine * x + sine * y) + 0.8 * (clouds(rng, count, 4, SIDE) - 0.5)
    first, second = _colour(rng, count, level, 0.16, 0.55), _colour(rng, count, level, 0.16, 0.55)
    grain = uniform(rng, 0.0, 0.3, count, 1, 1) * (clouds(rng, count, 13, SIDE) - 0.5)
    return first + (second - first) * np.clip(blend, 0, 1) + grain


def _clutter(canvas: Array, rng: Generator, level: Array) -> None:
    """Blobs and strokes that mean nothing, behind the shape."""
    count = canvas.shape[1]
    x, y = pixels(SIDE)
    for _ in range(2):
        centre_x, centre_y = uniform(rng, -1, 1, 2, count, 1, 1)
        size, flat = uniform(rng, 0.15, 0.4, count, 1, 1), uniform(rng, 0.6, 1.6, count, 1, 1)
        blob = bump(length((x - centre_x) * flat, y - centre_y) / size)
        paint(canvas, _colour(rng, count, level, 0.25, 0.7), 0.9 * blob)
    for _ in range(2):
        paint(canvas, _colour(rng, count, level, 0.3, 0.7), _stroke(rng, count))


def _clutter_over(canvas: Array, rng: Generator) -> None:
    """A stroke across the picture in a quarter of the images, which may cut the shape."""
    rows = chosen(rng, 0.25, canvas.shape[1])
    part = canvas[:, rows]
    paint(part, _colour(rng, len(rows), 0.45, 0.35, 0.7), 0.9 * _stroke(rng, len(rows)))
    canvas[:, rows] = part


def _stroke(rng: Generator, count: int) -> Array:
    """The cover (N, 32, 32) of a straight stroke: a place, a direction, half a length and half a width."""
    x, y = pixels(SIDE)
    start_x, start_y = uniform(rng, -0.9, 0.9, 2, count, 1, 1)
    cosine, sine = turn(uniform(rng, -1.57, 1.57, count, 1, 1))
    along = np.abs((x - start_x) * cosine + (y - start_y) * sine) - uniform(rng, 0.2, 0.6, count, 1, 1)
    aside = np.abs((y - start_y) * cosine - (x - start_x) * sine) - uniform(rng, 0.03, 0.09, count, 1, 1)
    return cover(np.maximum(along, aside) * (SIDE / 2), 1.0)


def _fill(canvas: Array, rng: Generator, distance: Array, x: Array, y: Array, level: Array) -> None:
    """Paint each shape in one or two colours: plain, striped, chequered or clouded, darker or lighter at the rim."""
    count = len(distance)
    cosine, sine = turn(uniform(rng, -1.57, 1.57, count, 1, 1))
    often = uniform(rng, 0.9, 1.8, count, 1, 1)
    stripes = wave(often * (cosine * x + sine * y))
    other_way = wave(often * (cosine * y - sine * x))
    style = rng.random((count, 1, 1), dtype=np.float32)
    pattern = np.where(style < 0.35, stripes, np.where(style < 0.6, stripes * other_way * 1.4, 0))
    pattern = np.where(style > 0.8, 3 * clouds(rng, count, 7, SIDE) - 1.5, pattern)
    first, second = _colour(rng, count, level, 0.13, 0.75), _colour(rng, count, level, 0.2, 0.6)
    mixed = first + (second - first) * np.clip(0.5 + 0.8 * pattern, 0, 1)
    rim = uniform(rng, -0.28, 0.18, count, 1, 1) * cover(-distance - 1.3, 1.0)
    paint(canvas, mixed + rim, cover(distance, 1.1))


def _light(rng: Generator, count: int) -> Array:
    """Light that falls off to one side, and its strength: (N, 32, 32)."""
    x, y = pixels(SIDE)
    lean_x, lean_y = uniform(rng, -0.22, 0.22, 2, count, 1, 1)
    return uniform(rng, 0.75, 1.2, count, 1, 1) * (1 + lean_x * x + lean_y * y)
