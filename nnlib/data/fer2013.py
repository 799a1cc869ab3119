"""FER2013: 35,887 grey photographs of faces, 48x48, with seven expressions (Goodfellow et al. 2013)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from .cache import Arrays, Fault, Layout, load
from .root import data_root
from .split import Split

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
USAGES = {"train": "Training", "test": "PublicTest", "private": "PrivateTest"}
COUNTS = {"train": 28_709, "test": 3_589, "private": 3_589}
SIDE = 48
COLUMNS = ("emotion", "pixels", "Usage")
OFFICIAL = frozenset({
    "f8428a1edbd21e88f42c73edd2a14f95",  # fer2013.csv
    "b114b9e04e6949e5fe8b6a98b3892b1d",  # icml_face_data.csv
})
# Kaggle's folders: `test` holds both test sets, told apart by file name.
USAGES_OF_FOLDER = {"train": ("Training",), "test": ("PublicTest", "PrivateTest")}

Face = tuple[str, np.ndarray, int]  # split, pixels (48, 48), label


def load_fer2013(split: str = "train", *, root: str | os.PathLike[str] | None = None) -> Split:
    """FER2013's "train" (Training), "test" (PublicTest) or "private" (PrivateTest) images, uint8 (N, 48, 48, 1).

    Reads fer2013.csv, icml_face_data.csv or fer2013/{train,test}/<emotion>/*, the first of them under the data root,
    memory-mapped from the cache. Raises ValueError for another split or a broken file, FileNotFoundError for absent
    data.
    """
    if split not in USAGES:
        raise ValueError(f"load_fer2013: expected split 'train', 'test' or 'private', got {split!r}")
    folder = data_root(root)
    found = next(layouts(folder), None)
    if found is None:
        raise FileNotFoundError(f"no FER2013 in {folder.absolute()}: expected fer2013.csv, icml_face_data.csv or "
                                "fer2013/{train,test}/<emotion>/ there; put one in, or set NNLIB_DATA")
    images, labels, official = load(found, split)
    release = "official release" if official else "a copy other than the official release"
    return Split(images, labels, CLASSES, source=f"FER2013, {USAGES[split]} images, {release}")


def layouts(root: Path) -> Iterator[Layout]:
    """The layouts of FER2013 under the root, the preferred one first."""
    for name, file in (("csv", "fer2013.csv"), ("icml_csv", "icml_face_data.csv")):
        if (root / file).is_file():
            yield Layout("fer2013", name, root, file, (file,), partial(_from_csv, root / file), COUNTS, OFFICIAL)
    if any((root / "fer2013" / part).is_dir() for part in USAGES_OF_FOLDER):
        files = tuple(_listing(root))
        yield Layout("fer2013", "folders", root, "fer2013", files, partial(_from_folders, root, files), COUNTS)


def _gather(faces: Iterator[Face], source: Path, fault: Fault) -> Arrays:
    pixels: dict[str, list[np.ndarray]] = {}
    labels: dict[str, list[int]] = {}
    for split, face, label in faces:
        pixels.setdefault(split, []).append(face)
        labels.setdefault(split, []).append(label)
    if not pixels:
        fault(ValueError(f"{source} holds no images; replace it with a fresh copy"))
    return {split: (np.stack(pixels[split])[..., None], np.array(labels[split])) for split in USAGES if split in pixels}


def _from_csv(path: Path, fault: Fault) -> Arrays:
    return _gather(_csv_faces(path, fault), path, fault)


def _csv_faces(path: Path, fault: Fault) -> Iterator[Face]:
    """The rows of a CSV whose header names emotion, pixels and Usage, in any order and with spaces around them."""
    with path.open("rb") as lines:
        header = [name.strip(b' "\r\n\xef\xbb\xbf').decode("latin1") for name in lines.readline().split(b",")]
        if sorted(header) != sorted(COLUMNS):
            fault(ValueError(f"{path}: expected the columns {', '.join(COLUMNS)}, got {','.join(header)[:80]!r}"))
            return
        order = [header.index(column) for column in COLUMNS]
        for number, line in enumerate(lines, 2):
            if line.strip():
                try:
                    yield _csv_face(line, order)
                except ValueError as error:
                    fault(ValueError(f"{path}, row {number}: {error}; mend the row or use a fresh copy"))


def _csv_face(line: bytes, order: list[int]) -> Face:
    cells = [cell.strip(b' "\r\n') for cell in line.split(b",")]
    if len(cells) != len(COLUMNS):
        raise ValueError(f"expected {len(COLUMNS)} cells, got {len(cells)}")
    emotion, pixels, usage = (cells[index] for index in order)
    if not emotion.isdigit() or int(emotion) >= len(CLASSES):
        raise ValueError(f"expected an emotion 0..{len(CLASSES) - 1}, got {_quoted(emotion)}")
    split = _split_of(usage.decode("latin1"))
    if split is None:
        raise ValueError(f"expected Usage {', '.join(USAGES.values())}, got {_quoted(usage)}")
    return split, _pixels(pixels).reshape(SIDE, SIDE), int(emotion)


def _split_of(usage: str) -> str | None:
    return next((split for split, name in USAGES.items() if name == usage), None)


def _pixels(text: bytes) -> np.ndarray:
    """2304 numbers 0..255 with one space between them, as uint8: the digits are summed column by column."""
    characters = np.frombuffer(text + b" ", np.uint8)
    ends = np.flatnonzero(characters == ord(" "))
    digits = characters - np.uint8(ord("0"))  # wraps around: every other character becomes more than 9
    lengths = np.diff(ends, prepend=-1) - 1
    plain = len(ends) == SIDE * SIDE == np.count_nonzero(digits > 9) and lengths.min() >= 1 and lengths.max() <= 3
    if not plain:
        return _pixels_checked(text)
    values = digits[ends - 1].astype(np.uint16)
    for place, power in ((2, 10), (3, 100)):
        values += np.where(lengths >= place, digits[ends - place], 0) * np.uint16(power)
    return values.astype(np.uint8) if values.max() <= 255 else _pixels_checked(text)


def _pixels_checked(text: bytes) -> np.ndarray:
    """The same with any white space, and an error that says what is wrong; about 20 times as slow."""
    words = text.split()
    for word in words:
        if not word.isdigit() or int(word[:9]) > 255:
            raise ValueError(f"expected pixels 0..255, got {_quoted(word)}")
    if len(words) != SIDE * SIDE:
        raise ValueError(f"expected {SIDE * SIDE} pixels, got {len(words)}")
    return np.array([int(word) for word in words], np.uint8)


def _quoted(text: bytes) -> str:
    return repr(text[:20].decode("latin1"))


def _listing(root: Path) -> Iterator[str]:
    """Every file under fer2013/train and fer2013/test, in one order on all systems; hidden files are passed over."""
    for part in USAGES_OF_FOLDER:
        for folder, names, files in os.walk(root / "fer2013" / part):
            names[:] = sorted(name for name in names if not name.startswith("."))
            inside = Path(folder).relative_to(root).as_posix()
            yield from (f"{inside}/{name}" for name in sorted(files) if not name.startswith("."))


def _from_folders(root: Path, files: tuple[str, ...], fault: Fault) -> Arrays:
    return _gather(_folder_faces(root, files, fault), root / "fer2013", fault)


def _folder_faces(root: Path, files: tuple[str, ...], fault: Fault) -> Iterator[Face]:
    for name in files:
        try:
            yield _folder_face(root, PurePosixPath(name))
        except ValueError as error:
            fault(ValueError(f"{root / name}: {error}"))


def _folder_face(root: Path, path: PurePosixPath) -> Face:
    """The image at fer2013/<train or test>/<emotion>/<Usage>_<number>.<png or jpg>."""
    if len(path.parts) != 4 or path.parts[2] not in CLASSES or path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError("expected only images in <emotion>/ here; move it out of fer2013/")
    _, part, emotion, name = path.parts
    usage, split = name.split("_")[0], _split_of(name.split("_")[0])
    if split is None or usage not in USAGES_OF_FOLDER[part]:
        expected = " or ".join(f"{usage}_" for usage in USAGES_OF_FOLDER[part])
        raise ValueError(f"expected a file name that starts with {expected} in {part}/; rename it or move it out")
    return split, _read_image(root / path), CLASSES.index(emotion)


def _read_image(path: Path) -> np.ndarray:
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            size = image.size
            face = np.asarray(image.convert("L")) if size == (SIDE, SIDE) else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not a PNG or JPEG" if "cannot identify" in str(error) else error
        raise ValueError(f"damaged image ({reason}); replace it with a fresh copy") from error
    if face is None:
        raise ValueError(f"expected {SIDE}x{SIDE} pixels, got {size[0]}x{size[1]}; resize it or move it out")
    return face
