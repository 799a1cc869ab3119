"""Searches: what a study is, what its journal survives, and that workers change nothing about its result."""

import dataclasses
import json
import os
import queue
import resource
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import optuna
import pytest
from data_files import write_fer_csv
from nbclient import NotebookClient

from nnlib import SGD, EarlyStopping, cli, experiment, studies, trial, tune
from nnlib.data import Split
from nnlib.experiment import Experiment
from nnlib.history import EpochRecord
from nnlib.journal import Journal
from nnlib.schedules import Constant, Cosine
from nnlib.study import Choice, Integers, LogUniform, Study, Uniform
from nnlib.trial import Done, Epoch, Outcome, Task, versions
from nnlib.workers import LocalWorkers

TINY = Experiment("shapes10", (8,), epochs=2, train_size=200, val_size=50, batch_size=20)
RANDOM = Study(
    TINY,
    {
        "schedule": Choice({"constant": Constant(0.01), "cosine": Cosine(0.01)}),
        "schedule.value": LogUniform(1e-4, 1e-1),
        "dropout": Uniform(0.0, 0.5),
        "batch_size": Integers(10, 50),
    },
    trials=5,
    sampler="random",
)


@pytest.fixture
def home(checkout, monkeypatch):
    """A checkout of its own, few images, and workers that start fast."""
    monkeypatch.setenv("NNLIB_KERNELS", "numpy")
    use_data(monkeypatch, 0)
    declare(monkeypatch, RANDOM)
    return checkout


def declare(monkeypatch, study):
    monkeypatch.setitem(studies.STUDIES, "tiny", {"quick": study, "full": study})


def use_data(monkeypatch, seed):
    def load(name, split, *, root=None):
        assert split == "train", "a search looked at the test images"
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 4, size=300)
        images = (60 * labels[:, None, None, None] + rng.integers(0, 90, size=(300, 4, 4, 3))).astype(np.uint8)
        return Split(images, labels, tuple("abcd"), source="clouds, train images, synthetic", synthetic=True)

    monkeypatch.setattr(experiment.data, "load", load)


def outcome(*values, state="complete"):
    epochs = [EpochRecord(n, 1.0, 0.5, 1.0, value, 0.1) for n, value in enumerate(values, 1)]
    data = {"source": "clouds", "fingerprints": {"train": "a"}}
    return Outcome(state, None if state == "diverged" else values[-1], epochs, 0.1, data, {"cores": 2})


def without_seconds(trials):
    return [(t.number, t.parameters, t.state, t.value, [epoch[:-1] for epoch in t.epochs]) for t in trials]


# What a study is


def test_parameters_replace_the_fields_at_their_paths():
    study = Study(
        TINY,
        {
            "optimizer.momentum": Uniform(0.0, 0.9),
            "schedule": Choice({"constant": Constant(0.1), "cosine": Cosine(0.1)}),
            "schedule.value": LogUniform(0.01, 1),
            "hidden": Choice({"none": (), "two": (8, 4)}),
        },
        trials=1,
        sampler="tpe",
    )
    made = study.experiment(
        {"optimizer.momentum": 0.5, "schedule": "cosine", "schedule.value": 0.2, "hidden": "two"}
    )
    assert made == dataclasses.replace(TINY, optimizer=SGD(0.5), schedule=Cosine(0.2), hidden=(8, 4))


def test_a_grid_is_every_combination_in_order():
    study = Study(TINY, {"l2": Choice((0.0, 0.1)), "seed": Choice((0, 1, 2))})
    assert study.budget == 6
    points = [tuple(study.point(number).values()) for number in range(6)]
    assert points == [(0.0, 0), (0.0, 1), (0.0, 2), (0.1, 0), (0.1, 1), (0.1, 2)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"optimiser.momentum": Choice((0.1,))}}, "'optimiser.momentum' is no field"),
        ({"space": {"optimizer.rate": Choice((0.1,))}}, "'rate' is no field of SGD"),
        ({"space": {"optimizer.momentum": Uniform(0, 1)}, "trials": 1, "sampler": "tpe"}, "momentum lies in"),
        ({"space": {"train_size": Choice((10, 20))}}, "not of data, train_size, val_size"),
        ({"space": {}}, "expected a space"),
        ({"sampler": "best"}, "sampler to be one of"),
        ({"pruner": "all"}, "pruner to be one of"),
        ({"objective": "test_accuracy"}, "objective to be one of"),
        ({"trials": 0}, "at least 1 trial, at most 2 for this grid, got 0"),
        ({"trials": 3}, "at most 2 for this grid"),
        ({"sampler": "random"}, "at least 1 trial, got None"),
        ({"space": {"dropout": Uniform(0, 0.5)}}, "dropout is none"),
        ({"space": {"dropout": Uniform(0, 1.5)}, "trials": 1, "sampler": "random"}, r"dropout lies in \[0, 1\), got"),
        ({"space": {"batch_size": Uniform(1, 2.5)}, "trials": 1, "sampler": "tpe"}, "in whole numbers, got 2.5"),
        ({"space": {"label_smoothing": Choice((0.0, 1.0))}}, r"label_smoothing lies in \[0, 1\)"),
        ({"space": {"l2": Choice((0.1, -0.1))}}, "l2 >= 0, got -0.1"),
        ({"space": {"seed": Choice((0, -1))}}, "seed >= 0, got -1"),
        ({"space": {"batch_size": Choice((0,))}}, "batch_size >= 1"),
        ({"space": {"epochs": Choice((1, 0))}}, "epochs >= 1"),
        ({"space": {"hidden": Choice({"none": (4, 0)})}}, "hidden widths >= 1"),
        ({"space": {"network": Choice(("mlp", "cnn"))}}, "expected network to be one of mlp, .*, got 'cnn'"),
        ({"space": {"network": Choice(("small_cnn",)), "batch_norm": Choice((True,))}}, "settings of an mlp"),
        ({"space": {"schedule.value": Choice((0.1, -0.1))}}, "Constant: expected value >= 0, got -0.1"),
    ],
)
def test_a_study_that_cannot_work_is_refused_when_it_is_made(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        Study(**{"base": TINY, "space": {"l2": Choice((0.0, 0.1))}, **changes})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Choice(()),
        lambda: Choice((1, 1)),
        lambda: Choice(((1, 2), (3,))),
        lambda: Uniform(1, 0),
        lambda: LogUniform(0, 1),
        lambda: Integers(2, 1),
    ],
)
def test_a_dimension_that_cannot_work_is_refused(make):
    with pytest.raises(ValueError, match=r"expected|need names"):
        make()


def test_a_profile_that_is_none_is_refused():
    with pytest.raises(ValueError, match="expected quick or full, got 'fulll'"):
        studies.find(next(iter(studies.STUDIES)), "fulll")


def test_every_study_has_both_profiles_on_the_same_kind_of_data():
    for name, profiles in studies.STUDIES.items():
        assert set(profiles) == {"quick", "full"}, name
        assert profiles["quick"].base.data in ("shapes10", "faces7")
        assert profiles["full"].base.data in ("cifar10", "fer2013")


# What a trial is


def run_trial(study, parameters, told=lambda epoch: False):
    splits = experiment.load_training_splits(study.base)
    return Task(study, versions(), splits).run(parameters, told)


@pytest.mark.usefixtures("home")
def test_the_value_is_that_after_the_last_epoch_or_of_the_weights_that_are_kept():
    # One class alone to train on: the longer, the worse.
    study = Study(dataclasses.replace(TINY, epochs=4), {"schedule.value": Choice((0.05,))}, objective="val_loss")
    last = run_trial(study, {"schedule.value": 0.05})
    assert last.value == last.epochs[-1].val_loss
    stopping = dataclasses.replace(study.base, stopping=EarlyStopping(patience=2, min_delta=0.5))
    kept = run_trial(dataclasses.replace(study, base=stopping), {"schedule.value": 0.05})
    assert len(kept.epochs) == 3
    assert kept.value == kept.epochs[0].val_loss != kept.epochs[-1].val_loss


@pytest.mark.usefixtures("home")
def test_a_trial_stops_where_it_is_told_to():
    study = dataclasses.replace(RANDOM, base=dataclasses.replace(TINY, epochs=5))
    parameters = {"schedule": "constant", "schedule.value": 0.01, "dropout": 0.0, "batch_size": 20}
    stopped = run_trial(study, parameters, lambda epoch: epoch.epoch == 2)
    assert (stopped.state, len(stopped.epochs)) == ("pruned", 2)
    whole = run_trial(study, parameters, lambda epoch: epoch.epoch == 5)
    assert (whole.state, len(whole.epochs)) == ("complete", 5)
    assert [e[:-1] for e in whole.epochs[:2]] == [e[:-1] for e in stopped.epochs]


@pytest.mark.usefixtures("home")
def test_a_trial_of_other_versions_is_refused():
    splits = experiment.load_training_splits(TINY)
    task = Task(RANDOM, {**versions(), "numpy": "1.0"}, splits)
    with pytest.raises(ValueError, match=r"numpy is .*, not '1.0'; install the same"):
        task.run({}, lambda epoch: False)


def test_a_trial_of_other_sources_is_refused_where_they_are_told(monkeypatch):
    task = Task(RANDOM, versions(sources=True))
    monkeypatch.setattr(trial, "_SOURCES", "0123456789ab")
    with pytest.raises(ValueError, match=r"nnlib is '0123456789ab', not '[0-9a-f]{12}'; install the same"):
        task.run({}, lambda epoch: False)


def test_sources_are_told_apart_by_their_names_and_what_they_hold(tmp_path):
    seen = []
    for name, text in (("a.py", ""), ("a.py", "1"), ("sub/b.py", "1"), ("note.txt", "1")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        seen.append(trial._digest_of(tmp_path))
    assert len(set(seen[:3])) == 3
    assert seen[3] == seen[2]


# What the journal survives


def drive(path, study, *, ends):
    """Continue a search without training: ask for all that is left and let it end; return (number, parameters)."""
    journal = Journal(path, study)
    todo = journal.unfinished()
    while journal.asked < study.budget:
        todo.append(journal.ask())
    for number, _ in todo:
        if ends:
            journal.report(number, outcome(0.5).epochs[0])
            journal.tell(number, outcome(0.5), 1.0)
    trials = journal.trials()
    journal.close()
    return [(t.number, t.parameters) for t in trials] if ends else todo


@pytest.mark.parametrize("study", [RANDOM, Study(TINY, {"l2": Choice((0.0, 0.1)), "seed": Choice((0, 1))})])
def test_a_trial_s_parameters_depend_on_its_number_alone(tmp_path, study):
    whole = drive(tmp_path / "whole.journal", study, ends=True)
    assert [number for number, _ in whole] == list(range(study.budget))
    assert drive(tmp_path / "asked first.journal", study, ends=False) == whole
    fewer = dataclasses.replace(study, trials=3)
    assert drive(tmp_path / "fewer.journal", fewer, ends=True) == whole[:3]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_journal_cut_off_anywhere_is_continued_and_every_trial_ends_once(tmp_path, sampler):
    study = dataclasses.replace(RANDOM, trials=2, sampler=sampler, pruner="hyperband")
    path = tmp_path / "cut.journal"
    whole = drive(path, study, ends=True)
    content = path.read_bytes()
    lines = [0, *(i + 1 for i, byte in enumerate(content) if byte == ord("\n"))]
    for end in sorted({*lines, *range(5, len(content), 509)}):
        path.write_bytes(content[:end])
        continued = drive(path, study, ends=True)
        assert [number for number, _ in continued] == [0, 1], end
        if sampler == "random":
            assert continued == whole, end
        logs = [json.loads(line) for line in path.read_text().splitlines()]
        ended = [log["trial_id"] for log in logs if log.get("state") in (1, 2, 3) and log["op_code"] == 6]
        assert sorted(ended) == [0, 1], end


def asked_after(path, *values):
    """Tell of trials that reached these values, and return the parameters of the next."""
    journal = Journal(path, dataclasses.replace(RANDOM, trials=8, sampler="tpe"))
    for value in values:
        number, _ = journal.ask()
        journal.tell(number, outcome(value), 1.0)
    _, parameters = journal.ask()
    journal.close()
    return parameters


def test_the_estimator_guides_a_small_search_from_its_fourth_trial_on(tmp_path):
    random = [asked_after(tmp_path / name, *values) for name, values in (("a", (0.1, 0.9)), ("b", (0.9, 0.1)))]
    guided = [asked_after(tmp_path / name, *values) for name, values in (("c", (0, 0.5, 1)), ("d", (1, 0.5, 0)))]
    assert random[0] == random[1]
    assert guided[0] != guided[1]


def test_a_search_is_not_continued_with_other_versions(tmp_path):
    path = tmp_path / "a.journal"
    for version, threads in (("1", 1), ("2", 4)):  # nothing was asked yet
        journal = Journal(path, RANDOM)
        assert journal.begin({"numpy": version}, threads) == threads
        journal.close()
    journal = Journal(path, RANDOM)
    journal.ask()
    with pytest.raises(ValueError, match=r"a.journal: .* numpy is '1', not '2'; install the same, or move") as error:
        journal.begin({"numpy": "1"}, 1)
    assert "\n" not in str(error.value)
    assert journal.begin({"numpy": "2"}, 1) == 4
    journal.close()


def test_epochs_that_run_again_are_reported_once(tmp_path):
    study = dataclasses.replace(RANDOM, pruner="median")
    journal = Journal(tmp_path / "a.journal", study)
    number, _ = journal.ask()
    first, second = outcome(0.4, 0.6).epochs
    for epoch in (first, first, second):
        assert journal.report(number, epoch) is False
    journal.tell(number, outcome(0.4, 0.6), 1.0)
    assert journal.trials()[0].value == 0.6
    journal.close()


def test_a_median_pruner_ends_what_falls_behind(tmp_path):
    study = dataclasses.replace(RANDOM, trials=7, pruner="median")
    journal = Journal(tmp_path / "a.journal", study)
    for _ in range(5):
        number, _ = journal.ask()
        assert not journal.report(number, outcome(0.6).epochs[0])
        journal.tell(number, outcome(0.6), 1.0)
    number, _ = journal.ask()
    assert journal.report(number, outcome(0.3).epochs[0])
    journal.tell(number, outcome(0.3, state="pruned"), 1.0)
    assert journal.trials()[5][2:4] == ("pruned", 0.3)
    journal.close()


@pytest.mark.parametrize(
    "content",
    [b"[1, 2]\n", b"{}\n", b'{"op_code": 77}\n', b"text", b"text\n", b"\x00\xff\n\x00", b'{"op_code": 0}\n{"op'],
)
def test_a_file_that_is_no_journal_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "a.journal"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="move it away to start the search anew") as error:
        Journal(path, RANDOM)
    assert "\n" not in str(error.value)
    assert path.read_bytes().startswith(content[:14])


def test_a_full_disk_stops_a_search_which_then_continues(tmp_path):
    path = tmp_path / "a.journal"
    journal = Journal(path, RANDOM)
    journal.ask()
    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))  # the kernel then refuses as on a full disk
    try:
        with pytest.raises(OSError, match=r"could not write .*a.journal: .*; make room"):
            journal.tell(0, outcome(0.5), 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == size
    journal.close()
    assert len(drive(path, RANDOM, ends=True)) == 5


def test_trials_on_other_data_are_refused(tmp_path):
    journal = Journal(tmp_path / "a.journal", RANDOM)
    journal.ask()
    journal.ask()
    journal.tell(0, outcome(0.5), 1.0)
    journal.ask()
    same = dataclasses.replace(outcome(0.5), data={"source": "a copy", "fingerprints": {"train": "a"}})
    journal.tell(2, same, 1.0)
    other = dataclasses.replace(outcome(0.5), data={"source": "rain", "fingerprints": {"train": "b"}})
    with pytest.raises(ValueError, match=r"trial 1 saw other data \(rain.*than those before it \(clouds"):
        journal.tell(1, other, 2.0)
    journal.close()


# The whole


def test_a_result_is_stored_and_found_again(home, monkeypatch):
    made = tune.run("tiny", "full", workers=2)
    assert (home / "report" / "records" / "studies" / "tiny.json").is_file()
    assert not list((home / "runs" / "studies").iterdir())
    monkeypatch.setattr(tune, "LocalWorkers", lambda *_: pytest.fail("searched although a result matches"))
    found = tune.run("tiny", "full")
    assert found == made
    assert [t.number for t in found.trials] == list(range(5))
    assert set(found.data["fingerprints"]) == {"train", "val"}
    assert found.best.value == max(t.value for t in found.trials)
    assert found.table(2)[0][:2] == ["trial", "val_accuracy"]
    monkeypatch.setenv("NNLIB_RETRAIN", str(time.time() + 10))
    with pytest.raises(pytest.fail.Exception):
        tune.run("tiny", "full")


def test_a_search_that_could_not_store_its_result_is_not_done_again(home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tune, "_save", lambda *_: (_ for _ in ()).throw(OSError("no room")))
        with pytest.raises(OSError, match="no room"):
            tune.run("tiny", workers=2)
    monkeypatch.setattr(tune, "LocalWorkers", lambda *_: pytest.fail("searched although every trial had ended"))
    assert len(tune.run("tiny").trials) == 5


class Revenant:
    """Runs trials one by one; after each has ended, a worker that was thought dead tells of an epoch of it."""

    slots = 1

    def __init__(self):
        self.events, self.answers = [], []

    def submit(self, number, parameters):
        stale = Epoch(number, outcome(0.5).epochs[0], self.answers.append)
        self.events += [Done(number, outcome(0.5)), stale]

    def next(self):
        return self.events.pop(0)


def test_a_worker_that_was_thought_dead_is_told_to_stop(tmp_path):
    engine, journal = Revenant(), Journal(tmp_path / "a.journal", RANDOM)
    tune._loop(RANDOM, journal, engine)
    assert engine.answers == [True] * 4  # the search ends with the fifth trial
    assert [t.state for t in journal.trials()] == ["complete"] * 5
    journal.close()


class Instant(Revenant):
    """The same in the place of `LocalWorkers`; the first one stops before the last trial."""

    def __init__(self, started, arguments):
        super().__init__()
        started.append(arguments)
        self.ends = [4] if len(started) == 1 else []

    def next(self):
        if len(self.answers) in self.ends:
            raise OSError("cut off")
        return super().next()

    def close(self):
        pass


def test_a_search_that_is_continued_keeps_its_threads(home, monkeypatch):
    started = []
    monkeypatch.setattr(tune, "cores", lambda: 8)
    monkeypatch.setattr(tune, "LocalWorkers", lambda _, *arguments: Instant(started, arguments))
    with pytest.raises(OSError, match="cut off"):
        tune.run("tiny", workers=4)
    assert tune.run("tiny", workers=2).workers == 1
    assert started == [(4, 2), (1, 2)]  # processes, threads


def test_a_result_that_came_before_the_lock_is_taken(home, monkeypatch):
    monkeypatch.setattr(tune, "LocalWorkers", lambda *_: Instant([None], None))
    made, path = tune.run("tiny"), tune.path_of("tiny", "quick")
    content = path.read_bytes()
    path.unlink()
    monkeypatch.setattr(tune, "Journal", lambda *journal: (path.write_bytes(content), Journal(*journal))[1])
    monkeypatch.setattr(tune, "LocalWorkers", lambda *_: pytest.fail("searched although a result matches"))
    assert tune.run("tiny") == made
    assert not list((home / "runs" / "studies").iterdir())


def test_the_order_of_a_space_is_part_of_the_study(home, monkeypatch):
    monkeypatch.setattr(tune, "LocalWorkers", lambda *_: Instant([None], None))
    space = {"l2": Choice({"none": 0.0, "some": 0.1}), "seed": Choice((0, 1))}
    study = Study(TINY, space)
    declare(monkeypatch, study)
    made = tune.run("tiny")
    turned = [t._replace(parameters=dict(reversed(t.parameters.items()))) for t in made.trials]
    assert dataclasses.replace(made, trials=turned).table(4) == made.table(4)
    others = [
        dataclasses.replace(study, space=dict(reversed(space.items()))),
        dataclasses.replace(study, space={**space, "l2": Choice({"some": 0.1, "none": 0.0})}),
    ]
    assert tune.stored("tiny", "quick", study) == made
    assert [tune.stored("tiny", "quick", other) for other in others] == [None, None]
    assert len({tune._journal_path("tiny", "quick", one) for one in (study, *others)}) == 3


def test_what_lies_in_the_working_directory_is_no_module_of_a_worker(home):
    (home / "random.py").write_text("raise ImportError('a file of the user')")
    assert len(tune.run("tiny", trials=1, workers=1).trials) == 1


def test_workers_do_not_change_what_comes_out(home):
    two = tune.run("tiny", workers=2)
    Path("build/records/studies/tiny.json").unlink()
    one = tune.run("tiny", workers=1)
    assert without_seconds(one.trials) == without_seconds(two.trials)
    fewer = tune.run("tiny", trials=2, workers=1)
    assert fewer.name.startswith("tiny-")
    assert without_seconds(fewer.trials) == without_seconds(two.trials[:2])
    assert tune.path_of(fewer.name, "quick").parent == home / "runs" / "records" / "studies"


def test_a_diverged_trial_is_one_more_result(home, monkeypatch):
    declare(monkeypatch, Study(TINY, {"schedule.value": Choice((1e30, 0.01))}, objective="val_loss"))
    result = tune.run("tiny", workers=1)
    assert [t.state for t in result.trials] == ["diverged", "complete"]
    assert result.trials[0].value is None
    assert result.best.number == 1
    assert "1 diverged, 1 complete" in result.summary()


@pytest.mark.filterwarnings("ignore:The number of trials is too small")
def test_the_result_as_an_optuna_study(home, monkeypatch):
    declare(monkeypatch, dataclasses.replace(RANDOM, space={**RANDOM.space, "schedule.value": LogUniform(1e-3, 1e30)}))
    result = tune.run("tiny", workers=1)
    study = result.study()
    assert study.best_trial.number == result.best.number
    assert [t.params for t in study.trials] == [t.parameters for t in result.trials]
    assert {t.user_attrs["state"] for t in study.trials} == {"complete", "diverged"}
    assert set(optuna.importance.get_param_importances(study)) == set(RANDOM.space)


def test_trials_are_grouped_by_all_but_the_seed(home, monkeypatch):
    space = {"dropout": Choice((0.0, 0.5)), "seed": Choice((0, 1))}
    declare(monkeypatch, dataclasses.replace(RANDOM, space=space, sampler="grid", trials=None))
    result = tune.run("tiny", workers=1)
    numbers = {setting: [t.number for t in trials] for setting, trials in result.settings().items()}
    assert numbers == {(0.0,): [0, 1], (0.5,): [2, 3]}
    assert result.trials[0].history.epochs == result.trials[0].epochs
    assert result.source == "clouds, synthetic"


def test_a_changed_result_or_another_study_is_not_taken_for_it(home, monkeypatch):
    tune.run("tiny", workers=1)
    path = tune.path_of("tiny", "quick")
    declare(monkeypatch, dataclasses.replace(RANDOM, seed=1))
    assert tune.stored("tiny", "quick", studies.find("tiny", "quick")) is None
    path.write_text(path.read_text().replace("clouds", "clouts", 1))
    with pytest.raises(ValueError, match="changed after it was written"):
        tune.run("tiny", workers=1)


def test_a_trial_that_cannot_be_trained_ends_the_search_and_names_itself(home, monkeypatch):
    declare(monkeypatch, Study(TINY, {"optimizer": Choice({"SGD": SGD(), "none": None})}))
    with pytest.raises(RuntimeError, match=r"^trial 1: 'NoneType' object has no attribute"):
        tune.run("tiny", workers=1)


def test_a_trial_that_ends_every_worker_ends_the_search(home, monkeypatch):
    monkeypatch.setattr("nnlib.workers.DEATHS", 1)
    splits = experiment.load_training_splits(TINY)
    engine = LocalWorkers(Task(RANDOM, versions(), splits), 1, threads=1)
    try:
        engine.submit(3, {"schedule": "constant", "schedule.value": 0.01, "dropout": 0.0, "batch_size": 20})
        for worker in engine._busy.values():
            worker._process.kill()
        engine.next().answer(False)
        for worker in engine._busy.values():
            worker._process.kill()
        with pytest.raises(RuntimeError, match="trial 3 ended 2 workers, the last by SIGKILL"):
            list(iter(engine.next, None))
    finally:
        engine.close()


def test_a_result_that_cannot_be_fetched_from_a_cluster_ends_the_search():
    cluster = pytest.importorskip("nnlib.cluster")

    class Unreadable:
        key, status = "trial-3", "finished"

        def exception(self):
            return None

        def result(self):
            raise EOFError("ran out of input")

    engine = cluster.DaskWorkers.__new__(cluster.DaskWorkers)
    engine._happened, engine._running, engine._answers = queue.SimpleQueue(), {"trial-3": (None, 3, {})}, {}
    engine._on_end(Unreadable())
    with pytest.raises(RuntimeError, match=r"trial-3: .*could not be fetched: ran out of input"):
        engine.next()


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_search_that_another_process_runs_is_refused(home, capsys):
    path = tune._journal_path("tiny", "quick", RANDOM)
    path.parent.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        assert cli.main(["tune", "tiny"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"nnlib: {path}: another process runs this search; wait for its end, or stop it"
        holder.stdin.close()


def test_a_corrupt_journal_is_one_line(home, capsys):
    path = tune._journal_path("tiny", "quick", RANDOM)
    path.parent.mkdir(parents=True)
    path.write_text("no journal\n")
    assert cli.main(["tune", "tiny"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: expected the journal of a search" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a study's name"),
        (["nothing"], "no study 'nothing'"),
        (["tiny", "--trials", "0"], "--trials of at least 1, got 0"),
        (["tiny", "--workers", "0"], "--workers of at least 1, got 0"),
        (["tiny", "--dask", "tcp://127.0.0.1:1", "--workers", "2"], "are of this machine"),
        (["tiny", "--dask", "tcp://127.0.0.1:1", "--data", "."], "are of this machine"),
    ],
)
@pytest.mark.usefixtures("home")
def test_wrong_use_is_status_two_and_one_line(arguments, message, capsys):
    assert cli.main(["tune", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.usefixtures("home")
def test_the_command_shows_the_best_trials_and_the_names(capsys):
    assert cli.main(["tune", "--list"]) == 0
    assert "tiny" in capsys.readouterr().out.split()
    assert cli.main(["tune", "tiny", "--trials", "3", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "3 trials (3 complete)" in out
    assert len(out.strip().splitlines()) == 2 + 1 + 4 + 2
    assert Path(out.split()[-1]).is_file()


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:80", "tcp://127.0.0.1"])
@pytest.mark.usefixtures("home")
def test_what_is_no_address_is_one_line(address, capsys):
    assert cli.main(["tune", "tiny", "--dask", address]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{address}: expected a scheduler's address" in line


@pytest.mark.slow
def test_an_address_where_nothing_answers_is_told_within_fifteen_seconds(home):
    start = "from nnlib import cli, studies, study; import sys; sys.exit(cli.main(sys.argv[1:]))"
    name = next(iter(studies.STUDIES))
    result = subprocess.run(
        [sys.executable, "-c", start, "tune", name, "--dask", "tcp://127.0.0.1:1"],
        env={**os.environ, "NNLIB_RUNS": str(home)},
        capture_output=True,
        text=True,
        timeout=15,
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "no Dask scheduler answered" in line


CALL = """
from nnlib import studies, tune
from nnlib.experiment import Experiment
from nnlib.study import Choice, Study
base = Experiment("fer2013", (4,), epochs=1, val_size=4, batch_size=5)
studies.STUDIES["here"] = {"quick": Study(base, {"seed": Choice((0, 1))})}
print(len(tune.run("here", workers=2, root="data").trials))
"""


@pytest.fixture
def caller(home):
    """A folder with faces and a script, which does not guard its main part, that searches among them."""
    (home / "data").mkdir()
    write_fer_csv(home / "data")
    (home / "script.py").write_text(CALL)
    return home


@pytest.mark.usefixtures("caller")
@pytest.mark.parametrize("script", ["-", "script.py"])
def test_a_search_runs_from_standard_input_and_from_a_script_without_a_guard(script):
    result = subprocess.run([sys.executable, script], input=CALL, capture_output=True, text=True, timeout=60)
    assert result.stdout == "2\n", result.stderr
    assert result.stderr == ""


@pytest.mark.slow
def test_a_search_runs_from_a_notebook(caller):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CALL)])
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(caller)}}).execute()
    (output,) = notebook.cells[0].outputs
    assert output["text"] == "2\n"
