"""Fixtures for all tests."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nnlib import kernels

os.environ["TQDM_DISABLE"] = "1"  # no progress bars between the dots
# The first use chooses between NumPy and compiled kernels for good: a test that sets NNLIB_KERNELS for workers would
# choose for all tests after it, which would then compare NumPy with itself.
assert callable(kernels.relu_forward)
# A process says once that it compiles kernels: here in whichever test needs the first one that is not kept, which may
# be a test that counts lines. What is said is tested in processes of their own.
if runtime := sys.modules.get("nnlib.kernels.runtime"):
    runtime._Announcer.told = True


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets ($NNLIB_DATA); without it the test is skipped, or fails under CI."""
    named = os.environ.get("NNLIB_DATA")
    if named and Path(named).is_dir():
        return Path(named)
    message = f"needs the real data: set NNLIB_DATA to their folder (it is {named!r}, no such folder)"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own, empty, as the working directory."""
    (tmp_path / "nnlib").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NNLIB_RUNS", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch on one thread, the independent implementation; without it the test is skipped, or fails under CI."""
    try:
        import torch
    except ImportError as error:
        message = f"compares with PyTorch, which cannot be imported ({error}): pip install torch"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(message)
        pytest.skip(message)
    torch.set_num_threads(1)
    return torch
