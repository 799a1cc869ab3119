"""The benchmark: what it counts, what it writes, and how it fails. Nothing here depends on how long anything takes."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nnlib import bench, cli, records
from nnlib.bench import machine, process, store, tables
from nnlib.bench.measure import ratio, same_size
from nnlib.bench.process import Worker, environment
from nnlib.bench.worker import timed
from nnlib.bench.works import WORKS, Work, count
from nnlib.layers import BatchNorm, Conv2d, GlobalAvgPool2d, Linear, MaxPool2d, Normalize, ReLU
from nnlib.models import mlp
from nnlib.network import Network, Sequential
from nnlib_report import readme

ROOT = Path(__file__).parents[1]
TINY = Work("tiny", "mlp", {"input_shape": (6,), "hidden": (4,), "classes": 3}, 5, (1, 8), numpy=True)
FEW = bench.Settings(rounds=2, seconds=0.001, matrix=64, copied=1000)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Workers compile nothing, and have one thread: PyTorch's two crawl where another program is at work."""
    monkeypatch.setenv("NNLIB_KERNELS", "numpy")
    monkeypatch.setattr(process, "THREADS", 1)


# ---- counting ------------------------------------------------------------------------------------------------------


def test_two_linear_layers_counted_by_hand():
    counted = count(mlp((6,), (4,), 3, rng=np.random.default_rng(0)))
    assert counted.parameters == 6 * 4 + 4 + 4 * 3 + 3
    assert counted.inference == 6 * 4 + 4 * 3
    # Forward and weight gradient of both, the gradient of the hidden layer, but none of the input.
    assert counted.training == 2 * (6 * 4 + 4 * 3) + 4 * 3
    assert counted.activations == 4 + 3
    assert counted.flops(train=True, batch=5) == 2 * 5 * 84
    assert counted.flops(train=False, batch=5) == 2 * 5 * 36
    # Five passes over the parameters, four over what is handed on, four bytes each.
    assert counted.traffic(5) == 4 * (5 * 43 + 4 * 5 * 7)


def test_convolutions_counted_by_hand():
    zeros = [np.zeros(shape, dtype=np.float32) for shape in ((3, 3, 2, 4), (1, 1, 4, 8), (8, 3))]
    layers = {
        "normalize": Normalize(2),
        "conv1": Conv2d(zeros[0], stride=2, padding=1),  # 8x6 to 4x3
        "norm": BatchNorm(4),
        "relu": ReLU(),
        "pool": MaxPool2d(2, stride=1),  # to 3x2
        "conv2": Conv2d(zeros[1], bias=False),
        "mean": GlobalAvgPool2d(),
        "fc": Linear(zeros[2]),
    }
    counted = count(Network(Sequential(layers), (8, 6, 2)))
    first, second, last = 4 * 3 * 4 * (3 * 3 * 2), 3 * 2 * 8 * 4, 8 * 3
    assert counted.parameters == (72 + 4) + 8 + 32 + (24 + 3)
    assert counted.inference == first + second + last
    assert counted.training == 2 * first + 3 * (second + last)
    assert counted.activations == 3 * 2 * 4 + 8 + 3  # after pooling, after the mean, the logits


def test_the_count_is_that_of_the_summary():
    network = Work("one", "face_cnn", {"input_shape": (16, 16, 1), "classes": 3}, 1).network()
    *_, parameters, operations = network.summary().splitlines()[-1].split()
    counted = count(network)
    assert (f"{counted.parameters:,}", f"{counted.inference:,}") == (parameters, operations)


def test_works_survive_the_way_to_a_worker():
    for work in (*WORKS.values(), TINY):
        assert Work.from_json(work.to_json()) == work


# ---- measuring -----------------------------------------------------------------------------------------------------


def test_a_run_of_nnlib_alone(monkeypatch):
    monkeypatch.setattr("nnlib.bench.measure.IMAGE_SIDES", (4, 8))
    monkeypatch.setattr("nnlib.bench.measure.BATCHES", (1, 2))
    lines = []
    run = bench.run([TINY], growth=True, settings=FEW, show=lines.append)
    assert json.loads(json.dumps(run)) == run
    assert run["works"]["tiny"] == {
        "batch": 5, "parameters": 43, "inference": 36, "training": 84, "activations": 7, "traffic_bytes": 1420,
    }  # fmt: skip
    told = [(row["side"], row["task"], row["batch"]) for row in run["rows"]]
    assert told == [("nnlib", "train", 5), ("numpy", "train", 5), ("nnlib", "infer", 1), ("nnlib", "infer", 8)]
    for row in run["rows"]:
        operations = 2 * row["batch"] * (84 if row["task"] == "train" else 36)
        assert row["gflops"] == pytest.approx(operations / row["seconds"] / 1e9)
        assert row["peak_share"] == pytest.approx(row["gflops"] / run["peak_gflops"])
        assert (row["memory_mib"] is None) == (row["task"] == "infer")
        assert row["against"] == {}
    assert run["rows"][0]["copy_share"] == pytest.approx(1420 / run["rows"][0]["seconds"] / 1e9 / run["copy_gbs"])
    assert 10 < run["rows"][0]["memory_mib"] < 5000
    assert run["machine"]["threads"] == 1
    assert [point["batch"] for point in run["growth"]["batch"]] == [1, 2]
    assert [point["side"] for point in run["growth"]["side"]] == [4, 8]
    assert run["machine"]["processor"] == records.machine()["processor"] + machine.generation(records.cpuinfo())
    assert run["machine"]["processor"] in lines[0]
    assert len({len(line) for line in lines[1:4]}) == 1
    assert sum("tiny" in line for line in lines) == 4


def test_a_run_against_torch(torch):
    work = Work("cnn", "small_cnn", {"input_shape": (8, 8, 1), "classes": 3}, 2, (1,))
    run = bench.run([work], torch=True, settings=FEW, show=lambda line: None)
    assert run["versions"]["torch"] == torch.__version__
    assert [row["task"] for row in run["rows"]] == ["train", "infer"]
    for row in run["rows"]:
        assert set(row["against"]) == {"torch", "tuned"}
        for other in row["against"].values():
            assert other["ratio"] == pytest.approx(other["seconds"] / row["seconds"])
            assert other["least"] <= other["most"]
            assert (other["memory_mib"] is None) == (row["task"] == "infer")


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("mlp", {"input_shape": (4, 4, 3), "hidden": (5, 4), "dropout": 0.5}),
        ("small_cnn", {"input_shape": (9, 8, 1)}),
        ("face_cnn", {"input_shape": (8, 8, 2)}),
        ("resnet", {"input_shape": (33, 33, 1), "depth": 50, "version": 1, "width": 2}),
        ("resnet", {"input_shape": (33, 33, 1), "depth": 101, "version": 1, "width": 2}),
    ],
)
@pytest.mark.parametrize("tuned", [False, True])
def test_torch_has_the_same_layout(model, options, tuned, torch):
    from nnlib.bench.pytorch import TorchSide

    work = Work("work", model, {**options, "classes": 3}, 2)
    network = work.network()
    side = TorchSide(work, tuned=tuned, threads=1, rate=0.001, momentum=0.9)
    sizes = [sorted(array.size for array in network.parameters.values())]
    sizes.append(sorted(parameter.numel() for parameter in side.model.parameters()))
    assert sizes[0] == sizes[1]
    assert side.parameters == network.vector.size
    assert np.isfinite(float(side.train(2)()))
    assert side.infer(3)().shape == network.forward(work.batch_of(3)[0]).shape
    if tuned and model != "mlp":
        assert side._batch(2)[0].is_contiguous(memory_format=torch.channels_last)


def test_ratios_are_of_medians_and_their_spread_of_rounds():
    assert ratio([3.0, 4.0, 8.0], [1.0, 2.0, 2.0]) == {"ratio": 2.0, "least": 2.0, "most": 4.0}


def test_networks_of_different_sizes_are_not_compared():
    wider = replace(TINY, options={**TINY.options, "hidden": (5,)})
    sides = {"nnlib": Worker("nnlib", TINY), "numpy": Worker("numpy", wider)}
    try:
        with pytest.raises(RuntimeError, match="got parameters: nnlib 43, numpy 53"):
            same_size(sides)
    finally:
        for worker in sides.values():
            worker.close()


def test_overrides_of_the_processor_are_not_passed_on(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "512")
    assert not {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"} & set(environment("nnlib"))
    assert environment("numpy")["NNLIB_KERNELS"] == "numpy"
    assert environment("tuned")["MALLOC_MMAP_MAX_"] == "0"


def test_a_task_runs_as_often_as_asked_and_stays_finite():
    assert len(timed(lambda: 1.0, 0.0, 3)) == 3
    with pytest.raises(FloatingPointError, match="NaN"):
        timed(lambda: np.array([1.0, np.nan]), 0.0, 1)


# ---- failing -------------------------------------------------------------------------------------------------------


def test_a_worker_that_ends_says_its_last_words():
    with pytest.raises(RuntimeError, match=r"^bench: the nnlib worker of tiny ended: AttributeError: .*no_model"):
        Worker("nnlib", Work("tiny", "no_model", {}, 1))
    with Worker("nnlib", TINY) as worker:
        worker._process.kill()
        with pytest.raises(RuntimeError, match="ended: exit status -9"):
            worker.ask("memory")


def test_without_torch_nothing_is_measured(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main(["bench", "fc", "--against", "torch"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "nnlib: bench: --against torch needs torch: pip install torch==2.13.0\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nothing"], 2, "no work 'nothing'; the works are fc, fc_dropout, small_cnn_64"),
        (["fc", "--rounds", "0"], 2, "--rounds of at least 1, got 0"),
        (["fc", "--json", "file/bench.json"], 1, "could not save file/bench.json"),
        (["fc", "--json", "text.json"], 1, "text.json: expected runs of nnlib bench, got a file that is no JSON"),
        (["fc", "--json", "other.json"], 1, "other.json: expected a list of runs of nnlib bench"),
    ],
)
def test_wrong_use_is_one_line_before_anything_is_measured(arguments, status, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "run", None)
    for name, text in {"file": "", "text.json": "runs", "other.json": '{"rows": []}'}.items():
        Path(name).write_text(text)
    assert cli.main(["bench", *arguments]) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_each_run_is_added_to_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(WORKS, "tiny", TINY)
    whole = bench.run
    monkeypatch.setattr(bench, "run", lambda works, settings, **options: whole(works, settings=FEW, **options))
    path = tmp_path / "bench.json"
    for number in (1, 2):
        assert cli.main(["bench", "tiny", "--rounds", "1", "--json", str(path)]) == 0
        assert len(store.load(path)) == number
    assert "training, 5" in capsys.readouterr().out


# ---- the README ----------------------------------------------------------------------------------------------------


def sample(seconds, share, torch, memory):
    """A run of one work in one task, as it is stored."""
    against = {
        side: {"seconds": seconds * times, "memory_mib": 500.0, "ratio": times, "least": times / 2, "most": times * 2}
        for side, times in (("torch", torch), ("tuned", torch / 2))
    }
    row = {
        "work": "fc", "side": "nnlib", "task": "train", "batch": 100, "seconds": seconds, "gflops": 100.0,
        "peak_share": share, "copy_share": 0.25, "memory_mib": memory, "against": against,
    }  # fmt: skip
    machine = {"processor": "A processor", "cores": 2, "threads": 2, "kernels": {"vector_bytes": 64}}
    return {
        "date": "2026-11-23T10:00:00+00:00", "machine": machine, "versions": {"numpy": "2.4.6"}, "load": 0.1,
        "peak_gflops": 190.0, "copy_gbs": 18.0, "rows": [row, {**row, "task": "infer", "batch": 1, "memory_mib": None}],
    }  # fmt: skip


def test_a_processor_is_told_by_family_and_model_where_linux_knows_them(tmp_path):
    path = tmp_path / "cpuinfo"
    assert machine.generation(records.cpuinfo(path)) == ""  # no Linux
    path.write_text("processor\t: 0\nBogoMIPS\t: 50.00\nCPU part\t: 0xd0c\n\n")  # an ARM
    assert machine.generation(records.cpuinfo(path)) == ""
    core = "processor\t: {}\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nflags\t: a b:c\n\n"
    path.write_text(core.format(0) + core.format(1))
    assert records.cpuinfo(path)["processor"] == "0"
    assert machine.generation(records.cpuinfo(path)) == " (family 25, model 17)"


def test_the_readme_shows_the_worst_of_three_runs(tmp_path):
    path = tmp_path / "report" / "bench.json"
    runs = [sample(0.010, 0.62, 1.8, 100.0), sample(0.012, 0.58, 1.5, 130.0), sample(0.011, 0.60, 2.0, 120.0)]
    before = copy.deepcopy(runs)
    store.save(path, runs)
    text = readme.bench_table(path)
    assert store.load(path) == before
    (line,) = [line for line in text.splitlines() if "training" in line]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "`fc`", "training, 100", "11.0", "100.0", "58 %", "25 %",
        "18.0", "1.50 (0.75-4.00)", "9.00", "0.75 (0.38-2.00)", "130 (500, 500)",
    ]  # fmt: skip
    assert text.count("A processor, 2 cores, 2 threads a side, 512-bit vectors, sgemm 190 GFLOP/s") == 1
    assert "Of 3 runs" in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {12}


def test_the_readme_tells_which_records_are_of_another_machine_than_most():
    def record(name, processor):
        return SimpleNamespace(name=name, machine={"processor": processor, "cores": 2}, versions={"numpy": "2.4"})

    records = [record("first", "A"), record("second", "B"), record("third", "B")]
    usual, other = readme._machines(records)
    assert usual == "Machine: B, 2 cores, NumPy 2.4. "
    assert other == "Machine of `first`: A, 2 cores, NumPy 2.4. "
    assert readme._machines([]) == []


def test_the_readme_has_a_table_for_each_machine_the_last_one_first(tmp_path):
    path = tmp_path / "bench.json"
    runs = [sample(0.010, 0.62, 1.8, 100.0), sample(0.012, 0.58, 1.5, 130.0), sample(0.020, 0.40, 0.9, 90.0)]
    runs[2]["machine"]["processor"] = "Another"
    store.save(path, runs)
    text = readme.bench_table(path)
    lines = [line for line in text.splitlines() if "training" in line]
    assert ["0.90" in line for line in lines] == [True, False]
    assert ["1.50" in line for line in lines] == [False, True]
    assert text.startswith("**Another, 2 cores**\n\n| work")
    assert text.count("Of 2 runs") == 1
    assert "\n\n**A processor, 2 cores**\n\n| work" in text


def test_the_readme_is_rewritten_between_its_marks(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "table", lambda: "results\n")
    path = tmp_path / "README.md"
    path.write_text("a\n<!-- results -->\nold\n<!-- /results -->\nb\n<!-- bench -->\nold\n<!-- /bench -->\nc\n")
    readme.update(path)
    parts = "a\n<!-- results -->\nresults\n<!-- /results -->\nb\n<!-- bench -->\n{}<!-- /bench -->\nc\n"
    assert path.read_text() == parts.format("Nothing was measured yet.\n")
    store.save(tmp_path / "report" / "bench.json", [sample(0.01, 0.6, 1.8, 100.0)])
    readme.update(path)
    assert "| `fc` | training, 100 | 10.0 |" in path.read_text()
    assert "Of 1 runs" not in path.read_text()


def test_runs_that_cannot_be_read_leave_the_readme_as_it_is(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("<!-- bench -->\nold\n<!-- /bench -->\n")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "bench.json").write_text("broken")
    ended = subprocess.run(
        [sys.executable, "-m", "nnlib_report.readme"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "report/bench.json: expected runs of nnlib bench, got a file that is no JSON" in line
    assert path.read_text() == "<!-- bench -->\nold\n<!-- /bench -->\n"


def test_the_readme_s_table_is_the_stored_runs():
    assert readme.bench_table(ROOT / readme.BENCH) in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.000_0123, "0.012"), (0.001_234, "1.23"), (0.0123, "12.3"), (0.123, "123"), (1.2, "1,200")]
)
def test_times_have_three_digits(seconds, text):
    assert tables.milliseconds(seconds) == text
