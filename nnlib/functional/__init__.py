"""The mathematics: forward and backward pairs, functions of arrays, in NumPy and nothing else."""

from nnlib.functional.activation import relu_backward, relu_forward
from nnlib.functional.conv import conv2d_backward, conv2d_forward
from nnlib.functional.descent import add_decay, momentum_step, sum_of_squares
from nnlib.functional.dropout import dropout_backward, dropout_forward
from nnlib.functional.linear import linear_backward, linear_forward
from nnlib.functional.norm import batch_norm_backward, batch_norm_forward, normalize
from nnlib.functional.pool import (
    global_avg_pool2d_backward,
    global_avg_pool2d_forward,
    max_pool2d_backward,
    max_pool2d_forward,
)
from nnlib.functional.softmax import log_softmax, softmax, softmax_cross_entropy

__all__ = [
    "add_decay",
    "batch_norm_backward",
    "batch_norm_forward",
    "conv2d_backward",
    "conv2d_forward",
    "dropout_backward",
    "dropout_forward",
    "global_avg_pool2d_backward",
    "global_avg_pool2d_forward",
    "linear_backward",
    "linear_forward",
    "log_softmax",
    "max_pool2d_backward",
    "max_pool2d_forward",
    "momentum_step",
    "normalize",
    "relu_backward",
    "relu_forward",
    "softmax",
    "softmax_cross_entropy",
    "sum_of_squares",
]
