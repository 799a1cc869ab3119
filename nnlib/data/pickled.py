"""Read the pickles of CIFAR-10's Python layout without ever calling what they name.

A pickle is a program. These need dictionaries, lists, integers, byte strings and one NumPy array, so the opcodes
are held to that, and the four names that occur are answered with the stand-ins below.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np

# What Python 2 wrote (the official files, protocol 2) and what Python 3 writes for the same objects.
OPCODES = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "NONE", "NEWTRUE",
    "NEWFALSE", "BININT", "BININT1", "BININT2", "SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES",
    "BINBYTES", "BINUNICODE", "SHORT_BINUNICODE", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "TUPLE",
    "TUPLE1", "TUPLE2", "TUPLE3", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET", "GLOBAL",
    "STACK_GLOBAL", "REDUCE", "BUILD",
})


def unpickle(raw: bytes) -> Any:
    """The object of a CIFAR-10 pickle, its array as a PickledArray. Raises ValueError for anything else."""
    try:
        _check_opcodes(raw)
        return _Unpickler(io.BytesIO(raw), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can fail in any way, and always means the same
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"not an intact CIFAR-10 pickle ({reason})") from error


def _check_opcodes(raw: bytes) -> None:
    """Refuse opcodes that these files do not hold, and memo numbers for which the unpickler would reserve gigabytes."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
        if opcode.name not in OPCODES:
            raise ValueError(f"opcode {opcode.name} is not allowed")
        if opcode.name == "LONG_BINPUT" and argument is not None and argument > count:
            raise ValueError(f"memo number {argument} is out of range")


class _StandIn:
    """Holds what the pickle says; a pickle cannot alter the class itself, since BUILD finds this method first."""

    def __setstate__(self, state: object) -> None:
        raise ValueError("unexpected state")


class _Bytes(_StandIn):
    """For _codecs.encode, which is how Python 3 writes bytes in protocol 2."""

    def __new__(cls, text: str, encoding: str) -> Any:
        if encoding not in ("latin1", b"latin1"):
            raise ValueError(f"encoding {encoding!r} is not allowed")
        return text.encode("latin1")


class _Type(_StandIn):
    """For numpy.dtype: its name, and no byte order worth keeping, as only single bytes are read."""

    def __init__(self, name: object, _align: object, _copy: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        return


class PickledArray(_StandIn):
    """For numpy.core.multiarray._reconstruct: an array of bytes, checked before NumPy sees it."""

    def __init__(self, _kind: object, _shape: object, _code: object) -> None:
        self.pixels = np.zeros((0, 0), np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, column_major, raw = state
        if not isinstance(dtype, _Type) or dtype.name not in ("u1", b"u1") or not isinstance(raw, bytes):
            raise ValueError("expected an array of uint8")
        if not all(type(size) is int and size >= 0 for size in shape) or math.prod(shape) != len(raw):
            raise ValueError(f"an array of shape {shape} does not fit {len(raw)} bytes")
        self.pixels = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if column_major else "C")


STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): PickledArray,
    ("numpy", "ndarray"): "numpy.ndarray",
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _Bytes,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STAND_INS:
            raise ValueError(f"it names {module}.{name}, which is not allowed")
        return STAND_INS[module, name]
