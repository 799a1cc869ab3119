"""Arrays and text in one safetensors file, written so that a crash at any moment leaves the old file or the new one."""

import contextlib
import os
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from nnlib.functional.checks import Array


def write(path: str | PathLike[str], tensors: Mapping[str, Array], metadata: dict[str, str]) -> None:
    """Write named arrays and metadata to ``path`` as safetensors. Raises OSError, with the old file intact."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    write_bytes(path, safetensors.numpy.save(contiguous, metadata))


def read(path: str | PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """Return ``(tensors, metadata)`` of a safetensors file.

    Raises FileNotFoundError, ValueError if it is broken or holds numbers that NumPy does not have, such as bfloat16.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: expected a safetensors file, found none")
    try:
        with safetensors.safe_open(path, framework="numpy") as handle:
            metadata = handle.metadata() or {}
            return {name: handle.get_tensor(name) for name in handle.keys()}, metadata  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path}: expected a safetensors file, got a broken one or another kind ({error}); remove or replace it"
        ) from error
    except (TypeError, AttributeError) as error:  # how NumPy says that it has no such dtype
        raise ValueError(f"{path}: expected tensors of float16, 32 or 64 ({error}); convert and save again") from error


def check_writable(path: str | PathLike[str]) -> None:
    """Raise OSError unless `write_bytes` can write to ``path``, to tell it before long work; makes the folder.

    A device is refused as well: the file that replaced it would take its place.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(f"could not save {path}: expected the path of a file, got that of a folder or device")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(error.errno, f"could not save {path}: {error.strerror}") from error


def write_bytes(path: str | PathLike[str], content: bytes) -> None:
    """Replace the file at ``path`` with ``content``: temporary file, fsync, rename, fsync of the folder.

    Raises OSError that names the path; the old file is then as it was, and no temporary file is left.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        kept = "the previous file is kept" if path.exists() else "nothing was written"
        raise OSError(error.errno, f"could not save {path}: {error.strerror}; {kept}") from error
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def fill(arrays: Mapping[str, Array], tensors: Mapping[str, Array], source: str) -> None:
    """Write ``tensors`` into the arrays of the same names. All names and shapes that do not fit are told at once."""
    problems = [f"{name} is missing" for name in arrays if name not in tensors]
    problems += [f"{name} is unexpected" for name in tensors if name not in arrays]
    problems += [
        f"{name} has shape {tensors[name].shape}, expected {array.shape}"
        for name, array in arrays.items()
        if name in tensors and tensors[name].shape != array.shape
    ]
    if problems:
        raise ValueError(f"{source}: its tensors do not fit the network: {'; '.join(problems)}")
    for name, array in arrays.items():
        array[...] = tensors[name]
