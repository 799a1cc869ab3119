"""The commands, run as people run them: what they print, and their exit status."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnlib import cli, data, experiments
from nnlib import load as nnlib_load
from nnlib.data import synthetic


def nnlib(*arguments, cwd, **environment):
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "nnlib.cli", *arguments],
        cwd=cwd,
        env={**os.environ, "TQDM_DISABLE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def one_line(result, status):
    assert result.returncode == status
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("nnlib: ")
    return line


@pytest.fixture
def few_images(tmp_path, monkeypatch):
    """An empty folder to work in, and synthetic sets of few images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synthetic, "SPLITS", {"train": 2000, "test": 50})
    data._drawn.cache_clear()
    yield
    data._drawn.cache_clear()


@pytest.mark.usefixtures("few_images")
def test_train_trains_then_finds_its_record_and_verifies_it(capsys):
    assert cli.main(["train", "overfit50"]) == 0
    first = capsys.readouterr().out
    assert "shapes10, synthetic images drawn by nnlib" in first
    assert "test_accuracy" in first
    saved = nnlib_load(first.split()[-1])
    assert saved.metadata["experiment"] == "overfit50"
    assert cli.main(["train", "overfit50"]) == 0
    assert capsys.readouterr().out == first
    assert cli.main(["train", "overfit50", "--verify"]) == 0
    assert "20 steps replayed, losses equal to the last bit" in capsys.readouterr().out


@pytest.mark.usefixtures("few_images")
def test_a_changed_experiment_gets_a_record_of_its_own(capsys):
    assert cli.main(["train", "overfit50", "--set", "epochs=2", "--set", "hidden=[16]"]) == 0
    assert capsys.readouterr().out.startswith("overfit50-")
    assert len(list(Path("runs/records").glob("overfit50-*.json"))) == 1


@pytest.mark.usefixtures("few_images")
def test_release_writes_the_full_profile_s_network_and_names_the_file(capsys, monkeypatch):
    quick = experiments.find("overfit50", "quick")
    monkeypatch.setitem(experiments.EXPERIMENTS, "overfit50", {"quick": quick, "full": quick})
    assert cli.main(["train", "overfit50", "--profile", "full"]) == 0
    capsys.readouterr()
    assert cli.main(["train", "overfit50", "--release"]) == 0
    path = capsys.readouterr().out.strip()
    assert path.endswith("models/overfit50.safetensors")
    assert nnlib_load(path).metadata["record"] == "overfit50"


def test_list_names_every_experiment(capsys):
    assert cli.main(["train", "--list"]) == 0
    assert capsys.readouterr().out.split() == list(experiments.EXPERIMENTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "expected an experiment's name"),
        (["train", "nothing"], "no experiment 'nothing'"),
        (["train", "plain", "--set", "colour=red"], "with a key of"),
        (["train", "plain", "--set", "schedule=1"], "with a key of"),
        (["train", "plain", "--set", "epochs"], "expected KEY=VALUE"),
        (["train", "plain", "--set", "epochs=many"], "epochs is of type int"),
        (["train", "plain", "--verify", "--set", "epochs=2"], "take no --set"),
        (["train", "plain", "--release", "--set", "epochs=2"], "take no --set"),
        (["train", "plain", "--release", "--verify"], "are of the named experiment's record"),
    ],
)
def test_wrong_use_is_status_two_and_one_line(arguments, message, tmp_path):
    assert message in one_line(nnlib(*arguments, cwd=tmp_path), 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "status", "--data", "/nowhere/at/all"], "/nowhere/at/all"),
        (["data", "verify", "--data", "/nowhere/at/all"], "/nowhere/at/all"),
        (["train", "plain", "--profile", "full", "--data", "/nowhere/at/all"], "/nowhere/at/all"),
        (["train", "plain", "--verify"], "no quick record"),
        (["train", "plain", "--release"], "expected a full record of plain, found none"),
    ],
)
def test_a_failed_job_is_status_one_and_one_line(arguments, message, tmp_path):
    assert message in one_line(nnlib(*arguments, cwd=tmp_path), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [("epochs=0", "epochs >= 1"), ("dropout=1.0", "lies in [0, 1)"), ("l2=1e30", "training diverged at step")],
)
@pytest.mark.usefixtures("few_images")
def test_an_experiment_that_cannot_work_is_one_line(change, message, capsys):
    assert cli.main(["train", "overfit50", "--set", change]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_debug_shows_the_traceback(tmp_path):
    result = nnlib("data", "status", "--data", "/nowhere", "--debug", cwd=tmp_path)
    assert result.returncode != 0
    assert "Traceback" in result.stderr


def test_status_and_verify_of_the_real_data(real_data: Path, tmp_path):
    status = nnlib("data", "status", "--data", str(real_data), cwd=tmp_path)
    assert status.returncode == 0, status.stderr
    assert "cifar10" in status.stdout
    assert "fer2013" in status.stdout
