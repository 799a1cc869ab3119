"""The mathematics: forward and backward pairs, functions of arrays, in NumPy and nothing else."""

from nnlib.functional.activation import relu_backward, relu_forward
from nnlib.functional.dropout import dropout_backward, dropout_forward
from nnlib.functional.linear import linear_backward, linear_forward
from nnlib.functional.softmax import log_softmax, softmax, softmax_cross_entropy

__all__ = [
    "dropout_backward",
    "dropout_forward",
    "linear_backward",
    "linear_forward",
    "log_softmax",
    "relu_backward",
    "relu_forward",
    "softmax",
    "softmax_cross_entropy",
]
