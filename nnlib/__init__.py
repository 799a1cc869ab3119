"""Neural networks from scratch in NumPy, to read, run, play with and print."""

from nnlib import schedules
from nnlib.network import Network, Residual, Sequential, load
from nnlib.optim import SGD
from nnlib.solver import Solver
from nnlib.stopping import EarlyStopping

__version__ = "0.1.0"

# Raised by a change that moves results in the last bit: records of another numerics version are trained anew.
NUMERICS = 1

__all__ = [
    "NUMERICS",
    "SGD",
    "EarlyStopping",
    "Network",
    "Residual",
    "Sequential",
    "Solver",
    "load",
    "schedules",
]
