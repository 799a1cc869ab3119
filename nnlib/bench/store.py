"""Runs in a JSON file: a list to which each run of the benchmark is added."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

from nnlib import checkpoint


def load(path: str | PathLike[str]) -> list[dict[str, Any]]:
    """Return the runs in a file, [] where there is none. Raises ValueError for a file of another kind, OSError."""
    path = Path(path)
    if not path.exists():
        return []
    try:
        runs = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: expected runs of nnlib bench, got a file that is no JSON ({error})") from error
    if not isinstance(runs, list) or not all(isinstance(run, dict) and "rows" in run for run in runs):
        raise ValueError(f"{path}: expected a list of runs of nnlib bench, got JSON of another kind")
    return runs


def save(path: str | PathLike[str], runs: list[dict[str, Any]]) -> None:
    """Write runs to a file, replacing it at once. Raises OSError; the old file is then as it was."""
    checkpoint.write_bytes(path, (json.dumps(runs, indent=1) + "\n").encode())
