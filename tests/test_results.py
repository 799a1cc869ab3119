"""The committed results: what the README says is what the records hold, and the records can be repeated."""

import json
from pathlib import Path

import numpy as np
import pytest

import nnlib
from nnlib import data, experiments, predict, records, studies, tune
from nnlib.experiment import train
from nnlib_report import readme

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def full(name):
    record = experiments.stored(name, experiments.find(name, "full"), experiments.record_folder("full"))
    assert record is not None, f"report/records/{name}.json is missing or of another configuration"
    return record


def test_every_experiment_has_a_full_record():
    for name in experiments.EXPERIMENTS:
        assert full(name).profile == "full"


def test_no_record_is_left_over_or_large():
    folder = experiments.record_folder("full")
    named = {json.loads(path.read_text())["arrays"]["file"] for path in folder.glob("*.json")}
    assert {path.stem for path in folder.glob("*.json")} == set(experiments.EXPERIMENTS)
    assert {path.name for path in folder.glob("*.npz")} == named
    assert max(path.stat().st_size for path in folder.iterdir()) < 2_000_000


def test_the_readme_s_table_is_the_records():
    assert readme.table() in (ROOT / "README.md").read_text()


def test_the_targets_of_the_coursework_are_met():
    assert full("overfit50").history.epochs[5].train_accuracy == 1.0
    assert max(epoch.val_accuracy for epoch in full("mlp_512_256").history.epochs[:4]) > 0.5
    assert full("mlp_best").metrics["test_accuracy"] >= 0.58
    for name in ("overfit50", "mlp_512_256", "mlp_best", "plain"):
        assert full(name).metrics["initial_val_loss"] == pytest.approx(np.log(10), rel=0.02)


def test_a_deep_network_s_first_steps_go_downhill():
    losses = [step.loss for step in full("resnet50_start").history.steps]
    assert len(losses) == 300
    assert np.mean(losses[-30:]) < np.mean(losses[:30]) - 0.1
    assert full("small_cnn").metrics["test_accuracy"] > 0.4


def test_a_tuned_network_names_half_of_the_emotions():
    record = full("fer_mlp")
    assert record.data["sizes"] == {"train": 25838, "val": 2871, "test": 3589}
    assert record.metrics["test_accuracy"] >= 0.5


def test_every_study_has_a_full_result_and_all_together_fit_the_budget():
    results = [tune.stored(name, "full", studies.find(name, "full")) for name in studies.STUDIES]
    assert all(result is not None and len(result.trials) == result.declared.budget for result in results)
    assert len({result.data["fingerprints"]["val"] for result in results}) == 1
    assert sum(result.seconds for result in results) < 150 * 60
    folder = experiments.record_folder("full") / "studies"
    assert {path.stem for path in folder.iterdir()} == set(studies.STUDIES)
    assert max(path.stat().st_size for path in folder.iterdir()) < 500_000


@pytest.mark.slow
@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_the_first_steps_of_every_record_can_be_repeated(name, real_data):
    result = experiments.verify(name, "full", root=real_data)
    assert result.steps == records.REPLAYED
    assert result.passed, result


@pytest.mark.slow
def test_a_cheap_experiment_trained_again_gives_its_record(real_data, tmp_path):
    record = full("overfit50")
    again = train("overfit50", "full", experiments.find("overfit50", "full"), run_dir=tmp_path, root=real_data)
    same = records.made_here(record)
    for key, value in record.metrics.items():
        assert again.metrics[key] == (value if same else pytest.approx(value, rel=1e-2, abs=5e-3)), key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fer_mlp"])
def test_a_kept_model_reaches_its_record_s_accuracy_on_the_test_images(name, real_data):
    path = predict.model_path(name)
    model, record = nnlib.load(path), full(name)
    assert path.stat().st_size <= experiments.MODEL_BYTES
    assert model.metadata["seal"] == json.loads((ROOT / "report" / "records" / f"{name}.json").read_text())["seal"]
    assert model.metadata["train"] == record.data["fingerprints"]["train"]
    test = data.load(record.config["data"], "test", root=real_data)
    mirrored = json.loads(model.metadata["preprocessing"])["mirrored"]
    accuracy = (model.predict_proba(test.inputs, mirrored=mirrored).argmax(axis=1) == test.labels).mean()
    assert accuracy == pytest.approx(json.loads(model.metadata["metrics"])["test_accuracy"], abs=1e-3)
    assert accuracy == pytest.approx(record.metrics["test_accuracy"], abs=experiments.ROUNDING)


@pytest.mark.slow
def test_an_mlp_beats_a_linear_classifier_on_the_drawn_images(tmp_path):
    accuracy = {}
    for name in ("linear", "plain", "dropout"):
        record = train(name, "quick", experiments.find(name, "quick"), run_dir=tmp_path / name)
        accuracy[name] = record.metrics["test_accuracy"]
        accuracy[f"gap {name}"] = record.metrics["train_accuracy"] - record.metrics["val_accuracy"]
    assert accuracy["linear"] + 0.08 <= accuracy["plain"] < 0.9
    assert accuracy["gap dropout"] < accuracy["gap plain"] - 0.03


@pytest.mark.slow
def test_convolution_is_worth_it_on_the_drawn_faces(tmp_path):
    mlp, cnn = (
        train(name, "quick", experiments.find(name, "quick"), run_dir=tmp_path / name).metrics["test_accuracy"]
        for name in ("mlp_faces", "small_cnn")
    )
    assert cnn >= mlp + 0.08
