"""The data sets: loaders that return a Split, embedded synthetic sets, and augmentation."""

from .cifar10 import load_cifar10
from .fer2013 import load_fer2013
from .split import Split

__all__ = ["Split", "load_cifar10", "load_fer2013"]
