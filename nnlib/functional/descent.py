"""One step of gradient descent, and the L2 penalty: what is done to every parameter after each batch."""

import numpy as np

from nnlib.functional.checks import Array

BLOCK = 32768  # numbers at a time: every pass over them after the first finds them in the cache


def momentum_step(
    parameter: Array, gradient: Array, velocity: Array, *, rate: float, momentum: float, nesterov: bool = False
) -> None:
    """Move a parameter one step, in place, and its velocity with it: v = momentum * v + g, then w -= rate * v.

    With ``nesterov`` the step is rate * (g + momentum * v). All three have one shape and lie without gaps. Source:
    Sutskever et al. 2013, section 2, in the form that deep-learning libraries share: the rate multiplies the velocity.
    """
    flat = [array.reshape(-1) for array in (parameter, gradient, velocity)]
    for start in range(0, parameter.size, BLOCK):
        w, g, v = (array[start : start + BLOCK] for array in flat)
        v *= momentum
        v += g
        w -= rate * (g + momentum * v if nesterov else v)


def add_decay(gradient: Array, parameter: Array, l2: float) -> None:
    """Add the gradient l2 * w of the penalty 0.5 * l2 * sum(w ** 2) to a parameter's gradient, in place."""
    gradient += gradient.dtype.type(l2) * parameter


def sum_of_squares(parameter: Array) -> float:
    """Return sum(w ** 2)."""
    return float(np.vdot(parameter, parameter))
