"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest

os.environ["TQDM_DISABLE"] = "1"  # no progress bars between the dots


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
