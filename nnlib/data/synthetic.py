"""Two image sets that are drawn from a seed, so that everything runs and learns without a download.

Images are drawn in chunks, each from its own stream PCG64(seed, split, chunk), and every chunk holds each class
equally often, in random order. So the first n images are the same whatever the count, and "train" and "test" never
share a stream. `drawing` says why the bytes are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import index

import numpy as np

from . import faces, shapes
from .drawing import Array, Generator
from .split import Split

SPLITS = {"train": 10_000, "test": 2_000}  # the count of images if none is given
_PER_CLASS = 4  # images of each class in a chunk: few enough that the fields of a chunk stay in the cache

# So many of a chunk's 28 labels in faces7 are wrong: 3.6 %, as people err on such pictures too.
WRONG_PER_CHUNK = 1


def shapes10(split: str = "train", *, count: int | None = None, seed: int = 0) -> Split:
    """Draw coloured, textured shapes on cluttered ground: (count, 32, 32, 3) uint8, ten classes.

    Place, size, angle, colours, texture, clutter and light are independent of the class. split: "train" (10,000
    images by default) or "test" (2,000). Raises ValueError for another split, a count below 1 or a negative seed.
    """
    images, labels, _ = _collect(shapes.draw, len(shapes.KINDS), 0, split, count, seed)
    return Split(images, labels, tuple(shapes.KINDS), "shapes10, synthetic images drawn by nnlib", synthetic=True)


def faces7(split: str = "train", *, count: int | None = None, seed: int = 0) -> Split:
    """Draw faces with one of seven expressions, FER2013's classes in its order: (count, 48, 48, 1) uint8.

    Expressions vary in strength and blend into each other, so classes overlap; a quarter of the pictures are
    negatives, which a linear classifier cannot allow for; WRONG_PER_CHUNK labels of 28 are wrong on purpose, in both
    splits. split: "train" (10,000 images by default) or "test" (2,000). Raises ValueError
    for another split, a count below 1 or a negative seed.
    """
    images, labels, _ = _collect(faces.draw, len(faces.EXPRESSIONS), WRONG_PER_CHUNK, split, count, seed)
    return Split(images, labels, faces.EXPRESSIONS, "faces7, synthetic images drawn by nnlib", synthetic=True)


def _collect(
    draw: Callable[[Array, Generator], Array], classes: int, wrong: int, split: str, count: int | None, seed: int
) -> tuple[Array, Array, Array]:
    """Images (count, H, W, C), their labels and their true classes (count,), `wrong` labels differing in a chunk."""
    if split not in SPLITS:
        raise ValueError(f"drawn data: expected split 'train' or 'test', got {split!r}")
    count = SPLITS[split] if count is None else index(count)
    if count < 1:
        raise ValueError(f"drawn data: expected a count of at least 1 image, got {count}")
    if seed < 0:
        raise ValueError(f"drawn data: expected a seed of 0 or more, got {seed}")
    chunks = []
    for chunk in range(-(-count // (_PER_CLASS * classes))):
        stream = np.random.SeedSequence(seed, spawn_key=(list(SPLITS).index(split), chunk))
        rng = np.random.Generator(np.random.PCG64(stream))
        truth = np.argsort(rng.random(_PER_CLASS * classes), kind="stable") % classes
        labels = _mislabel(truth, classes, wrong, rng)
        chunks.append((draw(truth, rng), labels, truth))
    images, labels, truth = (np.concatenate(parts)[:count] for parts in zip(*chunks, strict=True))
    return images, labels, truth


def _mislabel(truth: Array, classes: int, wrong: int, rng: Generator) -> Array:
    """The labels with `wrong` of them, drawn at random, moved to another class."""
    labels = truth.copy()
    rows = np.argsort(rng.random(len(labels)), kind="stable")[:wrong]
    labels[rows] = (labels[rows] + 1 + np.floor(rng.random(wrong) * (classes - 1)).astype(np.int64)) % classes
    return labels
