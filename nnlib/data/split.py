"""One split of a data set: what every loader returns and every network is trained on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Split:
    """Inputs with their labels, and what they are called.

    inputs: uint8 images (N, H, W, C) or finite floats (N, ...).
    labels: integers (N,), kept as int64, each in 0..len(classes)-1 where the classes are named.
    classes: the classes' names in label order; () if they have none.
    source: where the data comes from, in words fit for a caption.
    synthetic: whether a program drew the data.

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, no rows, NaN or infinite inputs, or a
    label out of range.
    """

    inputs: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...] = ()
    source: str = ""
    synthetic: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", np.asarray(self.inputs))
        object.__setattr__(self, "labels", np.asarray(self.labels))
        object.__setattr__(self, "classes", tuple(self.classes))
        _check_inputs(self.inputs)
        _check_labels(self.labels, len(self.inputs), self.classes)
        object.__setattr__(self, "labels", self.labels.astype(np.int64, copy=False))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | np.ndarray | list[int]) -> Split:
        """The rows of a slice, an index array or a boolean mask, with the same classes and source."""
        if not isinstance(rows, (slice, np.ndarray, list)):
            got = type(rows).__name__
            raise TypeError(f"Split: expected a slice or index array, got {got}; one row is split[i:i + 1]")
        return replace(self, inputs=self.inputs[rows], labels=self.labels[rows])

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 over the shapes, dtypes, inputs and labels."""
        digest = hashlib.sha256()
        for array in (self.inputs, self.labels):
            digest.update(f"{array.shape} {array.dtype.str};".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def hold_out(self, count: int, *, seed: int = 0) -> tuple[Split, Split]:
        """Part into (rest, held): `count` held rows in the classes' proportions, both in the original order.

        The same split, count and seed give the same parts. Raises ValueError unless 0 < count < len(split).
        """
        if not 0 < count < len(self):
            raise ValueError(f"hold_out: expected a count between 1 and {len(self) - 1}, got {count}")
        rng = np.random.default_rng(seed)
        names, sizes = np.unique(self.labels, return_counts=True)
        held = np.zeros(len(self), dtype=bool)
        for name, quota in zip(names, _quotas(sizes, count), strict=True):
            held[rng.permutation(np.flatnonzero(self.labels == name))[:quota]] = True
        return self[~held], self[held]


def _quotas(sizes: np.ndarray, count: int) -> np.ndarray:
    """`count` shared out in proportion to `sizes` (C,): rounded down, the rest to the largest remainders."""
    exact, total = sizes * count, sizes.sum()
    quotas: np.ndarray = exact // total
    largest_first = np.argsort(-(exact % total), kind="stable")
    quotas[largest_first[: count - quotas.sum()]] += 1
    return quotas


def _check_inputs(inputs: np.ndarray) -> None:
    if inputs.dtype != np.uint8 and not np.issubdtype(inputs.dtype, np.floating):
        raise TypeError(f"Split: inputs must be uint8 images or floats, got {inputs.dtype}; use astype")
    if inputs.dtype == np.uint8 and inputs.ndim != 4:
        raise ValueError(f"Split: uint8 inputs must be images (N, H, W, C), got shape {inputs.shape}; "
                         "other features go in as floats")
    if inputs.ndim < 2:
        raise ValueError(f"Split: inputs must be (N, ...), one row an example, got shape {inputs.shape}")
    if inputs.size == 0:
        raise ValueError(f"Split: inputs of shape {inputs.shape} are empty; expected at least one example")
    if inputs.dtype != np.uint8:
        finite = np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            raise ValueError(f"Split: inputs must be finite, row {row} holds NaN or infinity; mend or drop it")


def _check_labels(labels: np.ndarray, count: int, classes: tuple[Any, ...]) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"Split: labels must be integers, got {labels.dtype}; use class indices from 0")
    if labels.shape != (count,):
        raise ValueError(f"Split: expected a label for each of {count} inputs, got shape {labels.shape}")
    wrong = labels < 0
    if classes:
        wrong |= labels >= len(classes)
    if wrong.any():
        row = int(np.argmax(wrong))
        limit = f"0..{len(classes) - 1}" if classes else "0 or more"
        raise ValueError(f"Split: labels must be {limit}, row {row} has {labels[row]}")
