"""The names of `nnlib.functional`, compiled by numba; what would not gain is the NumPy function itself."""

from nnlib.functional import (
    global_avg_pool2d_backward,
    global_avg_pool2d_forward,
    log_softmax,
    softmax,
    softmax_cross_entropy,
)
from nnlib.kernels.convolution import conv2d_backward, conv2d_forward
from nnlib.kernels.elementwise import (
    add_decay,
    dropout_backward,
    dropout_forward,
    momentum_step,
    relu_backward,
    relu_forward,
    sum_of_squares,
)
from nnlib.kernels.linear import linear_backward, linear_forward
from nnlib.kernels.norm import batch_norm_backward, batch_norm_forward, normalize
from nnlib.kernels.pool import max_pool2d_backward, max_pool2d_forward

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
