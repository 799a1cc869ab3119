"""Experiments and their records: found where they match, made anew where not, never lost."""

import dataclasses
import json
import time

import numpy as np
import pytest

from nnlib import experiment, experiments, records
from nnlib.data import Split
from nnlib.experiment import Experiment

TINY = Experiment("shapes10", (8,), epochs=2, train_size=200, val_size=50)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A checkout of its own with one tiny experiment on a few images."""
    (tmp_path / "nnlib").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NNLIB_RUNS", raising=False)
    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", {"quick": TINY, "full": TINY})
    use_data(monkeypatch, 0)
    return tmp_path


def use_data(monkeypatch, seed):
    def load(name, split, *, root=None):
        rng = np.random.default_rng((seed, split == "test"))
        labels = rng.integers(0, 4, size=300)
        images = (60 * labels[:, None, None, None] + rng.integers(0, 40, size=(300, 4, 4, 3))).astype(np.uint8)
        return Split(images, labels, tuple("abcd"), source="clouds, synthetic", synthetic=True)

    monkeypatch.setattr(experiment.data, "load", load)


def no_training(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("trained although a record matches")

    monkeypatch.setattr(experiments, "train", refuse)


def test_a_record_is_stored_and_found_again(home, monkeypatch):
    made = experiments.run("tiny", "full")
    no_training(monkeypatch)
    found = experiments.run("tiny", "full")
    assert sorted(p.suffix for p in (home / "report" / "records").iterdir()) == [".json", ".npz"]
    assert found.metrics == made.metrics
    assert found.first_losses == made.first_losses
    assert found.config == experiments.plain(TINY)
    np.testing.assert_array_equal(found.probabilities, made.probabilities)
    assert found.probabilities.dtype == np.float16
    assert [e[:-1] for e in found.history.epochs] == [e[:-1] for e in made.history.epochs]
    np.testing.assert_allclose(found.history.steps, made.history.steps, rtol=1e-6)
    assert found.confusion.sum() == 300
    assert not any((home / "runs").glob("*tiny*"))


def test_losses_are_stored_to_the_last_bit(home):
    made = experiments.run("tiny")
    assert [float.fromhex(text) for text in made.first_losses] == [s.loss for s in made.history.steps[:20]]


def test_another_configuration_or_numerics_version_trains_anew(home, monkeypatch):
    first = experiments.run("tiny")
    changed = dataclasses.replace(TINY, l2=0.1)
    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", {"quick": changed, "full": changed})
    assert first.config["l2"] == 0
    assert experiments.run("tiny").config["l2"] == 0.1
    monkeypatch.setattr(records, "NUMERICS", 99)
    assert experiments.run("tiny").numerics == 99


def test_retraining_ignores_older_records_once(home, monkeypatch):
    first = experiments.run("tiny")
    monkeypatch.setenv("NNLIB_RETRAIN", str(time.time() + 0.01))
    time.sleep(0.02)
    again = experiments.run("tiny")
    assert again.seconds != first.seconds
    no_training(monkeypatch)  # the new record is younger, so it is trained once and not for each notebook
    assert experiments.run("tiny").seconds == again.seconds


def test_changes_make_a_record_of_their_own(home):
    experiments.run("tiny")
    changed = experiments.run("tiny", changes={"epochs": 1})
    assert changed.name.startswith("tiny-")
    assert len(changed.history.epochs) == 1
    assert len(experiments.run("tiny").history.epochs) == 2


def test_other_data_still_uses_the_record_but_cannot_replay_it(home, monkeypatch):
    first = experiments.run("tiny", "full")
    assert experiments.verify("tiny", "full").passed
    use_data(monkeypatch, 1)
    assert experiments.run("tiny", "full").first_losses == first.first_losses
    with pytest.raises(ValueError, match="no replay"):
        experiments.verify("tiny", "full")


def test_replay_finds_a_change_in_the_last_bit(home, monkeypatch):
    record = experiments.run("tiny")
    assert experiment.replay(record, TINY).passed
    losses = [float.fromhex(text) for text in record.first_losses]
    for off, passed_here, passed_elsewhere in ((1e-15, False, True), (1e-2, False, False)):
        losses_off = [(loss * (1 + off)).hex() for loss in losses]
        changed = dataclasses.replace(record, first_losses=losses_off)
        assert experiment.replay(changed, TINY).passed is passed_here
        elsewhere = dataclasses.replace(changed, machine={"processor": "another"})
        assert experiment.replay(elsewhere, TINY).passed is passed_elsewhere


def test_a_run_cut_off_is_continued(home, monkeypatch):
    whole = experiments.run("tiny", "full")

    with monkeypatch.context() as patch:
        patch.setattr(experiments.records, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            experiments.run("tiny", "quick")
    (run_dir,) = (home / "runs").glob("quick-tiny-*")
    assert (run_dir / "checkpoint.safetensors").exists()
    with monkeypatch.context() as patch:
        patch.setattr(experiment.Solver, "_run_step", lambda *_: pytest.fail("a finished run trained again"))
        assert experiments.run("tiny", "quick").metrics == whole.metrics


@pytest.mark.parametrize("edit", ["metric", "arrays", "no json", "missing arrays", "another file"])
def test_a_record_changed_by_hand_is_refused_and_kept(home, edit):
    experiments.run("tiny", "full")
    folder = home / "report" / "records"
    (path,), (arrays,) = folder.glob("*.json"), folder.glob("*.npz")
    if edit == "metric":
        body = json.loads(path.read_text())
        body["metrics"]["test_accuracy"] = 0.99
        path.write_text(json.dumps(body))
    elif edit == "arrays":
        content = bytearray(arrays.read_bytes())
        content[len(content) // 2] ^= 1
        arrays.write_bytes(content)
    elif edit == "no json":
        path.write_text("{")
    elif edit == "missing arrays":
        arrays.unlink()
    else:
        path.write_text("[1, 2]")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="restore it, or remove it") as error:
        experiments.run("tiny", "full")
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before


def test_records_name_what_they_depend_on(home):
    record = experiments.run("tiny")
    assert set(record.data["fingerprints"]) == {"train", "val", "test"}
    assert {"python", "numpy"} <= set(record.versions)
    assert {"processor", "cores", "blas"} <= set(record.machine)
    assert record.source == "clouds, synthetic"
    copy = dataclasses.replace(record, data={**record.data, "synthetic": False, "source": "X, a copy other than Y"})
    assert record.data["fingerprints"]["test"][:8] in copy.source


def test_splits_do_not_overlap(home):
    for one in (TINY, dataclasses.replace(TINY, train_size=None)):
        train, val, _ = experiment.load_splits(one)
        assert len(train) + len(val) <= 300
        rows = {image.tobytes() for image in train.inputs}
        assert not rows & {image.tobytes() for image in val.inputs}


def test_what_figures_need_is_kept(home):
    watched = experiments.run("tiny", changes={"keep": "activations", "hidden": (8, 8)})
    assert watched.arrays["activations"].shape[1] == 5
    assert set(watched.arrays["activations"][:, 1]) == {1, 2}
    assert experiments.run("tiny", changes={"keep": "weights"}).arrays["first_weights"].shape == (48, 8)


def test_frozen_masks_repeat_and_fresh_ones_do_not(home):
    x = np.random.default_rng(0).integers(0, 256, size=(5, 4, 4, 3), dtype=np.uint8)
    rng = np.random.default_rng(0)
    for frozen in (True, False):
        one = dataclasses.replace(TINY, dropout=0.5, frozen_masks=frozen)
        network = experiment.build(one, experiment.load_splits(one)[0])
        first, second = (network.forward(x, train=True, rng=rng) for _ in range(2))
        assert (first == second).all() == frozen


def test_every_experiment_has_both_profiles_and_only_known_data():
    for name, profiles in experiments.EXPERIMENTS.items():
        assert set(profiles) == {"quick", "full"}, name
        assert profiles["quick"].data in ("shapes10", "faces7")
        assert profiles["full"].data in ("cifar10", "fer2013")


def test_unknown_names(monkeypatch):
    with pytest.raises(ValueError, match="expected one of"):
        experiments.find("nothing", "quick")
    monkeypatch.setenv("NNLIB_PROFILE", "slow")
    with pytest.raises(ValueError, match="expected quick or full, got 'slow'"):
        experiments.profile()
