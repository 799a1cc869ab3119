"""What a finished experiment leaves behind: a JSON file that is sealed, and beside it the arrays it names."""

import hashlib
import importlib.metadata
import io
import json
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from nnlib import checkpoint, kernels, metrics
from nnlib.functional.checks import Array
from nnlib.history import EpochRecord, History, StepRecord

# Raised by a change that moves results in the last bit, or changes the images that the library draws: records of
# another numerics version are made anew.
NUMERICS = 2
REPLAYED = 20  # steps whose losses are stored to the last bit


@dataclass(frozen=True)
class Record:
    """The result of one experiment and all that it depended on."""

    name: str
    profile: str
    numerics: int  # the library's numerics version
    config: dict[str, Any]  # the experiment
    data: dict[str, Any]  # source: in words; synthetic: bool; classes; fingerprints of train, val and test
    history: History
    first_losses: list[str]  # of the first steps, as hexadecimal floats: exact
    metrics: dict[str, float]
    seconds: float  # wall time of the training, pauses apart
    versions: dict[str, str]
    machine: dict[str, Any]
    arrays: dict[str, Array] = field(repr=False)  # test_probabilities float16, test_labels, and what else was kept

    @property
    def probabilities(self) -> Array:
        """Test probabilities (N, classes), float16 as stored."""
        return self.arrays["test_probabilities"]

    @property
    def labels(self) -> Array:
        """Test labels (N,), int64."""
        return self.arrays["test_labels"].astype(np.int64)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names in label order."""
        return tuple(self.data["classes"])

    @property
    def source(self) -> str:
        """Where the data comes from, for captions."""
        return source_of(self.data)

    @property
    def confusion(self) -> Array:
        """Confusion matrix (C, C) of the test data."""
        return metrics.confusion_matrix(self.labels, self.probabilities.argmax(axis=1), len(self.classes))


def source_of(data: dict[str, Any]) -> str:
    """Return where data comes from, for captions; a copy that is not the official release goes by its fingerprint."""
    # The set and the release, or that it is synthetic; the split's name between them is left out.
    name, *_, release = str(data["source"]).split(", ")
    source = f"{name}, {release}"
    if data["synthetic"] or (source.endswith("official release") and "other than" not in source):
        return source
    split, words = ("test", "test") if "test" in data["fingerprints"] else ("train", "training")
    return f"{source} ({words} images' fingerprint {data['fingerprints'][split][:8]})"


def path_of(folder: Path, name: str) -> Path:
    """Return where a record's JSON lies."""
    return folder / f"{name}.json"


def save(record: Record, folder: Path) -> None:
    """Write a record, arrays first: until the JSON is replaced the old record stays whole. Raises OSError."""
    content = _npz({**record.arrays, "steps": np.array(record.history.steps, dtype=np.float32)})
    digest = hashlib.sha256(content).hexdigest()
    arrays = folder / f"{record.name}-{digest[:8]}.npz"
    body = {key: value for key, value in vars(record).items() if key not in ("arrays", "history")}
    body["epochs"] = [list(epoch) for epoch in record.history.epochs]
    body["arrays"] = {"file": arrays.name, "sha256": digest}
    checkpoint.write_bytes(arrays, content)
    text = json.dumps(sealed(body), indent=1)
    checkpoint.write_bytes(path_of(folder, record.name), text.encode())
    for old in folder.glob(f"{record.name}-????????.npz"):
        if old != arrays:
            old.unlink()


def load(folder: Path, name: str) -> Record:
    """Return a stored record. Raises FileNotFoundError, and ValueError for one changed since it was written."""
    body = unsealed(path_of(folder, name))
    arrays_path, digest = folder / body["arrays"]["file"], body["arrays"]["sha256"]
    content = arrays_path.read_bytes() if arrays_path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != digest:
        state = "was changed" if content else "is missing"
        raise ValueError(f"{arrays_path}: the record's arrays file {state}; {_MEND}")
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        arrays = dict(stored)
    steps = [StepRecord(int(row[0]), *row[1:].tolist()) for row in arrays.pop("steps")]
    history = History(steps, [EpochRecord(*row) for row in body.pop("epochs")])
    return Record(**{**body, "arrays": arrays, "history": history})


_MEND = "restore it, or remove it to train again"


def sealed(body: dict[str, Any]) -> dict[str, Any]:
    """Return a record's body with its seal, which tells whether it was changed after it was written."""
    return {**body, "seal": _seal(body)}


def unsealed(path: Path) -> dict[str, Any]:
    """Return the body of a sealed file. Raises FileNotFoundError, and ValueError for one changed or of another kind."""
    try:
        body = json.loads(path.read_text())
        seal = body.pop("seal")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected a record, got a file that is none ({error}); {_MEND}") from error
    if seal != _seal(body):
        raise ValueError(f"{path}: the record was changed after it was written (its seal does not match); {_MEND}")
    return body


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    compiler = {"numba": importlib.metadata.version("numba")} if kernels.accelerated() else {}
    return {"python": platform.python_version(), "numpy": np.__version__, **compiler}


def machine() -> dict[str, Any]:
    """Return what of the machine a result's last bits depend on: the processor, the BLAS, its kernels and threads."""
    blas = [
        {key: pool.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas"
    ]
    machine: dict[str, Any] = {"system": platform.system(), "processor": _processor()}
    machine |= {"cores": os.cpu_count(), "blas": sorted(blas, key=str)}
    if kernels.accelerated():
        from nnlib.kernels import runtime, tile  # numba takes a moment to import

        machine["kernels"] = {"vector_bytes": tile.VECTOR_BYTES, "threads": runtime.threads()}
    return machine


def made_here(record: Record) -> bool:
    """Return whether a record's last bits can be expected here: same versions, processor, BLAS, kernels and threads."""
    # The BLAS libraries of NumPy and SciPy are listed in no order of their own, and older records keep any.
    blas = sorted(record.machine.get("blas", []), key=str)
    return record.versions == versions() and {**record.machine, "blas": blas} == machine()


def cpuinfo(path: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Return what Linux tells of the first processor, by its names for it; nothing on another system."""
    if not path.is_file():
        return {}
    first, _, _ = path.read_text().partition("\n\n")
    fields = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in fields}


def _processor() -> str:
    return cpuinfo().get("model name") or platform.processor() or platform.machine()


def _npz(arrays: dict[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _seal(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
