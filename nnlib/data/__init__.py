"""The data sets: loaders that return a Split, embedded synthetic sets, and augmentation."""

from .split import Split

__all__ = ["Split"]
