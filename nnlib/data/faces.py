"""The pictures of faces7: parametric faces that show one of seven expressions.

A face is drawn on half an ellipsoid: a pixel's place on it gives the light there and, once the head is turned, the
face's own coordinates (u to the right, v downwards; the eyes at v = -0.15, the chin near v = 1). In those, brows,
eyes, nose and mouth are curves whose numbers come from the expression. Left and right are drawn at once from |u|.
"""

from __future__ import annotations

import numpy as np

from .drawing import Array, Generator, bell, bump, chosen, clouds, cover, length, paint, pixels, turn, uniform, wave

SIDE = 48
EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # FER2013's codes 0..6

_EYE_U, _EYE_V = 0.39, -0.15
_EDGE = 0.08  # softness of edges in face coordinates: about a pixel

# What moves in a face, and how far from face to face whatever the expression; then one row an expression, in order.
#   brow: height of the brows; inner: their inner ends above the outer; furrow: folds between them; eye: half the
#   eye's opening; slant: outer corners lower; wrinkle: of the nose; fold: from nose to mouth; smile: corners of the
#   mouth up; jaw: half the mouth's opening; wide: half its width; teeth: the share of the opening that shows them
_FEATURES = ("brow", "inner", "furrow", "eye", "slant", "wrinkle", "fold", "smile", "jaw", "wide", "teeth")
_SPREAD = (0.025, 0.22, 0.10, 0.012, 0.02, 0.07, 0.12, 0.025, 0.012, 0.03, 0.08)
_MOVES = (
    (-0.11, -1.2, 1.0, 0.080, -0.03, 0.3, 0.3, -0.12, 0.04, 0.34, 0.6),
    (-0.05, -0.5, 0.3, 0.045, 0.00, 1.1, 1.1, -0.14, 0.07, 0.30, 0.3),
    (0.10, 1.0, 0.5, 0.155, 0.02, 0.0, 0.2, -0.07, 0.10, 0.43, 0.6),
    (0.02, 0.0, 0.0, 0.065, 0.00, 0.1, 0.8, 0.20, 0.09, 0.50, 0.8),
    (0.01, 1.3, 0.2, 0.060, 0.06, 0.0, 0.2, -0.18, 0.00, 0.30, 0.0),
    (0.19, 0.1, 0.0, 0.180, 0.00, 0.0, 0.0, 0.00, 0.24, 0.25, 0.15),
    (0.00, 0.0, 0.0, 0.095, 0.00, 0.0, 0.1, 0.00, 0.00, 0.35, 0.0),
)


def draw(labels: Array, rng: Generator) -> Array:
    """Draw a face (N, 48, 48, 1) uint8 with the expression that each label (N,) names by its place in EXPRESSIONS."""
    count = len(labels)
    move = _expression(labels, rng)
    across, down, depth, size = _pose(rng, count)
    u, v = _turned(rng, across, down, depth)
    skin, hair = uniform(rng, 0.42, 0.85, count, 1, 1), uniform(rng, 0.04, 0.42, count, 1, 1)

    face = skin * (1 + 0.14 * (clouds(rng, count, 6, SIDE) - 0.5))
    _beard(face, rng, u, v, hair)
    _brows(face, move, u, v, np.minimum(hair, skin * 0.5))
    _eyes(face, rng, move, u, v)
    _nose(face, move, u, v)
    _mouth(face, move, u, v)
    _glasses(face, rng, u, v)
    face *= _light(rng, across, down, depth)

    canvas = _behind(rng, across, down, skin, hair)
    paint(canvas, face, cover((length(across, down) - 1) * size, 1.2))
    _fringe(canvas, rng, across, down, u, v, hair)
    _hand(canvas, rng, across, down, skin)
    canvas = 0.5 + uniform(rng, 0.65, 1.15, count, 1, 1) * (canvas - 0.5) + bell(rng, 0.06, count, 1, 1)
    negative = chosen(rng, 0.25, count)
    canvas[negative] = 1 - canvas[negative]
    canvas += uniform(rng, -0.06, 0.06, count, SIDE, SIDE)
    return np.clip(canvas * 255 + 0.5, 0, 255).astype(np.uint8)[..., None]


def _expression(labels: Array, rng: Generator) -> dict[str, Array]:
    """The features (N, 1, 1) by name: the class's moves at some strength, a trace of another's, and the person."""
    count = len(labels)
    moves = np.array(_MOVES, dtype=np.float32)
    rest = moves[-1]
    other = np.floor(rng.random(count) * len(moves)).astype(np.int64)
    strength, trace = uniform(rng, 0.5, 1.2, count, 1), uniform(rng, 0.0, 0.3, count, 1)
    values = rest + strength * (moves[labels] - rest) + trace * (moves[other] - rest)
    values += bell(rng, np.array(_SPREAD, dtype=np.float32), count, len(_FEATURES))
    return {name: values[:, place].reshape(count, 1, 1) for place, name in enumerate(_FEATURES)}


def _pose(rng: Generator, count: int) -> tuple[Array, Array, Array, Array]:
    """Where pixels lie on the head: across and down (N, 48, 48; the outline at length 1), depth; half-width (px)."""
    x, y = pixels(SIDE)
    x = x - bell(rng, 0.03, count, 1, 1)
    y = y - bell(rng, 0.03, count, 1, 1) - 0.06
    cosine, sine = turn(bell(rng, 0.08, count, 1, 1))
    size = uniform(rng, 0.70, 0.84, count, 1, 1)
    tall = size * uniform(rng, 1.16, 1.28, count, 1, 1)
    across, down = (x * cosine + y * sine) / size, (y * cosine - x * sine) / tall
    across = across / (1 - uniform(rng, 0.02, 0.2, count, 1, 1) * np.clip(down, -0.5, 1))
    depth = np.sqrt(np.maximum(1 - across * across - down * down, 0))
    return across, down, depth, size * (SIDE / 2)


def _turned(rng: Generator, across: Array, down: Array, depth: Array) -> tuple[Array, Array]:
    """The face's own coordinates u, v once the head is turned sideways and nods."""
    count = len(across)
    cosine, sine = turn(bell(rng, 0.08, count, 1, 1))
    nod_cosine, nod_sine = turn(bell(rng, 0.05, count, 1, 1))
    return across * cosine - depth * sine, down * nod_cosine - depth * nod_sine


def _light(rng: Generator, across: Array, down: Array, depth: Array) -> Array:
    """Diffuse light from a random side, and some from everywhere."""
    count = len(across)
    side, above = bell(rng, 0.35, count, 1, 1), uniform(rng, -0.45, 0.15, count, 1, 1)
    return 0.5 + 0.55 * np.maximum(depth * 0.9 + side * across + above * down, 0)


def _behind(rng: Generator, across: Array, down: Array, skin: Array, hair: Array) -> Array:
    """The ground, a neck, and hair around the head, short or long."""
    count = len(across)
    x, y = pixels(SIDE)
    lean_x, lean_y = uniform(rng, -0.2, 0.2, 2, count, 1, 1)
    canvas = uniform(rng, 0.1, 0.9, count, 1, 1) + lean_x * x + lean_y * y
    canvas = canvas + 0.4 * (clouds(rng, count, 5, SIDE) - 0.5)
    paint(canvas, skin * 0.62, cover(np.maximum(np.abs(across) - 0.6, 0.3 - down), _EDGE))
    reach = uniform(rng, 1.06, 1.22, count, 1, 1)
    long = np.where(rng.random((count, 1, 1), dtype=np.float32) < 0.35, 1.5, 0).astype(np.float32)
    ends = down - uniform(rng, -0.3, 0.2, count, 1, 1) - long
    crown = np.minimum(down + 0.08, 0)
    paint(canvas, hair, cover(np.maximum(length(across, crown) - reach, ends), 0.1))
    return canvas


def _fringe(canvas: Array, rng: Generator, across: Array, down: Array, u: Array, v: Array, hair: Array) -> None:
    """Hair on the forehead: its line, parted to one side; the brows of a few are under it."""
    count = len(u)
    line = uniform(rng, -0.85, -0.5, count, 1, 1) + bell(rng, 0.12, count, 1, 1) * u
    line = line + uniform(rng, -0.1, 0.35, count, 1, 1) * u * u
    strands = 0.05 * wave(u * uniform(rng, 1.5, 4.0, count, 1, 1) + uniform(rng, 0, 1, count, 1, 1))
    amount = cover(np.maximum(v - line - strands, length(across, down) - 1.04), 0.1)
    paint(canvas, hair * (1 + 4 * strands), amount)


def _brows(face: Array, move: dict[str, Array], u: Array, v: Array, tone: Array) -> None:
    along = (np.abs(u) - _EYE_U) / 0.25
    height = -0.37 - move["brow"] + 0.085 * move["inner"] * along + 0.04 * along * along
    thick = 0.055 - 0.02 * along
    paint(face, tone, 0.9 * cover(np.maximum(np.abs(v - height) - thick, (np.abs(along) - 1) * 0.25), _EDGE))
    furrow = bump((np.abs(u) - 0.09) / 0.07) * bump((v + 0.33) / 0.2)
    face *= 1 - 0.5 * np.clip(move["furrow"], 0, 1.2) * furrow
    forehead = bump((v + 0.68) / 0.22) * bump(u / 0.6) * wave(v * 9)
    face *= 1 - 0.9 * np.clip(move["brow"], 0, 0.2) * forehead


def _eyes(face: Array, rng: Generator, move: dict[str, Array], u: Array, v: Array) -> None:
    count = len(u)
    opening = np.maximum(move["eye"], 0.012)
    along = (np.abs(u) - _EYE_U) / 0.2
    height = v - _EYE_V - move["slant"] * along
    lid = np.abs(height) - opening * (1 - along * along)
    lid = np.maximum(lid, (np.abs(along) - 1) * 0.2)
    socket = bump(along / 1.5) * bump((v - _EYE_V + 0.04) / 0.26)
    face *= 1 - 0.22 * socket
    inside = cover(lid, 0.06)
    edge = np.maximum(1 - np.abs(lid) / 0.055, 0) * np.where(height < 0, 0.95, 0.5).astype(np.float32)
    paint(face, 0.92, inside)
    gaze = bell(rng, 0.03, count, 1, 1)
    iris = length(u - np.copysign(np.float32(_EYE_U), u) - gaze, 1.25 * height) - 0.095
    paint(face, uniform(rng, 0.02, 0.3, count, 1, 1), inside * cover(iris, _EDGE))
    paint(face, 0.1, edge)


def _nose(face: Array, move: dict[str, Array], u: Array, v: Array) -> None:
    aside = np.abs(u)
    ridge = bump(u / 0.1) * bump((v - 0.0) / 0.3)
    flank = bump((aside - 0.13 - 0.12 * v) / 0.08) * bump((v - 0.08) / 0.25)
    nostrils = bump((aside - 0.09) / 0.09) * bump((v - 0.23) / 0.07)
    face *= 1 + 0.12 * ridge - 0.15 * flank - 0.6 * nostrils
    wrinkle = np.clip(move["wrinkle"], 0, 1.3)
    face *= 1 - 0.38 * wrinkle * bump(u / 0.26) * bump((v + 0.04) / 0.22) * (0.4 + wave(v * 7.5))
    fold = bump((aside - 0.2 - 0.62 * (v - 0.15)) / 0.085) * bump((v - 0.32) / 0.26)
    face *= 1 - 0.45 * np.clip(move["fold"], 0, 1.3) * fold


def _mouth(face: Array, move: dict[str, Array], u: Array, v: Array) -> None:
    """Lips around an opening with teeth along its upper edge."""
    wide = np.maximum(move["wide"], 0.12)
    jaw = np.maximum(move["jaw"], 0)
    along = u / wide
    square = along * along
    height = v - 0.52 - 0.45 * jaw - move["smile"] * (0.45 - square)
    ends = (np.abs(along) - 1) * wide
    half = jaw * (1 - square)
    lips = np.maximum(np.abs(height) - half - 0.075 * (1 - 0.8 * square), ends)
    paint(face, face * 0.72, cover(lips, _EDGE))
    inside = cover(np.maximum(np.abs(height) - np.maximum(half, 0.02), ends), 0.06)
    paint(face, 0.1, 0.9 * inside)
    teeth = height + half * (1 - 2 * np.clip(move["teeth"], 0, 1))
    paint(face, 0.92, inside * cover(teeth, 0.06) * np.clip(half * 25 - 0.4, 0, 1))
    face *= 1 - 0.25 * bump(u / (0.7 * wide)) * bump((height - half - 0.14) / 0.08)


def _beard(face: Array, rng: Generator, u: Array, v: Array, hair: Array) -> None:
    """Stubble or a beard on the lower face of some, thicker towards the chin."""
    rows = chosen(rng, 0.15, len(u))
    u, v = u[rows], v[rows]
    amount = np.clip((v - 0.25 + 0.5 * u * u) * 2.5, 0, 1) * uniform(rng, 0.2, 0.8, len(rows), 1, 1)
    part = face[rows]
    paint(part, hair[rows], amount)
    face[rows] = part


def _glasses(face: Array, rng: Generator, u: Array, v: Array) -> None:
    rows = chosen(rng, 0.15, len(u))
    u, v = u[rows], v[rows]
    aside, round_ = np.abs(u), uniform(rng, 0.23, 0.3, len(rows), 1, 1)
    rim = np.abs(length(aside - _EYE_U, (v - _EYE_V - 0.02) * 1.1) - round_) - 0.025
    bridge = np.maximum(np.abs(v - _EYE_V + 0.02) - 0.025, np.abs(aside - 0.07) - 0.09)
    part = face[rows]
    paint(part, uniform(rng, 0.03, 0.35, len(rows), 1, 1), cover(np.minimum(rim, bridge), 0.07))
    face[rows] = part


def _hand(canvas: Array, rng: Generator, across: Array, down: Array, skin: Array) -> None:
    """Fingers that come in from below or the side and hide part of the lower face."""
    rows = chosen(rng, 0.1, len(across))
    count = len(rows)
    cosine, sine = turn(uniform(rng, -1.4, 1.4, count, 1, 1))
    aside = across[rows] - uniform(rng, -0.8, 0.8, count, 1, 1)
    below = down[rows] - uniform(rng, 0.25, 0.8, count, 1, 1)
    over, along = aside * cosine + below * sine, below * cosine - aside * sine
    fingers = wave(over * 4)
    shape = np.maximum(np.abs(over) - 0.37, -along + 0.06 * fingers)
    part = canvas[rows]
    paint(part, skin[rows] * (0.8 + 0.15 * fingers), cover(shape, _EDGE))
    canvas[rows] = part
