"""Faults injected for real: kill -9 at random moments, and a disk that is full."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nnlib import Solver, checkpoint, models
from nnlib.data import Split

RUN = [sys.executable, str(Path(__file__).with_name("training_run.py"))]


def start(run_dir, result):
    """Start the run and return its process once it trains."""
    process = subprocess.Popen([*RUN, str(run_dir), str(result)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"training\n"
    return process


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(tmp_path):
    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    process = start(tmp_path / "whole", whole)
    training_started = time.perf_counter()
    assert process.wait(timeout=300) == 0
    length = time.perf_counter() - training_started
    moments = random.Random(1)
    kills = 0
    while kills < 10:
        process = start(tmp_path / "cut", cut)
        time.sleep(moments.uniform(0, length / 4))
        process.send_signal(signal.SIGKILL)
        if process.wait(timeout=300) == -signal.SIGKILL:
            kills += 1
            continue
        assert cut.read_text() == whole.read_text(), f"after {kills} kills"  # ended unharmed; begin again
        cut.unlink()
        shutil.rmtree(tmp_path / "cut")
    assert start(tmp_path / "cut", cut).wait(timeout=300) == 0
    assert cut.read_text() == whole.read_text()


FULL_DISK = """
import sys
import resource, signal
from pathlib import Path
from nnlib import checkpoint
# Beyond this size the kernel refuses to write, as it does on a full disk.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    checkpoint.write_bytes(Path(sys.argv[1]), b"n" * 100_000)
except OSError as error:
    print(error)
"""


def test_a_refused_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    checkpoint.write_bytes(path, b"old")
    result = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=60)
    assert "could not save" in result.stdout, result.stderr
    assert "the previous file is kept" in result.stdout
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 KB, where the system lets us mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    if not mounted or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place]).returncode:
        pytest.skip("needs the right to mount a small file system; test_a_refused_write covers the same code")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_stops_training_and_keeps_the_last_checkpoint(small_disk):
    rng = np.random.default_rng(0)
    data = Split(rng.integers(0, 256, size=(40, 8, 8, 3), dtype=np.uint8), rng.integers(0, 3, size=40))

    def solver():
        return Solver(models.mlp((8, 8, 3), (64,), 3, rng=np.random.default_rng(1)), data, epochs=4, run_dir=small_disk)

    whole = solver()
    whole.fit()
    path = small_disk / "checkpoint.safetensors"
    before = path.read_bytes()
    (small_disk / "filler").write_bytes(b"x" * (290_000 - path.stat().st_size))
    with pytest.raises(OSError, match=r"could not save .*No space left on device; the previous file is kept"):
        solver().fit()
    assert path.read_bytes() == before
    assert {p.name for p in small_disk.iterdir()} == {"checkpoint.safetensors", "filler"}
