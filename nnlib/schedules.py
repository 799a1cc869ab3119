"""Learning rates (or momenta) as functions of time.

A schedule is called with the moment in epochs (a fraction inside an epoch) and the number of epochs in all, so it
means the same whatever the batch size. Each is a frozen dataclass: it compares, prints and goes into a record.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

Schedule = Callable[[float, int], float]


_DIVISORS = ("every", "half", "share")


@dataclass(frozen=True)
class _Schedule:
    """What the schedules below have in common: their numbers are at least 0, those that divide above."""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if name in _DIVISORS and not value > 0:
                raise ValueError(f"{type(self).__name__}: expected {name} > 0, got {value}")
            if not callable(value) and not value >= 0:
                raise ValueError(f"{type(self).__name__}: expected {name} >= 0, got {value}")


@dataclass(frozen=True)
class Constant(_Schedule):
    """The same value throughout."""

    value: float

    def __call__(self, epoch: float, epochs: int) -> float:
        return self.value


@dataclass(frozen=True)
class Step(_Schedule):
    """``value`` multiplied by ``factor`` after every ``every`` epochs."""

    value: float
    factor: float = 0.1
    every: float = 10

    def __call__(self, epoch: float, epochs: int) -> float:
        return self.value * self.factor ** (epoch // self.every)


@dataclass(frozen=True)
class Exponential(_Schedule):
    """``value`` multiplied by ``factor`` for each epoch, continuously."""

    value: float
    factor: float = 0.95

    def __call__(self, epoch: float, epochs: int) -> float:
        return self.value * self.factor**epoch


@dataclass(frozen=True)
class Inverse(_Schedule):
    """``value`` / (1 + epoch / ``half``): half of it after ``half`` epochs, a third after twice as many.

    Its sum grows without bound and that of its squares does not, as Robbins and Monro 1951 (eq. 6 and 26) ask of steps
    that are to end at a minimum in spite of noise.
    """

    value: float
    half: float = 10

    def __call__(self, epoch: float, epochs: int) -> float:
        return self.value / (1 + epoch / self.half)


@dataclass(frozen=True)
class Linear(_Schedule):
    """A straight line from ``value`` to ``final`` over the first ``share`` of the training, then ``final``.

    For a momentum that grows, as Sutskever et al. 2013 (section 3) advise, while the rate falls.
    """

    value: float
    final: float
    share: float = 1.0

    def __call__(self, epoch: float, epochs: int) -> float:
        return self.value + (self.final - self.value) * min(1.0, epoch / (self.share * epochs))


@dataclass(frozen=True)
class Cosine(_Schedule):
    """Half a cosine from ``value`` to ``final`` over the whole training. Source: Loshchilov and Hutter 2017, eq. 5."""

    value: float
    final: float = 0.0

    def __call__(self, epoch: float, epochs: int) -> float:
        return _half_cosine(self.value, self.final, epoch / epochs)


@dataclass(frozen=True)
class OneCycle(_Schedule):
    """Half a cosine from ``start`` to ``peak`` in the first ``rise`` of the training, another down to ``final``.

    For the rate ``peak`` is the highest value; for the momentum, which runs against it, the lowest. Source: Smith 2018,
    section 5.
    """

    start: float
    peak: float
    final: float
    rise: float = 0.3

    def __call__(self, epoch: float, epochs: int) -> float:
        progress = epoch / epochs
        if progress < self.rise:
            return _half_cosine(self.start, self.peak, progress / self.rise)
        return _half_cosine(self.peak, self.final, (progress - self.rise) / (1 - self.rise))


@dataclass(frozen=True)
class WarmUp(_Schedule):
    """``schedule``, approached linearly from ``start`` times its value over the first ``warm`` epochs."""

    schedule: "Constant | Step | Exponential | Inverse | Linear | Cosine | OneCycle"
    warm: float = 1.0
    start: float = 0.0

    def __call__(self, epoch: float, epochs: int) -> float:
        share = min(1.0, epoch / self.warm) if self.warm else 1.0
        return self.schedule(epoch, epochs) * (self.start + (1 - self.start) * share)


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
