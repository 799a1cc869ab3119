"""A search's Optuna study in a file: what was asked and told, by one process at a time, and safe from its death."""

import fcntl
import itertools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from nnlib.configuration import differences
from nnlib.history import EpochRecord
from nnlib.study import Parameters, Study, Trial
from nnlib.trial import Outcome


class JournalFile(BaseJournalBackend):
    """Optuna's journal, a line of JSON for each change, in a file that is locked while it is open.

    The kernel lifts the lock when the process ends, in whichever way, and as nobody else writes, a line needs no lock
    of its own. A last line that was cut off while it was written is dropped. Raises OSError where another process
    holds the file, where it cannot be written, and ValueError where it is no journal.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._file = path, path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._logs = self._read()
        except BlockingIOError:
            self.close()
            raise OSError(f"{path}: another process runs this search; wait for its end, or stop it") from None
        except BaseException:
            self.close()
            raise

    def _read(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        *lines, cut = self._file.read().split(b"\n")
        try:
            logs = [json.loads(line) for line in lines]
            if cut and not cut.startswith(b"{"):
                raise ValueError("its last line is no record")
        except ValueError as error:
            raise _broken(self.path, error) from error
        if cut:
            self._file.truncate(self._file.tell() - len(cut))
        return logs

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return the changes from the so many-th on."""
        return itertools.islice(self._logs, log_number_from, None)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write changes, and return when they are on the disk. Raises OSError."""
        lines = [json.dumps(log) for log in logs]
        left = "".join(f"{line}\n" for line in lines).encode()
        end = self._file.seek(0, os.SEEK_END)
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(end)
            told = f"could not write {self.path}: {error.strerror}; make room, and the same search continues"
            raise OSError(error.errno, told) from error
        self._logs += map(json.loads, lines)

    def close(self) -> None:
        """Let others have the file."""
        self._file.close()


def _broken(path: Path, error: Exception) -> ValueError:
    """Return what to raise for a file that is no journal."""
    reason = str(error) or type(error).__name__
    return ValueError(
        f"{path}: expected the journal of a search, got a damaged or another file ({reason}); "
        "move it away to start the search anew"
    )


class Journal:
    """A search under way. A trial's number stays its own through every restart, and it ends once."""

    def __init__(self, path: Path, study: Study) -> None:
        self._declared, self._file = study, JournalFile(path)
        try:
            self._storage = JournalStorage(self._file)
            self._study = new_study(study, self._storage, path.stem)
            self._trials: dict[int, optuna.Trial] = {}
            self._asked = len(self._with(TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED))
        except (LookupError, TypeError, AttributeError, AssertionError, ValueError) as error:
            self.close()
            raise _broken(path, error) from error
        except BaseException:
            self.close()
            raise

    def begin(self, versions: dict[str, Any], threads: int) -> int:
        """Write down what the search is started with, and return how many threads a worker had at the first start.

        Raises ValueError where it was started with other versions: their results do not mix.
        """
        if not self._asked:
            self.note(versions=versions, threads=threads)
        if different := differences(versions, self.told["versions"]):
            raise ValueError(
                f"{self._file.path}: the search was started with other versions: {'; '.join(different)}; "
                "install the same, or move the file away to start the search anew"
            )
        return self.told["threads"]

    def note(self, **facts: Any) -> None:
        """Write down what holds for all trials, instead of what was written before."""
        for name, fact in facts.items():
            self._study.set_user_attr(name, fact)

    def unfinished(self) -> list[tuple[int, Parameters]]:
        """Return the trials that an earlier process asked for and did not end, to be run again."""
        return [self._taken_up(self._reopened(frozen.number)) for frozen in self._with(TrialState.RUNNING)]

    @property
    def asked(self) -> int:
        """How many trials have begun."""
        return self._asked

    def ask(self) -> tuple[int, Parameters]:
        """Begin the next trial and return its number and parameters.

        Of a grid and of a random search these depend on the number alone, so they are put into Optuna's queue; the
        estimator of a later search looks at what was told, and draws anew for each number.
        """
        self._asked += 1
        number = self._asked - 1
        known = self._known(number)
        if known is None:
            # As many random trials first as a small budget can spare: the default of ten could be all of it.
            random = max(3, self._declared.budget // 4)
            seed = _seed(self._declared, number)
            self._study.sampler = optuna.samplers.TPESampler(n_startup_trials=random, seed=seed)
        elif not self._with(TrialState.WAITING):
            self._study.enqueue_trial(known)
        return self._taken_up(self._study.ask())

    def _known(self, number: int) -> Parameters | None:
        match self._declared.sampler:
            case "grid":
                return self._declared.point(number)
            case "random":
                sampler = optuna.samplers.RandomSampler(seed=_seed(self._declared, number))
                return self._declared.suggest(new_study(self._declared, sampler=sampler).ask())
        return None

    def _taken_up(self, trial: optuna.Trial) -> tuple[int, Parameters]:
        self._trials[trial.number] = trial
        return trial.number, self._declared.suggest(trial)

    def _reopened(self, number: int) -> optuna.Trial:
        study_id = self._storage.get_study_id_from_name(self._study.study_name)
        return optuna.Trial(self._study, self._storage.get_trial_id_from_study_id_trial_number(study_id, number))

    def report(self, number: int, epoch: EpochRecord) -> bool:
        """Write down an epoch of a running trial and tell whether the trial is hopeless.

        A trial that runs again is asked about only from the epoch on that it had not reached.
        """
        trial = self._trials[number]
        known = self._study.get_trials(deepcopy=False)[number].intermediate_values
        if epoch.epoch in known:
            return False
        trial.report(getattr(epoch, self._declared.objective), epoch.epoch)
        return trial.should_prune()

    def tell(self, number: int, outcome: Outcome, seconds: float) -> None:
        """End a trial. ``seconds`` is the wall time that the search has taken so far, pauses apart.

        A diverged trial is told as pruned, so that the estimator keeps away from its like. Raises ValueError for a
        trial on other data than those before.
        """
        told = self.told
        data, machines = told.get("data", outcome.data), told.get("machines", [])
        ours, theirs = outcome.data["fingerprints"], data["fingerprints"]
        if ours != theirs:
            raise ValueError(
                f"trial {number} saw other data ({outcome.data['source']}, fingerprints {ours}) than those before it "
                f"({data['source']}, {theirs}); use one copy, or move {self._file.path} away to start anew"
            )
        if not machines:
            self.note(data=data)
        if outcome.machine not in machines:
            self.note(machines=[*machines, outcome.machine])
        self.note(seconds=seconds)
        trial = self._trials.pop(number)
        trial.set_user_attr("outcome", [outcome.state, outcome.value, outcome.epochs, outcome.seconds])
        self._study.tell(trial, outcome.value if outcome.state == "complete" else None, _STATES[outcome.state])

    @property
    def told(self) -> dict[str, Any]:
        """What holds for all trials: versions, threads, data, machines, workers, and the seconds that it all took."""
        return self._study.user_attrs

    def trials(self) -> list[Trial]:
        """Return the trials that have ended, by number."""
        return [_ended(frozen) for frozen in self._with(TrialState.COMPLETE, TrialState.PRUNED)]

    def _with(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def close(self) -> None:
        """Let another process continue the search."""
        self._file.close()


_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "diverged": TrialState.PRUNED}


def _ended(frozen: FrozenTrial) -> Trial:
    state, value, epochs, seconds = frozen.user_attrs["outcome"]
    return Trial(frozen.number, frozen.params, state, value, [EpochRecord(*epoch) for epoch in epochs], seconds)


def restored(study: Study, trials: Iterable[Trial]) -> optuna.Study:
    """Return an Optuna study in memory that holds trials which have ended."""
    result = new_study(study)
    for trial in trials:
        fixed = optuna.trial.FixedTrial(dict(trial.parameters), trial.number)
        study.suggest(fixed)
        values = {epoch.epoch: getattr(epoch, study.objective) for epoch in trial.epochs}
        result.add_trial(
            optuna.trial.create_trial(
                state=_STATES[trial.state],
                value=trial.value,
                params=fixed.params,
                distributions=fixed.distributions,
                intermediate_values=values,
                user_attrs={"state": trial.state},
            )
        )
    return result


def new_study(
    study: Study,
    storage: BaseStorage | None = None,
    name: str | None = None,
    sampler: optuna.samplers.BaseSampler | None = None,
) -> optuna.Study:
    """Return Optuna's form of a study, in memory unless a storage is given: there the one of that name, continued."""
    pruners = {
        None: optuna.pruners.NopPruner(),
        # The first quarter tells little: rates warm up, and large ones look bad at first.
        "median": optuna.pruners.MedianPruner(n_warmup_steps=study.base.epochs // 4),
        "hyperband": optuna.pruners.HyperbandPruner(max_resource=study.base.epochs),
    }
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it logs that a study was made
    try:
        return optuna.create_study(
            study_name=name,
            storage=storage,
            sampler=sampler or optuna.samplers.RandomSampler(seed=0),
            pruner=pruners[study.pruner],
            direction=study.direction,
            load_if_exists=True,
        )
    finally:
        optuna.logging.set_verbosity(verbosity)


def _seed(study: Study, number: int) -> int:
    """Return a seed of Optuna's 32 bits for a trial."""
    return int(np.random.SeedSequence((study.seed, number)).generate_state(1)[0])
