"""What a search is: an experiment, what of it varies and within which bounds, and how the trials are chosen."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from nnlib.experiment import Experiment
from nnlib.history import EpochRecord, History

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Plain = str | int | float | bool | None
Parameters = dict[str, Plain]  # of one trial: what a table shows, by the paths of the study's space


@dataclass(frozen=True)
class Choice:
    """One of several options: plain values, or any values under the names that a table shows."""

    options: Mapping[str, Any] | tuple[Plain, ...]

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"Choice: expected options that differ, at least one, got {self.options!r}")
        if not all(name is None or isinstance(name, str | int | float | bool) for name in self.names):
            raise ValueError(f"Choice: options other than plain values need names, as in a dict; got {self.options!r}")

    @property
    def names(self) -> tuple[Plain, ...]:
        """What a trial's parameter can be."""
        return tuple(self.options)

    def value(self, parameter: Any) -> Any:
        """Return what the parameter stands for in the experiment."""
        return self.options[parameter] if isinstance(self.options, Mapping) else parameter

    def suggest(self, trial: "BaseTrial", name: str) -> Plain:
        """Return the parameter that Optuna suggests."""
        return trial.suggest_categorical(name, self.names)


@dataclass(frozen=True)
class _Range:
    """Numbers from ``low`` to ``high``, both included."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"{type(self).__name__}: expected low <= high, got {self.low} and {self.high}")

    @property
    def names(self) -> tuple[Plain, ...]:
        return self.low, self.high

    def value(self, parameter: Any) -> Any:
        return parameter


@dataclass(frozen=True)
class Uniform(_Range):
    """A number between two, each as likely as the other."""

    def suggest(self, trial: "BaseTrial", name: str) -> Plain:
        """Return the parameter that Optuna suggests."""
        return trial.suggest_float(name, self.low, self.high)


@dataclass(frozen=True)
class LogUniform(_Range):
    """A number between two above 0, its logarithm uniform: for learning rates and penalties."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low <= 0:
            raise ValueError(f"LogUniform: expected low > 0, got {self.low}")

    def suggest(self, trial: "BaseTrial", name: str) -> Plain:
        """Return the parameter that Optuna suggests."""
        return trial.suggest_float(name, self.low, self.high, log=True)


@dataclass(frozen=True)
class Integers(_Range):
    """A whole number between two, both included."""

    low: int
    high: int

    def suggest(self, trial: "BaseTrial", name: str) -> Plain:
        """Return the parameter that Optuna suggests."""
        return trial.suggest_int(name, self.low, self.high)


Dimension = Choice | Uniform | LogUniform | Integers
_FIXED = ("data", "train_size", "val_size")  # trials are compared, so they see the same data


@dataclass(frozen=True)
class Study:
    """A search: ``base`` with the fields named in ``space`` replaced, trial by trial.

    space: dimensions by the path of a field, as "dropout", "schedule.value" or "optimizer.momentum"; replaced in the
        order given.
    trials: how many; None for all of a grid.
    sampler: "grid", every combination of Choices in order, the last varying fastest; "random"; or "tpe", the
        tree-structured Parzen estimator (Bergstra et al. 2011). Of the first two, trial i of a seed is always the same.
    pruner: what ends hopeless trials early: "median" (below the median of those before at the same epoch), "hyperband"
        (Li et al. 2018), or None.
    objective: what is judged on the validation data, after the last epoch or, where the experiment stops early, after
        the epoch whose weights are kept.

    Raises ValueError for a path that is no field, for bounds that an experiment refuses, and for what does not go
    together.
    """

    base: Experiment
    space: dict[str, Dimension]
    trials: int | None = None
    sampler: Literal["grid", "random", "tpe"] = "grid"
    pruner: Literal["median", "hyperband"] | None = None
    objective: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (
            ("sampler", ("grid", "random", "tpe")),
            ("pruner", (None, "median", "hyperband")),
            ("objective", ("val_accuracy", "val_loss")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"study: expected {name} to be one of {known}, got {getattr(self, name)!r}")
        if not self.space or set(self.space) & set(_FIXED):
            raise ValueError(f"study: expected a space, and not of {', '.join(_FIXED)}; got {', '.join(self.space)}")
        self._check_trials()
        # One dimension at a time at its options or its ends, so that a wrong one is found before the search.
        first = {path: dimension.names[0] for path, dimension in self.space.items()}
        for path, dimension in self.space.items():
            for parameter in dimension.names:
                self.experiment({**first, path: parameter})

    def _check_trials(self) -> None:
        if self.sampler == "grid":
            others = [path for path, dimension in self.space.items() if not isinstance(dimension, Choice)]
            if others:
                raise ValueError(f"study: a grid is made of Choices; {', '.join(others)} is none")
        most = self.grid_size if self.sampler == "grid" else math.inf
        trials = most if self.trials is None else self.trials
        if not 1 <= trials <= most or trials == math.inf:
            limit = f", at most {most} for this grid" if self.sampler == "grid" else ""
            raise ValueError(f"study: expected at least 1 trial{limit}, got {self.trials}")

    @property
    def budget(self) -> int:
        """How many trials there are."""
        return self.grid_size if self.trials is None else self.trials

    @property
    def grid_size(self) -> int:
        """How many combinations of options there are."""
        return math.prod(len(dimension.names) for dimension in self.space.values())

    def point(self, number: int) -> Parameters:
        """Return the parameters of a grid's trial."""
        names = (dimension.names for dimension in self.space.values())
        return dict(zip(self.space, next(itertools.islice(itertools.product(*names), number, None)), strict=True))

    def experiment(self, parameters: Parameters) -> Experiment:
        """Return the experiment of a trial."""
        if set(parameters) != set(self.space):
            raise ValueError(f"study: expected parameters {', '.join(self.space)}, got {', '.join(parameters)}")
        experiment = self.base
        for path, dimension in self.space.items():
            experiment = _replaced(experiment, path, dimension.value(parameters[path]))
        return experiment

    def suggest(self, trial: "BaseTrial") -> Parameters:
        """Return the parameters that Optuna suggests for a trial."""
        return {path: dimension.suggest(trial, path) for path, dimension in self.space.items()}

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Which way the objective improves, in Optuna's words."""
        return "maximize" if self.objective == "val_accuracy" else "minimize"


State = Literal["complete", "pruned", "diverged"]


class Trial(NamedTuple):
    """One trial as it ended."""

    number: int  # counted from 0
    parameters: Parameters
    state: State  # diverged: a loss was not finite
    value: float | None  # of the objective; of a pruned trial after its last epoch; None where it diverged
    epochs: list[EpochRecord]  # those whose losses are finite, to six digits
    seconds: float  # that the training took

    @property
    def history(self) -> History:
        """The epochs as a solver's history, without steps."""
        return History(epochs=self.epochs)


def _replaced(setting: Any, path: str, value: Any) -> Any:
    """Return a dataclass with the field at a dotted path replaced. Raises ValueError where there is none."""
    name, _, rest = path.partition(".")
    if not dataclasses.is_dataclass(setting) or name not in {field.name for field in dataclasses.fields(setting)}:
        raise ValueError(f"study: {path!r} is no field of {setting!r}")
    if rest:
        value = _replaced(getattr(setting, name), rest, value)
    return dataclasses.replace(setting, **{name: value})  # type: ignore[type-var]
