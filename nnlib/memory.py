"""Memory that is used again from step to step, and arrays that begin with a cache line.

A training step makes and drops the same large arrays each time. By default glibc's malloc maps arrays above a threshold
afresh from the kernel and gives them back when they are freed, so every step touches new pages, and each page's first
touch is a fault that costs more than the arithmetic on it. Told never to map single blocks nor to give memory back,
malloc serves them from its own free list: the next step finds the pages of the last. Of the ways to get there (buffers
handed through every layer, a pool that looks at arrays' reference counts, malloc's own settings) this one needs no
line in any layer, serves NumPy's temporaries as well as the kernels' results, and cannot hand out memory that somebody
still holds. Its price: the process keeps the memory of its largest step. Threads share one arena, since malloc would
map large blocks for the others. Elsewhere than with glibc nothing is set, and things are right but slower.
"""

import ctypes
import functools
import math
from typing import Any

import numpy as np

from nnlib.functional.checks import Array

# mallopt's names, from malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
NEVER = -1  # as an unsigned number of bytes at the heap's end, from which it would shrink
GROWTH = 64 * 2**20  # bytes by which it grows
LINE = 64  # bytes of a cache line
SMALL = 2**15  # bytes below which the microsecond that finding a line takes is not worth it


@functools.cache
def keep_freed_memory() -> bool:
    """Tell malloc, once in a process, to keep what is freed for what comes next; return whether it understood."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: NEVER, M_TOP_PAD: GROWTH, M_ARENA_MAX: 1}
    understood = [mallopt(option, value) for option, value in settings.items()]
    return all(understood)


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an array of any content that begins with a cache line, unless it is small.

    A vector that is as long as a line and does not begin with one is read from two. malloc promises 16 bytes, and which
    of the four places in a line it gives differs from process to process: steps took up to a tenth longer, inference
    of a single input up to a third.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL:
        return np.empty(shape, dtype)
    memory = np.empty(size + LINE, dtype=np.uint8)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory.data))  # memory.ctypes.data takes three times as long
    return np.ndarray(shape, dtype, memory, -address % LINE)


def zeros_like(array: Array) -> Array:
    """Return zeros of an array's shape and type that begin as `empty`'s do."""
    zeros = empty(array.shape, array.dtype)
    zeros[...] = 0
    return zeros
