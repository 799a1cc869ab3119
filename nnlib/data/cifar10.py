"""CIFAR-10: 60,000 photographs of ten classes, 32x32 in colour (Krizhevsky 2009)."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from .cache import Arrays, Fault, Layout, load
from .pickled import PickledArray, unpickle
from .root import data_root
from .split import Split

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
ALL_BATCHES = BATCHES["train"] + BATCHES["test"]
PIXELS = 3 * 32 * 32
COUNTS = {"train": 50_000, "test": 10_000}
OFFICIAL = frozenset({
    "c58f30108f718f92721af3b95e74349a",  # cifar-10-python.tar.gz
    "c32a1d4ab5d03f1284b67883e8d87530",  # cifar-10-binary.tar.gz
    "c99cafc152244af753f735de768cd75f",  # data_batch_1 ... 5
    "d4bba439e000b95fd0a9bffe97cbabec",
    "54ebc095f3ab1f0389bbae665268c751",
    "634d18415352ddfa80567beed471001a",
    "482c414d41f54cd18b22e5b47cb7c3cb",
    "40351d587109b95175f43aff81a1287e",  # test_batch
})

Batch = tuple[np.ndarray, np.ndarray]


def load_cifar10(split: str = "train", *, root: str | os.PathLike[str] | None = None) -> Split:
    """CIFAR-10's "train" (50,000) or "test" (10,000) images, uint8 (N, 32, 32, 3), memory-mapped from the cache.

    Reads cifar-10-batches-py/, cifar-10-batches-bin/, cifar-10-python.tar.gz or cifar-10-binary.tar.gz, the first of
    them under the data root. Raises ValueError for another split or a broken file, FileNotFoundError for absent data.
    """
    if split not in BATCHES:
        raise ValueError(f"load_cifar10: expected split 'train' or 'test', got {split!r}")
    folder = data_root(root)
    found = layouts(folder)
    if not found:
        raise FileNotFoundError(f"no CIFAR-10 in {folder.absolute()}: expected cifar-10-batches-py/, "
                                "cifar-10-batches-bin/ or their .tar.gz there; put one in, or set NNLIB_DATA")
    images, labels, official = load(found[0], split)
    release = "official release" if official else "a copy other than the official release"
    kind = {"train": "training", "test": "test"}[split]
    return Split(images, labels, CLASSES, source=f"CIFAR-10, {kind} images, {release}")


def layouts(root: Path) -> list[Layout]:
    """The layouts of CIFAR-10 under the root, the preferred one first."""
    found = []
    for name, suffix, folder, archive in (
        ("python", "", "cifar-10-batches-py", "cifar-10-python.tar.gz"),
        ("binary", ".bin", "cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
    ):
        if (root / folder).is_dir():
            files = tuple(f"{folder}/{batch}{suffix}" for batch in ALL_BATCHES)
            decode = partial(_decode, root / folder, suffix)
            found.append(Layout("cifar10", name, root, folder, files, decode, COUNTS, OFFICIAL))
        if (root / archive).is_file():
            decode = partial(_decode, root / archive, suffix)
            found.append(Layout("cifar10", f"{name}_archive", root, archive, (archive,), decode, COUNTS, OFFICIAL))
    return sorted(found, key=lambda layout: layout.name.endswith("_archive"))


def _decode(source: Path, suffix: str, fault: Fault) -> Arrays:
    """Decode every batch of a folder or an archive; a batch that is missing or broken is a fault."""
    read = _from_archive if source.is_file() else _from_folder
    decoded: dict[str, Batch] = {}
    for name, raw in read(source, suffix, fault):
        try:
            decoded[name] = binary_batch(raw) if suffix else python_batch(raw)
        except ValueError as error:
            fault(ValueError(f"{source / name}{suffix}: {error}; replace it with a fresh copy"))
    arrays = {}
    for split, names in BATCHES.items():
        parts = [decoded[name] for name in names if name in decoded]
        if parts:
            images, labels = zip(*parts, strict=True)
            arrays[split] = (np.concatenate(images), np.concatenate(labels))
    return arrays


def _from_folder(folder: Path, suffix: str, fault: Fault) -> Iterator[tuple[str, bytes]]:
    """(batch, contents) of the files in a folder."""
    for batch in ALL_BATCHES:
        try:
            yield batch, (folder / f"{batch}{suffix}").read_bytes()
        except OSError as error:
            fault(ValueError(f"{folder / batch}{suffix} cannot be read: {error.strerror}; put it in place"))


def _from_archive(archive: Path, suffix: str, fault: Fault) -> Iterator[tuple[str, bytes]]:
    """(batch, contents) of the members of a .tar.gz, streamed; nothing is unpacked to disk."""
    missing = [f"{batch}{suffix}" for batch in ALL_BATCHES]
    try:
        with gzip.open(archive) as unzipped, tarfile.open(fileobj=unzipped, mode="r|") as tar:
            for member in tar:
                # tarfile.data_filter asks for the same and more, but only from Python 3.11.4 on.
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts or member.issym() or member.islnk():
                    told = f"{archive} is not safe to read: {member.name!r} leads out of it"
                    fault(ValueError(f"{told}; download it again from its authors"))
                    return
                name = path.name
                stream = tar.extractfile(member) if member.isreg() and name in missing else None
                if stream is not None:
                    missing.remove(name)
                    yield name.removesuffix(suffix), stream.read()
            while unzipped.read(1 << 20):  # gzip compares its checksum when it comes to the end
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        fault(ValueError(f"{archive} is truncated or damaged ({error}); download it again"))
    if missing:
        fault(ValueError(f"{archive} lacks {', '.join(missing)}; download it again"))


def binary_batch(raw: bytes) -> Batch:
    """The binary layout: rows of one label byte and 3072 pixel bytes (red, green and blue planes)."""
    if not raw or len(raw) % (1 + PIXELS):
        raise ValueError(f"expected rows of {1 + PIXELS} bytes, got {len(raw)} bytes")
    rows = np.frombuffer(raw, np.uint8).reshape(-1, 1 + PIXELS)
    return _checked(rows[:, 1:], rows[:, 0])


def python_batch(raw: bytes) -> Batch:
    """The Python layout: a pickled dictionary with `data` (uint8, N x 3072) and `labels` (a list of N)."""
    batch = unpickle(raw)
    if not isinstance(batch, dict):
        raise ValueError(f"expected a pickled dictionary, got {type(batch).__name__}")
    batch = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    pixels, labels = batch.get("data"), batch.get("labels")
    if not isinstance(pixels, PickledArray) or not isinstance(labels, list):
        raise ValueError("expected an array `data` and a list `labels`")
    data = pixels.pixels
    if data.ndim != 2 or data.shape[1] != PIXELS:
        raise ValueError(f"expected data of shape (N, {PIXELS}), got {data.shape}")
    if not all(type(label) is int for label in labels):
        raise ValueError("expected integer labels")
    return _checked(data, np.array(labels, dtype=object))


def _checked(pixels: np.ndarray, labels: np.ndarray) -> Batch:
    """Images (N, 32, 32, 3) and int64 labels from planes (N, 3072)."""
    if len(pixels) != len(labels) or not len(labels):
        raise ValueError(f"expected a label for each image, got {len(labels)} labels for {len(pixels)} images")
    wrong = (labels < 0) | (labels >= len(CLASSES))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"image {row} has label {labels[row]}, expected 0..{len(CLASSES) - 1}")
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels.astype(np.int64)
