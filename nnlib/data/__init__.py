"""The data sets: loaders that return a Split, embedded synthetic sets, and augmentation."""

from .cifar10 import load_cifar10
from .split import Split

__all__ = ["Split", "load_cifar10"]
