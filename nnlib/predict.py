"""A folder of pictures through a saved network.

A saved network's metadata says how it wants to be used: "preprocessing" (JSON, see `Preprocessing`) and "classes" (a
JSON list of names). A network saved without them gets the defaults, and its classes are called "0", "1" and so on.
"""

import csv
import dataclasses
import io
import json
import math
import os
import stat
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nnlib import progress
from nnlib.data.root import checkout_root
from nnlib.functional.checks import Array
from nnlib.network import EVALUATION_BATCH, Network, load

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")  # what is tried, whatever the suffix says
LARGEST = 64_000_000  # pixels, those of an 8,000 x 8,000 picture: a quarter of a gigabyte when it is decoded
LARGEST_FILE = 300_000_000  # bytes: such a picture without any compression, and a little more
SMALLEST = 8  # pixels a side: fewer show no face, and a 1x1 picture is a mistake rather than a picture
UNREADABLE = -1  # the class of a file that could not be read

Filter = Literal["box", "bilinear", "bicubic", "lanczos"]


class Unreadable(ValueError):
    """A file that gives no picture; the message says why, in one line."""


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the input of a network, and how its probabilities are taken.

    In this order:

    1. The picture is turned upright, as its EXIF orientation says.
    2. Transparent parts are put on ``background``, a grey level from 0 to 255.
    3. A network of one channel gets luma, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), one of three channels RGB. Of 16
       bits a channel the upper 8 count; colour profiles are ignored.
    4. With ``crop`` the largest centred part of the network's proportions is cut out, a square for 48x48; without, the
       whole picture is squashed to them.
    5. It is brought to the network's size by the filter ``resample``, widened where the picture shrinks, against
       aliasing. What has that size already is not touched.
    6. With ``mirrored`` the probabilities are the mean over the picture and its left-right mirror image.

    No face is looked for: a picture should show what the training pictures show, as large as they do.
    Raises ValueError or TypeError for other values.
    """

    background: int = 255
    crop: bool = True
    resample: Filter = "bilinear"
    mirrored: bool = False

    def __post_init__(self) -> None:
        if type(self.background) is not int or not 0 <= self.background <= 255:
            raise ValueError(f"preprocessing: expected background 0 to 255, got {self.background!r}")
        if self.resample not in get_args(Filter):
            raise ValueError(f"preprocessing: expected resample {', '.join(get_args(Filter))}, got {self.resample!r}")
        for name in ("crop", "mirrored"):
            if type(getattr(self, name)) is not bool:
                raise TypeError(f"preprocessing: expected {name} true or false, got {getattr(self, name)!r}")

    def apply(self, picture: Image.Image, shape: tuple[int, ...]) -> Array:
        """Return an opened picture as the input of a network: uint8 of ``shape`` (height, width, 1 or 3)."""
        height, width, channels = shape
        ImageOps.exif_transpose(picture, in_place=True)
        flat = self._flatten(picture, "L" if channels == 1 else "RGB")
        method = Image.Resampling[self.resample.upper()]
        size = width, height
        sized = ImageOps.fit(flat, size, method) if self.crop else flat.resize(size, method)
        return np.asarray(sized).reshape(shape)

    def _flatten(self, picture: Image.Image, mode: str) -> Image.Image:
        """Return the picture in ``mode``, without transparency."""
        if picture.mode.startswith("I"):  # 16 bits: Pillow would cut off at 255
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        if "transparency" in picture.info:  # one colour, or a palette's opacities
            picture = picture.convert("RGBA")
        flat = picture.convert(mode)
        if "A" not in picture.getbands():
            return flat
        levels = (self.background,) * len(flat.getbands())
        under = Image.new(mode, picture.size, levels)
        under.paste(flat, mask=picture.getchannel("A"))
        return under


def metadata(preprocessing: Preprocessing, classes: Sequence[str]) -> dict[str, str]:
    """Return the metadata for `Network.save` that makes `predict` prepare pictures so, and name the classes."""
    told = {"preprocessing": dataclasses.asdict(preprocessing), "classes": list(classes)}
    return {key: json.dumps(value) for key, value in told.items()}


def read_picture(path: str | PathLike[str], shape: tuple[int, ...], preprocessing: Preprocessing) -> Array:
    """Return the picture in a file as uint8 of ``shape`` (height, width, 1 or 3). Raises Unreadable, and says why.

    JPEG, PNG, BMP and WebP are read, whatever the name says, between 8 pixels a side and 64 million pixels, which is
    seen in the header before anything is decoded. An animation is refused, since no frame of it is *the* picture.
    """
    try:
        _check_file(Path(path).stat())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # such as of sizes, which are checked here
            with Image.open(path, formats=FORMATS) as picture:
                _check_header(picture)
                return preprocessing.apply(picture, shape)
    except Unreadable:
        raise
    except Image.DecompressionBombError as error:
        raise Unreadable(_too_large("its header tells of more")) from error
    except UnidentifiedImageError as error:
        raise Unreadable("no JPEG, PNG, BMP or WebP picture, or one with a damaged header") from error
    except FileNotFoundError as error:
        raise Unreadable("no such file, or a link that leads nowhere") from error
    except Exception as error:  # on damaged files decoders raise nearly anything
        system = error.strerror if isinstance(error, OSError) else None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Unreadable(system or f"damaged picture ({reason})") from error


def _check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("not a regular file")
    if status.st_size > LARGEST_FILE:
        raise Unreadable(f"a file of {status.st_size:,} bytes; at most {LARGEST_FILE:,} are read")


def _check_header(picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > LARGEST:
        raise Unreadable(_too_large(f"it has {width:,} x {height:,}"))
    if min(width, height) < SMALLEST:
        raise Unreadable(f"{width}x{height} pixels show too little; expected at least {SMALLEST}x{SMALLEST}")
    # A JPEG of several pictures (MPO, which some phones write) holds further views of the first one, or depths.
    if picture.format in ("PNG", "WEBP") and getattr(picture, "is_animated", False):
        raise Unreadable("animated; expected a picture that stands still: save the frame that counts")


def _too_large(what: str) -> str:
    return f"too large to be decoded: at most {LARGEST:,} pixels, and {what}; make it smaller"


class Classifier:
    """A network, and what its metadata says of its use.

    model: a network, the path of a saved one, or the name of one in the checkout's ``models/``. Raises
    FileNotFoundError for no such file, ValueError for one that is no network or takes no pictures.
    """

    def __init__(self, model: Network | str | PathLike[str]) -> None:
        if isinstance(model, Network):
            self.network, self.source = model, "the network"
        else:
            path = find_model(model)
            self.network, self.source = load(path), str(path)
        shape = self.network.input_shape
        try:
            if len(shape) != 3 or shape[2] not in (1, 3):
                raise ValueError(f"expected inputs that are pictures (height, width, 1 or 3), they are {shape}")
            self.preprocessing = Preprocessing(**self._stored("preprocessing", dict, {}))
            self.classes: list[str] = self._stored("classes", list, [])
            if not all(isinstance(name, str) for name in self.classes):
                raise ValueError(f"expected its classes to be names, got {json.dumps(self.classes)[:80]}")
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.source}: {error}") from error

    def _stored(self, key: str, kind: type, default: Any) -> Any:
        """Return what the metadata holds under ``key``, JSON of the given kind."""
        text = self.network.metadata.get(key)
        if text is None:
            return default
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, kind):
            raise ValueError(f"expected its {key} to be a {kind.__name__} in JSON, got {text[:80]!r}")
        return value

    def probabilities(self, inputs: Array) -> Array:
        """Return the class probabilities (N, classes) of pictures (N, height, width, channels) uint8.

        Raises ValueError for a network that does not give them.
        """
        try:
            result = self.network.predict_proba(inputs, mirrored=self.preprocessing.mirrored)
            if not np.isfinite(result).all():
                raise ValueError("its probabilities are not finite: its weights are damaged")
            if self.classes and result.shape[1] != len(self.classes):
                raise ValueError(f"its metadata names {len(self.classes)} classes, its outputs are {result.shape[1]}")
        except ValueError as error:
            raise ValueError(f"{self.source}: {error}") from error
        return result

    def classify(self, files: Sequence[Path], bar: Any) -> list["Prediction"]:
        """Return a prediction for each file, in order; ``bar`` moves on by one with each."""
        inputs: list[Array] = []
        reasons: dict[Path, str] = {}
        for file in files:
            try:
                inputs.append(read_picture(file, self.network.input_shape, self.preprocessing))
            except Unreadable as error:
                reasons[file] = str(error)
            bar.update()
        rows = iter(self.probabilities(np.stack(inputs)) if inputs else ())
        return [
            Prediction(file.name, UNREADABLE, "", math.nan, reasons[file])
            if file in reasons
            else self._prediction(file.name, next(rows))
            for file in files
        ]

    def _prediction(self, file: str, probabilities: Array) -> "Prediction":
        best = int(probabilities.argmax())
        return Prediction(file, best, self.classes[best] if self.classes else str(best), float(probabilities[best]), "")


def model_path(name: str) -> Path:
    """Return where the checkout keeps a network for people to run."""
    return (checkout_root() or Path.cwd()) / "models" / f"{name}.safetensors"


def find_model(model: str | PathLike[str]) -> Path:
    """Return the path of a saved network, given by name (see `model_path`) or by path."""
    named = model_path(str(model))
    path = named if str(model) == Path(model).name and named.is_file() else Path(model)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in named.parent.glob("*.safetensors"))) or "there is none yet"
        raise FileNotFoundError(f"no network {str(model)!r}: expected a name ({names}) or the path of a saved network")
    return path


class Prediction(NamedTuple):
    """What the network says of one file."""

    file: str  # its name in the folder
    number: int  # of the most probable class, from 0; -1 if the file could not be read
    label: str  # the name of that class, else ""
    probability: float  # of that class, else nan
    error: str  # why the file could not be read; "" if it could


def predict_folder(folder: str | PathLike[str], model: Network | str | PathLike[str]) -> Array:
    """Return the most probable class of each picture in a folder: (N,) int64, -1 where the file could not be read.

    One entry for each file whose name ends in .jpg, .jpeg, .png, .bmp or .webp (in any case) and does not begin with a
    dot, in lexicographic order of the names; folders inside are not entered. ``model`` is a network, the path of a
    saved one or a name in ``models/``; how pictures are prepared is `Preprocessing`, as stored in its metadata. Files
    that could not be read are told on standard error, a line each, as is how many entries were passed over.
    Raises OSError for a folder that cannot be read, ValueError for one without pictures and for an unfit network.
    """
    return np.array([prediction.number for prediction in predictions(folder, model)], dtype=np.int64)


def predictions(folder: str | PathLike[str], model: Network | str | PathLike[str]) -> list[Prediction]:
    """Return what `predict_folder` does with the classes' names, the probabilities and what was wrong."""
    listing = Listing.of(Path(folder))
    classifier = Classifier(model)
    result: list[Prediction] = []
    with progress.bar(len(listing.files), "picture") as bar:
        for start in range(0, len(listing.files), EVALUATION_BATCH):
            result += classifier.classify(listing.files[start : start + EVALUATION_BATCH], bar)
    for line in _remarks(result, listing):
        print(f"nnlib: {line}", file=sys.stderr)
    return result


class Listing(NamedTuple):
    """What lies in a folder."""

    files: list[Path]  # the pictures, judged by their names, in lexicographic order
    others: int  # files of other kinds, and hidden ones
    folders: int

    @classmethod
    def of(cls, folder: Path) -> "Listing":
        """Raises FileNotFoundError or NotADirectoryError for no folder, ValueError for one without pictures."""
        if not folder.exists():
            raise FileNotFoundError(f"{folder}: expected a folder of pictures, found nothing")
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder}: expected a folder of pictures, got a file")
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
        files = [entry for entry in entries if not entry.is_dir()]
        pictures = [file for file in files if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
        listing = cls(pictures, len(files) - len(pictures), len(entries) - len(files))
        if not pictures:
            raise ValueError(f"{folder}: no picture in it ({', '.join(SUFFIXES)}); {listing.passed_over}")
        return listing

    @property
    def passed_over(self) -> str:
        others = f"{self.others:,} other or hidden file{'s' * (self.others != 1)}"
        folders = f"{self.folders:,} folder{'s' * (self.folders != 1)}"
        return f"{others} and {folders} inside were passed over"


def _remarks(result: Sequence[Prediction], listing: Listing) -> list[str]:
    """Return what is to be told on standard error: a line for each unreadable file, and what was passed over."""
    unreadable = [prediction for prediction in result if prediction.error]
    lines = [f"{_one_line(prediction.file)}: {prediction.error}" for prediction in unreadable]
    if unreadable:
        lines.append(f"{len(unreadable):,} of {len(result):,} pictures could not be read; their class is {UNREADABLE}")
    if listing.others or listing.folders:
        lines.append(listing.passed_over)
    return lines


def _one_line(name: str) -> str:
    """Return a file's name, quoted and escaped if it holds line ends or what a terminal takes for commands."""
    return name if name.isprintable() else ascii(name)


def as_csv(result: Sequence[Prediction]) -> str:
    """Return predictions as CSV: file,class,label,probability,error; probabilities to six decimals.

    In a file's name, bytes that are no UTF-8 and carriage returns, which some readers take for line ends, are escaped.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "class", "label", "probability", "error"))
    for file, number, label, probability, error in result:
        name = os.fsencode(file).decode("utf-8", "backslashreplace").replace("\r", "\\r")
        writer.writerow((name, number, label, "" if error else f"{probability:.6f}", error))
    return text.getvalue()
