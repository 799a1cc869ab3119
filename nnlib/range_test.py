"""A search for the learning rate in one short run: the rate grows until the loss explodes."""

import contextlib
import math
from typing import NamedTuple

import numpy as np

from nnlib.data.split import Split
from nnlib.functional.checks import Array
from nnlib.network import Network
from nnlib.optim import SGD
from nnlib.solver import Callback, Solver

SMOOTHING = 0.9  # of the running mean's weight stays at each step: about ten steps are averaged
EXPLODED = 4  # times the least loss: the test ends


class RangeTest(NamedTuple):
    """The loss of each step beside the rate it was taken with."""

    rates: Array  # (S,) learning rates, growing by the same factor
    losses: Array  # (S,) mean cross-entropy of the batch before the step, nats
    smoothed: Array  # (S,) running mean of the losses

    @property
    def suggestion(self) -> float:
        """A rate to train with: a tenth of that at the least smoothed loss.

        Where the loss is least it is about to explode, and what was still harmless for a few steps may not be for long.
        Source: the rule ``minimum`` of fastai's learning-rate finder (Howard and Gugger 2020).
        """
        return float(self.rates[self.smoothed.argmin()] / 10)


def range_test(
    network: Network,
    train: Split,
    *,
    low: float = 1e-5,
    high: float = 10.0,
    steps: int = 200,
    optimizer: SGD = SGD(),
    batch_size: int = 128,
    seed: int = 0,
) -> RangeTest:
    """Train a copy of the network for ``steps`` steps while the rate grows geometrically from ``low`` to ``high``.

    The test ends early where the smoothed loss exceeds four times its least or is not finite. Raises ValueError unless
    0 < low < high, steps > 1 and batch_size > 0, FloatingPointError where not even the first step has a finite loss.
    Source: Smith 2017 (Cyclical learning rates), section 3.3; the geometric growth and the end are fastai's.
    """
    if not 0 < low < high or steps < 2 or batch_size < 1:
        raise ValueError(
            "range_test: expected 0 < low < high, steps > 1 and batch_size > 0, "
            f"got {low}, {high}, {steps} and {batch_size}"
        )
    batches = math.ceil(len(train) / batch_size)

    def schedule(epoch: float, epochs: int) -> float:
        return float(low * (high / low) ** (epoch * batches / (steps - 1)))

    watch = _Explosion(steps)
    copy = network.astype(network.vector.dtype)
    solver = Solver(
        copy, train, optimizer=optimizer, schedule=schedule, epochs=math.ceil(steps / batches),
        batch_size=batch_size, seed=seed, callbacks=[watch],
    )  # fmt: skip
    with contextlib.suppress(FloatingPointError):
        solver.fit()
    done = solver.history.steps
    if not done:
        raise FloatingPointError(f"range_test: the loss is not finite at the first step, rate {low:g}")
    return RangeTest(np.array([s.rate for s in done]), np.array([s.loss for s in done]), np.array(watch.smoothed))


class _Explosion(Callback):
    """Smooths the loss, and ends the run after a number of steps or when the loss explodes."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.smoothed: list[float] = []
        self._mean = 0.0

    def on_step(self, solver: Solver) -> None:
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * solver.history.steps[-1].loss
        # The running mean starts at 0; divided by the weights so far it is a mean from the first step on.
        self.smoothed.append(self._mean / (1 - SMOOTHING ** (len(self.smoothed) + 1)))
        if len(self.smoothed) >= self.steps or self.smoothed[-1] > EXPLODED * min(self.smoothed):
            solver.stop()
