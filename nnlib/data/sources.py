"""What of the real data sets is on this machine, and whether it is whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import cifar10, fer2013
from .cache import Layout, checksums, counts, folder_name, homes, intact, known_checksums, store
from .root import EXPECTED, checkout_root, data_root

__all__ = ["Row", "Verification", "checkout_root", "data_root", "status", "verify"]

MOST_DEFECTS = 20  # lines for one layout: a file broken throughout would fill the screen


@dataclass(frozen=True)
class Row:
    """One layout of a set under the data root."""

    dataset: str
    layout: str
    path: str  # relative to the root
    images: dict[str, int]  # by split; {} before the first load
    state: str
    checksum: str


@dataclass(frozen=True)
class Verification:
    """What `verify` found: a row for each layout, and one line for each defect."""

    rows: tuple[Row, ...]
    defects: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.defects


def status(root: str | os.PathLike[str] | None = None) -> tuple[Row, ...]:
    """A row for each layout under the data root; looks at sizes and times, and reads no image.

    Raises FileNotFoundError if there is no data root or nothing in it.
    """
    return tuple(_status(layout) for layout in _layouts(data_root(root)))


def verify(
    root: str | os.PathLike[str] | None = None, *, progress: Callable[[str], None] = lambda _: None
) -> Verification:
    """Compute every checksum anew and decode every image; what is whole is cached for the next load.

    `progress` gets each layout's path before it is read. A checksum is held to the official one or to that of the
    first load. Raises FileNotFoundError if there is no data root or nothing in it.
    """
    rows, defects = [], []
    for layout in _layouts(data_root(root)):
        progress(layout.where)
        row, faults = _verify(layout)
        rows.append(row)
        defects += faults[:MOST_DEFECTS]
        if len(faults) > MOST_DEFECTS:
            defects.append(f"{layout.root / layout.where}: {len(faults) - MOST_DEFECTS} more defects")
    return Verification(tuple(rows), tuple(defects))


def _layouts(root: Path) -> list[Layout]:
    found = [*cifar10.layouts(root), *fer2013.layouts(root)]
    if not found:
        raise FileNotFoundError(f"no data set in {root.absolute()}: expected {EXPECTED}; put one in, or set NNLIB_DATA")
    return found


def _status(layout: Layout) -> Row:
    known, images, state, checksum = known_checksums(layout), {}, "not read yet", "not computed"
    if missing := layout.missing():
        state = f"incomplete: {', '.join(missing)} missing"
    elif set(known) == set(layout.files) and all(one.fits(layout.root / name) for name, one in known.items()):
        name = folder_name(layout, known)
        images = next((held for home in homes(layout.root) if (held := counts(home / name))), {})
        state = "ready" if images else "not read yet"
        checksum = "official release" if all(one.official for one in known.values()) else "another copy"
    elif known:
        state = "changed since it was read"
    return Row(layout.dataset, layout.name, layout.where, images, state, checksum)


def _verify(layout: Layout) -> tuple[Row, list[str]]:
    where, faults, images, verdict = layout.root / layout.where, list[str](), dict[str, int](), "not computed"
    try:
        known = known_checksums(layout)
        sums = {} if layout.missing() else checksums(layout, {})  # decoding names the missing files
        if sums:
            changed = [name for name, one in sums.items() if name in known and known[name].sha256 != one.sha256]
            faults += [_changed(layout, name) for name in changed]
            verdict = _verdict(changed, known, [one.official for one in sums.values()])
        arrays = layout.decode(lambda fault: faults.append(str(fault)))
    except OSError as error:
        faults.append(f"{where} cannot be read: {error}")
        return Row(layout.dataset, layout.name, layout.where, images, "broken", verdict), faults
    images = {split: len(labels) for split, (_, labels) in arrays.items()}
    faults += [f"{where} holds {count} {split} images, expected {layout.expected[split]}; use a fresh copy"
               for split, count in images.items() if count != layout.expected[split]]
    if not faults and not any(intact(home / folder_name(layout, sums)) for home in homes(layout.root)):
        store(layout, sums, arrays)
    return Row(layout.dataset, layout.name, layout.where, images, "broken" if faults else "whole", verdict), faults


def _verdict(changed: list[str], known: object, official: list[bool]) -> str:
    if changed:
        return "changed since the first load"
    if all(official):
        return "official release"
    return "another copy, as at the first load" if known else "another copy, read for the first time"


def _changed(layout: Layout, name: str) -> str:
    manifest = next(path for home in homes(layout.root) if (path := home / f"{layout.key}.json").is_file())
    return (f"{layout.root / name} changed since the first load (its SHA-256 differs); restore it, or remove "
            f"{manifest} if the change is meant")
