"""Stochastic gradient descent with momentum."""

from collections.abc import Mapping
from dataclasses import dataclass

from nnlib import kernels
from nnlib.functional.checks import Array
from nnlib.schedules import Schedule


@dataclass(frozen=True)
class SGD:
    """Gradient descent with momentum, plain (Polyak) or Nesterov's.

    momentum: in [0, 1), or a schedule of it. The velocity is v = momentum * v + g and the step is -rate * v, with
    Nesterov -rate * (g + momentum * v). Source: Sutskever et al. 2013, section 2, in the form that deep-learning
    libraries share: the rate multiplies the velocity, so that a change of rate acts at once.
    """

    momentum: float | Schedule = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        if not callable(self.momentum) and not 0 <= self.momentum < 1:
            raise ValueError(f"SGD: momentum lies in [0, 1), got {self.momentum}")

    def momentum_at(self, epoch: float, epochs: int) -> float:
        """Return the momentum at a moment of training, in epochs."""
        return self.momentum(epoch, epochs) if callable(self.momentum) else float(self.momentum)

    def update(
        self,
        parameters: Mapping[str, Array],
        gradients: Mapping[str, Array],
        velocity: Mapping[str, Array],
        *,
        rate: float,
        momentum: float,
    ) -> None:
        """Move the parameters one step, in place; ``velocity`` holds an array for each parameter and is updated too."""
        for name, parameter in parameters.items():
            kernels.momentum_step(
                parameter, gradients[name], velocity[name], rate=rate, momentum=momentum, nesterov=self.nesterov
            )
