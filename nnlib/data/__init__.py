"""The data sets: loaders that return a Split, embedded synthetic sets, and augmentation."""

import os
from functools import lru_cache

from .augment import Augment
from .cifar10 import load_cifar10
from .fer2013 import load_fer2013
from .split import Split
from .synthetic import faces7, shapes10

__all__ = ["Augment", "Split", "faces7", "load", "load_cifar10", "load_fer2013", "shapes10"]


def load(name: str, split: str = "train", *, root: str | os.PathLike[str] | None = None) -> Split:
    """A split of "cifar10" or "fer2013" (under `root`, see `data_root`), or of the drawn "shapes10" or "faces7".

    Raises ValueError for an unknown name or split, and what the set's own loader raises.
    """
    match name:
        case "cifar10":
            return load_cifar10(split, root=root)
        case "fer2013":
            return load_fer2013(split, root=root)
        case "shapes10" | "faces7":
            return _drawn(name, split)
    raise ValueError(f"load: expected cifar10, fer2013, shapes10 or faces7, got {name!r}")


@lru_cache(maxsize=4)
def _drawn(name: str, split: str) -> Split:
    """A drawn set, which takes seconds, kept for the experiments that follow in the same process; read only."""
    drawn = shapes10(split) if name == "shapes10" else faces7(split)
    drawn.inputs.flags.writeable = False
    return drawn
