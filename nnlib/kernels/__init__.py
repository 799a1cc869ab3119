"""The functions that layers call: the names and signatures of `nnlib.functional`, compiled where that pays.

Nothing is compiled yet, so each name is its NumPy function.
"""

from nnlib.functional import (
    dropout_backward,
    dropout_forward,
    linear_backward,
    linear_forward,
    log_softmax,
    relu_backward,
    relu_forward,
    softmax,
    softmax_cross_entropy,
)

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
