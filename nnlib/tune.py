"""Searches: the named studies run trial by trial on workers, and leave their results as experiments leave records.

One loop serves processes on this machine and a Dask cluster. The client asks Optuna for parameters, hands them out,
hears of epochs and ends, and tells Optuna. Only the client writes, so workers may be many, and die; the journal holds
all that was told, so that after the client's own death the same call continues the search.
"""

import dataclasses
import json
import os
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna

from nnlib import checkpoint, experiments, progress, records, studies
from nnlib.experiment import load_training_splits
from nnlib.experiments import Profile
from nnlib.history import EpochRecord
from nnlib.journal import Journal, restored
from nnlib.study import Parameters, Plain, Study, Trial
from nnlib.trial import Done, Epoch, Task, versions
from nnlib.workers import LocalWorkers, cores


@dataclass(frozen=True)
class StudyResult:
    """The result of a search and all that it depended on."""

    name: str
    profile: str
    declared: Study
    numerics: int  # the library's numerics version
    data: dict[str, Any]  # source: in words; synthetic: bool; classes; fingerprints and sizes of train and val
    trials: list[Trial]  # by number; each has ended
    seconds: float  # wall time of the search, pauses apart
    workers: int  # trials at once, when it was last continued
    versions: dict[str, Any]
    machines: list[dict[str, Any]]  # that the trials ran on

    @property
    def source(self) -> str:
        """Where the data comes from, for captions."""
        return records.source_of(self.data)

    @property
    def best(self) -> Trial:
        """The complete trial with the best value, the first of equals. Raises ValueError where none is complete."""
        if ranked := self.ranked():
            return ranked[0]
        raise ValueError(f"{self.name}: no trial was completed; lower the rates, or prune less")

    def ranked(self) -> list[Trial]:
        """Return the complete trials, the best first."""
        sign = -1 if self.declared.direction == "maximize" else 1
        values = {t.number: sign * t.value for t in self.trials if t.state == "complete" and t.value is not None}
        return [self.trials[number] for number in sorted(values, key=values.__getitem__)]

    def settings(self) -> dict[tuple[Plain, ...], list[Trial]]:
        """Return the trials by their parameters other than the seed, in the order of the numbers."""
        groups: dict[tuple[Plain, ...], list[Trial]] = {}
        for trial in self.trials:
            groups.setdefault(tuple(v for key, v in trial.parameters.items() if key != "seed"), []).append(trial)
        return groups

    def table(self, rows: int) -> list[list[str]]:
        """Return the best trials as lines of text, the heads of the columns first."""
        heads = ["trial", self.declared.objective, *self.declared.space]
        lines = [[t.number, t.value, *(t.parameters[path] for path in self.declared.space)] for t in self.ranked()]
        return [heads, *([_shown(value) for value in line] for line in lines[:rows])]

    def summary(self) -> str:
        """Return how many trials ended in which way, and how long the search took, in a line."""
        states = Counter(trial.state for trial in self.trials)
        ends = ", ".join(f"{count} {state}" for state, count in states.items())
        return f"{len(self.trials)} trials ({ends}) in {self.seconds:,.1f} s, {self.workers} at once"

    def study(self) -> optuna.Study:
        """Return the search as an Optuna study in memory, for Optuna's plots and importances."""
        return restored(self.declared, self.trials)


def run(
    name: str,
    profile: Profile = "quick",
    *,
    workers: int | None = None,
    trials: int | None = None,
    dask: str | None = None,
    root: str | Path | None = None,
) -> StudyResult:
    """Return the result of a named study: the stored one where it matches, else by searching, continued if cut off.

    ``workers``: processes on this machine, by default one for each core, which share out the cores as threads; a search
    that is continued keeps the threads of its start, as another number of them may move the results' last bits.
    ``trials``: another number of them than declared; the result then lies with the runs, under a name of its own.
    ``dask``: the address of a scheduler, whose workers are then used, one thread a trial, with the data of their own
    roots. ``root``: the data root. What counts as a match is as for `experiments.run`. Raises ValueError for an unknown
    study, numbers below 1, a broken journal and one of other versions, OSError for a search that another process runs,
    absent data and a scheduler that does not answer, RuntimeError for a trial that fails.
    """
    study = declared = studies.find(name, profile)
    if trials not in (None, declared.budget):
        study = dataclasses.replace(declared, trials=trials)
    if workers is not None and workers < 1:
        raise ValueError(f"tune: expected at least 1 worker, got {workers}")
    if dask is not None and (workers, root) != (None, None):
        raise ValueError("tune: the workers of a cluster, and their data roots, are chosen where they are started")
    journal_path = _journal_path(name, profile, study)
    if study is not declared:
        name = f"{name}-{experiments.digest(study)}"
    if (result := _current(name, profile, study)) is None:
        with closing(Journal(journal_path, study)) as journal:
            # Before the journal was ours another process may have ended the search.
            if (result := _current(name, profile, study)) is None:
                _search(study, journal, workers or cores(), dask, root)
                result = _result(name, profile, study, journal)
                _save(result, path_of(name, profile))
            journal_path.unlink(missing_ok=True)
    return result


def _current(name: str, profile: Profile, study: Study) -> StudyResult | None:
    """Return the stored result if it matches and is young enough."""
    result = stored(name, profile, study)
    if result and path_of(name, profile).stat().st_mtime < float(os.environ.get("NNLIB_RETRAIN", 0)):
        return None
    return result


def _search(study: Study, journal: Journal, workers: int, dask: str | None, root: str | Path | None) -> None:
    """Run the trials that are left."""
    left = study.budget - len(journal.trials())
    if not left:
        return
    # Not shared out among the trials that are left: a search that is continued would get other threads.
    threads = journal.begin(versions(), max(1, cores() // min(workers, study.budget)) if dask is None else 1)
    engine: Engine
    if dask is None:
        task = Task(study, versions(), load_training_splits(study.base, root))
        engine = LocalWorkers(task, min(workers, left), threads)
    else:
        engine = _cluster(Task(study, versions(sources=True)), dask)
    with closing(engine):
        journal.note(workers=min(engine.slots, study.budget))
        _loop(study, journal, engine)


class Engine(Protocol):
    """What runs trials: `nnlib.workers.LocalWorkers`, `nnlib.cluster.DaskWorkers`. It raises what goes wrong."""

    @property
    def slots(self) -> int:
        """How many trials can run at once."""

    def submit(self, number: int, parameters: Parameters) -> None:
        """Have a trial run."""

    def next(self) -> Epoch | Done:
        """Wait for what happens next: the end of an epoch, which must be answered, or of a trial."""

    def close(self) -> None:
        """End what runs."""


def _loop(study: Study, journal: Journal, engine: Engine) -> None:
    """Ask, hand out, listen and tell until every trial has ended."""
    before, started = journal.told.get("seconds", 0.0), time.perf_counter()
    waiting, running, ended = journal.unfinished(), set[int](), len(journal.trials())
    with progress.bar(study.budget, "trial", done=ended, leave=True) as bar:
        while ended < study.budget:
            while len(running) < engine.slots and (waiting or journal.asked < study.budget):
                number, parameters = waiting.pop(0) if waiting else journal.ask()
                engine.submit(number, parameters)
                running.add(number)
            match engine.next():
                case Epoch(number, record, answer):
                    # A worker that was taken for dead may go on with a trial that has ended elsewhere.
                    answer(number not in running or journal.report(number, record))
                    bar.set_postfix(trial=number, epoch=record.epoch, val_accuracy=f"{record.val_accuracy:.3f}")
                case Done(number, outcome):
                    journal.tell(number, outcome, round(before + time.perf_counter() - started, 3))
                    running.remove(number)
                    ended += 1
                    bar.update()


def _cluster(task: Task, address: str) -> Engine:
    try:
        from nnlib.cluster import DaskWorkers  # an extra
    except ImportError as error:
        install = 'pip install -c constraints.txt -e ".[dask]"'
        raise ImportError(f"tune: a cluster needs dask.distributed ({error}): {install}") from error
    return DaskWorkers(task, address)


def stored(name: str, profile: Profile, study: Study) -> StudyResult | None:
    """Return the stored result if there is one of this study and numerics version. Raises ValueError if changed."""
    path = path_of(name, profile)
    if not path.exists():
        return None
    body = records.unsealed(path)
    config = body.pop("config")
    same = {**config, "base": experiments.up_to_date(config["base"])} == experiments.plain(study)
    same = same and json.dumps(config["space"]) == _in_order(study)
    if not same or body["numerics"] != records.NUMERICS:
        return None
    trials = [
        Trial(number, parameters, state, value, [EpochRecord(*epoch) for epoch in epochs], seconds)
        for number, parameters, state, value, epochs, seconds in body.pop("trials")
    ]
    return StudyResult(**body, declared=study, trials=trials)


def _shown(value: Plain) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def path_of(name: str, profile: Profile) -> Path:
    """Return where a result is stored: a declared study's with the profile's records, another's with the runs."""
    folder = experiments.record_folder(profile) if name in studies.STUDIES else experiments.runs_root() / "records"
    return folder / "studies" / f"{name}.json"


def _journal_path(name: str, profile: Profile, study: Study) -> Path:
    digest = experiments.digest([study, _in_order(study), records.NUMERICS])
    return experiments.runs_root() / "studies" / f"{profile}-{name}-{digest}.journal"


def _in_order(study: Study) -> str:
    """Return the space as text: in which order it and its options are declared decides which trial is which."""
    return json.dumps(experiments.plain(study.space))


def _result(name: str, profile: Profile, study: Study, journal: Journal) -> StudyResult:
    return StudyResult(
        name=name,
        profile=profile,
        declared=study,
        numerics=records.NUMERICS,
        data=journal.told["data"],
        trials=journal.trials(),
        seconds=journal.told["seconds"],
        workers=journal.told["workers"],
        versions=journal.told["versions"],
        machines=journal.told["machines"],
    )


def _save(result: StudyResult, path: Path) -> None:
    """Write a result, sealed, a trial a line. Raises OSError."""
    body = {key: value for key, value in vars(result).items() if key not in ("declared", "trials")}
    body = records.sealed({**body, "config": experiments.plain(result.declared), "trials": result.trials})
    lines = {key: json.dumps(value) for key, value in body.items()}
    lines["trials"] = "[\n" + ",\n".join(map(json.dumps, result.trials)) + "\n]"
    text = ",\n".join(f"{json.dumps(key)}: {line}" for key, line in lines.items())
    checkpoint.write_bytes(path, f"{{\n{text}\n}}\n".encode())
