"""Neural networks from scratch in NumPy, to read, run, play with and print."""

from nnlib import schedules
from nnlib.network import Network, Residual, Sequential, load
from nnlib.optim import SGD
from nnlib.predict import predict_folder
from nnlib.solver import Solver
from nnlib.stopping import EarlyStopping
from nnlib.torchvision import load_torchvision

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "EarlyStopping",
    "Network",
    "Residual",
    "Sequential",
    "Solver",
    "load",
    "load_torchvision",
    "predict_folder",
    "schedules",
]
