"""An uncompressed, memory-mapped cache of decoded images, keyed by the source's size and checksum.

A cache folder holds, for each layout of a set, a manifest `<key>.json` (size, time and SHA-256 of every source
file) and the arrays in `<key>-<digest of the checksums>/`. Both appear by renaming, whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1  # part of the key: another number leaves older caches unread
ABANDONED = 3600.0  # seconds after which an unfinished cache has lost its writer

Fault = Callable[[ValueError], None]
Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


def stop_at(fault: ValueError) -> None:
    """The Fault handler of a load: the first defect ends it."""
    raise fault


@dataclass(frozen=True)
class Layout:
    """One form in which a data set lies under the root.

    decode(fault) returns {split: (uint8 images (N, H, W, C), labels (N,))}; it hands each defect to `fault`,
    and goes on without the defective part if that returns.
    """

    dataset: str
    name: str
    root: Path
    where: str  # the file or folder, relative to the root
    files: tuple[str, ...]  # every file that is read, relative to the root
    decode: Callable[[Fault], Arrays]
    expected: Mapping[str, int]  # images by split in the whole set
    official: frozenset[str] = frozenset()  # MD5 sums of the official release's files

    @property
    def key(self) -> str:
        return f"{self.dataset}-{self.name}"

    def missing(self) -> list[str]:
        return [name for name in self.files if not (self.root / name).is_file()]


@dataclass(frozen=True)
class Checksum:
    """A source file as it was when it was last read."""

    size: int
    mtime_ns: int
    sha256: str
    official: bool

    @classmethod
    def of(cls, path: Path, official: frozenset[str]) -> Checksum:
        """Read the whole file. MD5 serves to recognise the official release, which is published with it."""
        stat = path.stat()
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        with path.open("rb") as handle:
            while block := handle.read(1 << 20):
                sha256.update(block)
                if official:
                    md5.update(block)
        return cls(stat.st_size, stat.st_mtime_ns, sha256.hexdigest(), md5.hexdigest() in official)

    def fits(self, path: Path) -> bool:
        stat = path.stat()
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime_ns)


def known_checksums(layout: Layout) -> dict[str, Checksum]:
    """The checksums of the last load; {} before the first, or if the manifest is unreadable."""
    for home in homes(layout.root):
        try:
            stored = json.loads((home / f"{layout.key}.json").read_text())
            return {name: Checksum(*row) for name, row in stored.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            continue
    return {}


def checksums(layout: Layout, known: dict[str, Checksum]) -> dict[str, Checksum]:
    """The checksum of every file of the layout: the known one where size and time still fit, else computed."""
    sums = {}
    for name in layout.files:
        path, before = layout.root / name, known.get(name)
        sums[name] = before if before and before.fits(path) else Checksum.of(path, layout.official)
    return sums


def homes(root: Path) -> tuple[Path, Path]:
    """The cache folders, in order of preference: under the root, and the user's for a root that is read-only."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return root / ".nnlib-cache", user / "nnlib" / hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]


def folder_name(layout: Layout, sums: dict[str, Checksum]) -> str:
    """The name of the folder of arrays decoded from files with these checksums."""
    lines = [f"format {FORMAT}", *(f"{name} {sums[name].sha256}" for name in sorted(sums))]
    return f"{layout.key}-{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:16]}"


def load(layout: Layout, split: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """(images, labels, whether it is the official release) of a split, through the cache; images are memory-mapped.

    Raises ValueError for a defect in the source, FileNotFoundError for a split that it does not hold, OSError if the
    cache cannot be written.
    """
    if missing := layout.missing():
        raise FileNotFoundError(f"{layout.root.absolute() / layout.where} is incomplete: {', '.join(missing)} missing; "
                                "put a fresh copy in place")
    known = known_checksums(layout)
    sums = checksums(layout, known)
    name = folder_name(layout, sums)
    folder = next((home / name for home in homes(layout.root) if intact(home / name, split)), None)
    if folder is None:
        folder = store(layout, sums, layout.decode(stop_at))
    elif sums != known:
        with contextlib.suppress(OSError):  # a read-only folder: the checksums are computed again next time
            _write_manifest(folder.parent, layout, sums)
    if split not in counts(folder):
        held = ", ".join(counts(folder)) or "no"
        raise FileNotFoundError(f"{layout.root / layout.where} holds no {split!r} images, only {held} images")
    images = np.asarray(np.load(folder / f"{split}.images.npy", mmap_mode="r"))
    labels = np.load(folder / f"{split}.labels.npy")
    return images, labels, all(one.official for one in sums.values())


def counts(folder: Path) -> dict[str, int]:
    """Images by split in a folder of arrays; {} if there is none or it is broken."""
    return {split: row["images"] for split, row in _contents(folder).items()}


def intact(folder: Path, split: str | None = None) -> bool:
    """Whether the folder's arrays (of one split, or all) are as they were written."""
    contents = _contents(folder)
    wanted = [row for name, row in contents.items() if split in (None, name)]
    try:
        return bool(contents) and all(_crc(folder / name) == crc for row in wanted for name, crc in row["crc"].items())
    except OSError:
        return False


def _contents(folder: Path) -> dict[str, Any]:
    """{split: {"images": count, "crc": {file: CRC-32}}}, or {} if there is none or it is broken."""
    try:
        stored = json.loads((folder / "contents.json").read_text())
        splits: dict[str, Any] = stored["splits"]
        return splits if stored["crc"] == zlib.crc32(json.dumps(splits).encode()) else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _crc(path: Path) -> int:
    value = 0
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def store(layout: Layout, sums: dict[str, Checksum], arrays: Arrays) -> Path:
    """Write the arrays into the first cache folder that takes them, and the manifest beside them."""
    errors = []
    for home in homes(layout.root):
        try:
            home.mkdir(parents=True, exist_ok=True)
            temporary = home / f"{layout.key}.partial-{uuid.uuid4().hex}"
            temporary.mkdir()
        except OSError as error:  # a read-only root: the next folder
            errors.append(f"{home}: {error.strerror}")
            continue
        try:
            _write_arrays(temporary, arrays)
            folder = _move_in(temporary, home / folder_name(layout, sums))
            _write_manifest(home, layout, sums)
        except OSError as error:
            size = sum(images.nbytes + labels.nbytes for images, labels in arrays.values()) >> 20
            raise OSError(f"the cache of {layout.where} ({size} MiB) could not be written in {home}: "
                          f"{error.strerror or error}; free some space there") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _sweep(home, layout, folder)
        return folder
    raise OSError(f"no folder for the cache of {layout.where} ({'; '.join(errors)}); make one of them writable")


def _write_arrays(folder: Path, arrays: Arrays) -> None:
    splits = {}
    for split, (images, labels) in arrays.items():
        parts = {f"{split}.images.npy": images, f"{split}.labels.npy": labels.astype(np.int64)}
        for name, array in parts.items():
            np.save(folder / name, array)
        splits[split] = {"images": len(images), "crc": {name: _crc(folder / name) for name in parts}}
    contents = {"splits": splits, "crc": zlib.crc32(json.dumps(splits).encode())}
    (folder / "contents.json").write_text(json.dumps(contents))


def _move_in(temporary: Path, folder: Path) -> Path:
    """Rename into place; a folder already there is kept if it is intact (another process was faster)."""
    if folder.exists():
        if intact(folder):
            return folder
        shutil.rmtree(folder)
    temporary.rename(folder)
    return folder


def _write_manifest(home: Path, layout: Layout, sums: dict[str, Checksum]) -> None:
    """Replace the manifest, whole or not at all."""
    temporary = home / f"{layout.key}.partial-{uuid.uuid4().hex}"
    try:
        temporary.write_text(json.dumps({name: astuple(one) for name, one in sums.items()}))
        temporary.replace(home / f"{layout.key}.json")
    finally:
        temporary.unlink(missing_ok=True)


def _sweep(home: Path, layout: Layout, keep: Path) -> None:
    """Remove this layout's arrays of other checksums, and what a killed process left unfinished."""
    for folder in home.glob(f"{layout.key}-*"):
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
    for folder in home.glob(f"{layout.key}.partial-*"):
        if time.time() - folder.stat().st_mtime > ABANDONED:
            shutil.rmtree(folder, ignore_errors=True)
