"""What every kernel demands of its arrays: one float type, rows without gaps, and that they may be written to."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from nnlib.functional.checks import Array

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def twin(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a compiled function the twin of one in `nnlib.functional`, which serves what is not compiled.

    That is every call whose float arrays are not all float32 or all float64.
    """

    def decorate(compiled: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            dtype = None
            for argument in (*arguments, *options.values()):
                if type(argument) is np.ndarray and argument.dtype.kind != "b":
                    if dtype is None:
                        dtype = argument.dtype
                    if argument.dtype != dtype or dtype not in FLOATS:
                        return function(*arguments, **options)
            return compiled(*arguments, **options)

        return call

    return decorate


def packed(array: Array) -> Array:
    """Return the array, or a copy in C order; a read-only one as a writable view, for which alone kernels are compiled.

    Kernels write into none of their operands.
    """
    if array.flags.carray:
        return array
    array = np.ascontiguousarray(array)
    return array if array.flags.writeable else np.asarray(_Writable(array))


class _Writable:
    """Shows a read-only array's memory as writable."""

    def __init__(self, array: Array) -> None:
        self.array = array  # keeps the memory alive
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}


def rows(array: Array) -> Array:
    """Return the array (..., C), packed, as (rows, C)."""
    return packed(array).reshape(-1, array.shape[-1])


_NOTHING = {dtype: (np.empty(0, dtype=dtype), np.empty((0, 0), dtype=dtype)) for dtype in FLOATS}


def no_vector(dtype: Any) -> Array:
    """Return what stands for a vector that is not there."""
    return _NOTHING[dtype][0]


def no_matrix(dtype: Any) -> Array:
    """Return what stands for a matrix that is not there."""
    return _NOTHING[dtype][1]
