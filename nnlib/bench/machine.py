"""What the machine can do, in a process of its own: the rate of a matrix product and of a copy."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nnlib import records

MULTIPLICATIONS, COPIES = 6, 12  # the best of so many counts


def describe(matrix: int, copied: int, threads: int) -> dict[str, Any]:
    """Return the machine, the versions that a time depends on, and the two rates."""
    rates = {"peak_gflops": product_rate(matrix), "copy_gbs": copy_rate(copied)}
    # Afterwards: where kernels are compiled, `records.machine` looks at them, which starts their threads.
    machine = records.machine()
    machine |= {"processor": machine["processor"] + generation(records.cpuinfo()), "threads": threads}
    return {"machine": machine, "versions": records.versions(), **rates}


def generation(cpuinfo: Mapping[str, str]) -> str:
    """Return the x86 family and model as `` (family 25, model 17)``, or nothing where the system does not tell them.

    Virtual machines call several generations of a processor by one name, and one of them may be twice as fast.
    """
    if "cpu family" not in cpuinfo or "model" not in cpuinfo:
        return ""
    return f" (family {cpuinfo['cpu family']}, model {cpuinfo['model']})"


def product_rate(size: int) -> float:
    """Return the best rate of NumPy's float32 product of two size x size matrices, GFLOP/s."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    out = np.empty_like(a)
    return 2 * size**3 / _best(lambda: np.matmul(a, b, out=out), MULTIPLICATIONS) / 1e9


def copy_rate(size: int) -> float:
    """Return the best rate of `numpy.copyto` for ``size`` bytes, GB/s, each byte counted twice: read and written."""
    source, target = np.ones(size, dtype=np.uint8), np.zeros(size, dtype=np.uint8)
    return 2 * size / _best(lambda: np.copyto(target, source), COPIES) / 1e9


def _best(function: Callable[[], Any], times: int) -> float:
    function()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
