"""Experiments and their records: found where they match, made anew where not, never lost."""

import dataclasses
import json
import time

import numpy as np
import pytest

import nnlib
from nnlib import experiment, experiments, metrics, records
from nnlib.data import Split
from nnlib.experiment import Experiment

TINY = Experiment("shapes10", (8,), epochs=2, train_size=200, val_size=50)


@pytest.fixture
def home(checkout, monkeypatch):
    """A checkout of its own with one tiny experiment on a few images."""
    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", {"quick": TINY, "full": TINY})
    use_data(monkeypatch, 0)
    return checkout


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


def test_a_record_older_than_a_field_counts_where_the_field_has_its_default(home, monkeypatch):
    made = experiments.run("tiny", "full")
    younger = {"standardize", "batch_norm", "test_mirrored"}
    old = dataclasses.replace(made, config={key: made.config[key] for key in made.config.keys() - younger})
    records.save(old, experiments.record_folder("full"))
    changed = dataclasses.replace(TINY, test_mirrored=True)
    assert experiments.stored("tiny", changed, experiments.record_folder("full")) is None
    no_training(monkeypatch)
    assert experiments.run("tiny", "full").config == old.config
    assert experiments.verify("tiny", "full").passed


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


def test_a_record_is_of_this_machine_in_whatever_order_its_blas_libraries_were_listed(home, monkeypatch):
    record = experiments.run("tiny")
    blas = [*record.machine["blas"], {"internal_api": "another", "version": "0"}]
    monkeypatch.setattr(records, "machine", lambda: {**record.machine, "blas": sorted(blas, key=str)})
    for listed in (blas, blas[::-1]):
        assert records.made_here(dataclasses.replace(record, machine={**record.machine, "blas": listed}))
    assert not records.made_here(record)
    other = dataclasses.replace(record, machine=records.machine(), versions={**record.versions, "numpy": "0"})
    assert not records.made_here(other)


def test_the_settings_of_an_mlp_reach_it_and_are_refused_elsewhere(home):
    train_split = experiment.load_splits(TINY)[0]
    network = experiment.build(dataclasses.replace(TINY, standardize=True, batch_norm=True), train_split)
    assert list(network.layers.layers) == ["standardize", "fc1", "norm1", "relu1", "fc"]
    with pytest.raises(ValueError, match="settings of an mlp, not of small_cnn"):
        experiment.build(dataclasses.replace(TINY, network="small_cnn", standardize=True), train_split)


def test_a_network_is_tested_on_mirrored_images_where_the_experiment_says_so(home, monkeypatch):
    mirrored = dataclasses.replace(TINY, test_mirrored=True)
    monkeypatch.setitem(experiments.EXPERIMENTS, "mirrored", {"quick": mirrored, "full": mirrored})
    plain, record = experiments.run("tiny"), experiments.run("mirrored")
    network = nnlib.load(experiments.network_path("mirrored", "quick"))
    test = experiment.load_splits(TINY)[2]
    probabilities = network.predict_proba(test.inputs, mirrored=True)
    np.testing.assert_array_equal(record.probabilities, probabilities.astype(np.float16))
    assert (record.probabilities != plain.probabilities).any()
    assert record.metrics["test_accuracy"] == (probabilities.argmax(axis=1) == test.labels).mean()
    assert record.metrics["test_loss"] == pytest.approx(metrics.negative_log_likelihood(probabilities, test.labels))
    for key in ("train_loss", "val_loss", "val_accuracy"):
        assert record.metrics[key] == plain.metrics[key]
    assert [e.val_loss for e in record.history.epochs] == [e.val_loss for e in plain.history.epochs]


def test_a_saved_network_knows_how_it_was_made_and_tested(home, monkeypatch):
    mirrored = dataclasses.replace(TINY, test_mirrored=True)
    monkeypatch.setitem(experiments.EXPERIMENTS, "mirrored", {"quick": mirrored, "full": mirrored})
    record = experiments.run("mirrored")
    told = nnlib.load(experiments.network_path("mirrored", "quick")).metadata
    assert told["experiment"] == "mirrored"
    assert told["profile"] == "quick"
    assert told["train"] == record.data["fingerprints"]["train"]
    assert "clouds" in told["data"]
    assert json.loads(told["preprocessing"])["mirrored"] is True
    assert json.loads(told["classes"]) == list("abcd")
    assert json.loads(told["metrics"]) == {key: record.metrics[key] for key in ("test_loss", "test_accuracy")}


# ---- models to keep -----------------------------------------------------------------------------------------------


def test_a_released_model_holds_its_record_and_what_it_reaches_in_float16(home):
    record = experiments.run("tiny", "full")
    path = experiments.release("tiny")
    assert path == home / "models" / "tiny.safetensors"
    model, trained = nnlib.load(path), nnlib.load(experiments.network_path("tiny", "full"))
    np.testing.assert_array_equal(model.vector, trained.vector.astype(np.float16))
    np.testing.assert_array_equal(model.buffers["normalize.mean"], trained.buffers["normalize.mean"])
    test = experiment.load_splits(TINY)[2]
    told = json.loads(model.metadata["metrics"])
    assert told["test_accuracy"] == (model.predict(test.inputs) == test.labels).mean()
    assert told["test_accuracy"] == pytest.approx(record.metrics["test_accuracy"], abs=0.003)
    seal = json.loads((home / "report" / "records" / "tiny.json").read_text())["seal"]
    assert (model.metadata["record"], model.metadata["seal"]) == ("tiny", seal)
    assert model.metadata["train"] == record.data["fingerprints"]["train"]


def test_what_is_not_the_record_s_network_is_not_released(home, monkeypatch):
    with pytest.raises(FileNotFoundError, match="expected a full record of tiny"):
        experiments.release("tiny")
    experiments.run("tiny", "full")
    saved = experiments.network_path("tiny", "full")
    whole = saved.read_bytes()
    saved.unlink()
    with pytest.raises(FileNotFoundError, match=r"full-tiny\.safetensors, found none; `NNLIB_RETRAIN"):
        experiments.release("tiny")
    saved.write_bytes(whole)
    with monkeypatch.context() as patch:
        patch.setattr(experiments, "MODEL_BYTES", 100)
        with pytest.raises(ValueError, match="more than 100; narrow it"):
            experiments.release("tiny")
    other = nnlib.load(saved)
    other.parameters["fc.weight"][...] = 0
    other.save(saved, metadata=other.metadata)
    with pytest.raises(ValueError, match="in float16, its record"):
        experiments.release("tiny")
    other.save(saved, metadata={**other.metadata, "metrics": json.dumps({"test_loss": 1.0, "test_accuracy": 0.5})})
    with pytest.raises(ValueError, match="is not the network of the record; `NNLIB_RETRAIN"):
        experiments.release("tiny")
    saved.write_bytes(whole)
    use_data(monkeypatch, 1)
    with pytest.raises(ValueError, match="are not those of tiny's record"):
        experiments.release("tiny")
    assert not (home / "models").exists()


# -------------------------------------------------------------------------------------------------------------------


def test_validation_images_are_the_same_stratified_part_whatever_the_seed(home):
    whole = experiment.data.load("shapes10", "train")
    for train_size in (None, 200):
        splits = [
            experiment.load_splits(dataclasses.replace(TINY, train_size=train_size, seed=seed)) for seed in (0, 1)
        ]
        assert splits[0][1].fingerprint == splits[1][1].fingerprint
        pool = whole if train_size is None else whole[train_size:]
        exact = 50 * np.bincount(pool.labels) / len(pool)
        assert (np.abs(np.bincount(splits[0][1].labels) - exact) < 1).all()


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
