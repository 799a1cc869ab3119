"""What a worker does: one trial of a study, a pure function of its parameters that tells of each epoch."""

import contextlib
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from nnlib import records
from nnlib.configuration import differences
from nnlib.data import Split
from nnlib.experiment import Experiment, build, describe_data, load_training_splits, make_solver
from nnlib.history import EpochRecord
from nnlib.solver import Callback, Solver
from nnlib.study import Parameters, State, Study

Report = Callable[[EpochRecord], bool]  # tells of an epoch and returns whether to stop


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, and what it was trained with."""

    state: State
    value: float | None
    epochs: list[EpochRecord]
    seconds: float
    data: dict[str, Any]  # as `describe_data` tells it
    machine: dict[str, Any]  # the worker's, as `records.machine` tells it


class Epoch(NamedTuple):
    """A trial's epoch is over; it goes on once ``answer`` was called with whether to stop."""

    number: int
    record: EpochRecord
    answer: Callable[[bool], None]


class Done(NamedTuple):
    """A trial has ended."""

    number: int
    outcome: Outcome


@dataclass(frozen=True)
class Task:
    """All that a worker must know to run a study's trials.

    splits: the training and validation data; None: the worker loads them from its own data root.
    versions: those that the results depend on, which must be the worker's; without ``splits`` with the sources', since
        such a worker may lie in another checkout.
    """

    study: Study
    versions: dict[str, Any]
    splits: tuple[Split, Split] | None = None

    def run(self, parameters: Parameters, report: Report) -> Outcome:
        """Train the trial's experiment; equal parameters give equal outcomes, on whichever worker of as many threads.

        Other threads, processors and BLAS may move the last bits, and these whatever follows in the training.
        A loss that is not finite ends the trial as diverged. Raises what loading the data and building the network
        raise, and ValueError for other versions than the client's.
        """
        if different := differences(versions(sources=self.splits is None), self.versions):
            raise ValueError(f"versions differ from the client's: {'; '.join(different)}; install the same")
        experiment = self.study.experiment(parameters)
        splits = self.splits or _loaded(experiment.data, experiment.train_size, experiment.val_size)
        watch, started = _Watch(report), time.perf_counter()
        solver = make_solver(experiment, build(experiment, splits[0]), splits, callbacks=(watch,))
        state: State = "diverged"
        with contextlib.suppress(FloatingPointError):
            solver.fit()
            state = "pruned" if watch.stopped and len(watch.epochs) < experiment.epochs else "complete"
        return Outcome(
            state,
            None if state == "diverged" else self._value(experiment, watch.epochs, state),
            watch.epochs,
            round(time.perf_counter() - started, 3),
            describe_data({"train": splits[0], "val": splits[1]}),
            records.machine(),
        )

    def _value(self, experiment: Experiment, epochs: list[EpochRecord], state: State) -> float:
        """Return the objective after the last epoch, or after that whose weights early stopping keeps."""
        judged = epochs[-1]
        if experiment.stopping is not None and state == "complete":
            best = -math.inf
            for epoch in epochs:
                if experiment.stopping.improved(epoch, best):
                    judged, best = epoch, experiment.stopping.score(epoch)
        return float(getattr(judged, self.study.objective))


def versions(*, sources: bool = False) -> dict[str, Any]:
    """Return the versions that a trial's outcome depends on; with ``sources`` also which sources nnlib is."""
    return {**records.versions(), "nnlib numerics": records.NUMERICS, **({"nnlib": _SOURCES} if sources else {})}


def _digest_of(folder: Path) -> str:
    """Return twelve hexadecimal digits that stand for a package's modules and their names."""
    digest = hashlib.sha256()
    for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py")):
        digest.update(f"{name}\n".encode() + (folder / name).read_bytes())
    return digest.hexdigest()[:12]


_SOURCES = _digest_of(Path(__file__).parent)  # read as this module is, since files may change under a long search


class _Watch(Callback):
    """Reports each epoch, and stops the training where it is told to."""

    def __init__(self, report: Report) -> None:
        self.report, self.stopped = report, False
        self.epochs: list[EpochRecord] = []

    def on_epoch(self, solver: Solver) -> None:
        number, *values = solver.history.epochs[-1]
        if not all(map(math.isfinite, values)):
            raise FloatingPointError(f"a loss after epoch {number} is not finite")
        self.epochs.append(EpochRecord(number, *(float(f"{value:.6g}") for value in values)))
        if self.report(self.epochs[-1]):
            self.stopped = True
            solver.stop()


@lru_cache(maxsize=1)
def _loaded(data: str, train_size: int | None, val_size: int) -> tuple[Split, Split]:
    """A study's data, kept for the trials that follow in the same process."""
    return load_training_splits(Experiment(data, (), 1, train_size=train_size, val_size=val_size))
