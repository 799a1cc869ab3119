"""Where the real data sets lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path

EXPECTED = (
    "cifar-10-batches-py/, cifar-10-batches-bin/ or their .tar.gz; "
    "fer2013.csv, icml_face_data.csv or fer2013/{train,test}/<emotion>/"
)


def checkout_root() -> Path | None:
    """The project's checkout: the nearest folder with pyproject.toml and nnlib/, from the working directory up."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "nnlib").is_dir():
            return folder
    return None


def data_root(explicit: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the data sets: `explicit`, else $NNLIB_DATA, else ./data, else data/ of the checkout.

    A folder that is named (by `explicit` or $NNLIB_DATA) is not replaced by another one.
    Raises FileNotFoundError, saying where it looked and what belongs there, if there is no such folder.
    """
    named = os.environ.get("NNLIB_DATA")
    if explicit is not None:
        places = [Path(explicit)]
    elif named:
        places = [Path(named)]
    else:
        checkout = checkout_root()
        places = [Path.cwd() / "data", *([checkout / "data"] if checkout else [])]
    for place in places:
        if place.is_dir():
            return place
    looked = " or ".join(dict.fromkeys(map(str, places)))
    raise FileNotFoundError(f"no data folder: looked for {looked}; make it hold {EXPECTED}, or set NNLIB_DATA to it")
