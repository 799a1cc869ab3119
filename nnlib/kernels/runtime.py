"""How kernels are compiled, kept on disk, and shared out among threads. Importing this module imports numba."""

import hashlib
import os
import sys
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numba
from numba.core import event
from numba.core.caching import FunctionCache
from numba.np.ufunc import parallel as pool

# One kernel at a time: each uses every thread there is, and numba's own thread pool, the one that is always at hand,
# ends the process when it is entered twice.
_ENTERED = threading.Lock()
SMALL = 32768  # numbers that one thread passes over about as soon as it has woken another
_COMPLAINTS: set[str] = set()  # each is told once

# Numba looks at the time stamp of the file that a kernel stands in, not at those of the files it calls.
_SOURCES = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()


class _Cache(FunctionCache):
    """Numba's cache on disk, which is allowed to fail: what cannot be read is compiled, what cannot be kept is not."""

    def __init__(self, function: Callable[..., Any], parallel: bool) -> None:
        super().__init__(function)
        self._parallel = parallel

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), _SOURCES, self._parallel)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # a damaged file fails in any way that unpickling can
            _complain(f"could not read compiled kernels from {self.cache_path} ({_reason(error)}); they are made anew")
            self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _complain(f"could not keep compiled kernels in {self.cache_path} ({_reason(error)}); set NUMBA_CACHE_DIR")

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            _complain(f"could not write to {self.cache_path} ({_reason(error)}); set NUMBA_CACHE_DIR")


def inline(function: Callable[..., Any]) -> Any:
    """Compile a function that only kernels call; it becomes part of them."""
    return numba.njit(error_model="numpy", boundscheck=False)(function)


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that Python calls, its loops over `prange` in parallel, without holding the interpreter.

    Its last argument is the number of threads; for one it is compiled without them, which saves waking the others.
    """
    many, one = (_dispatcher(function, parallel) for parallel in (True, False))

    @wraps(function)
    def call(*arguments: Any) -> Any:
        if arguments[-1] == 1:
            return one(*arguments)
        with _ENTERED:
            return many(*arguments)

    return call


def _dispatcher(function: Callable[..., Any], parallel: bool) -> Any:
    dispatcher: Any = numba.njit(parallel=parallel, nogil=True, error_model="numpy", boundscheck=False)(function)
    try:
        dispatcher._cache = _Cache(function, parallel)
    except RuntimeError:  # numba found no folder that it may write to
        _complain("no folder to keep compiled kernels in; each process compiles them; set NUMBA_CACHE_DIR")
    return dispatcher


def threads() -> int:
    """Return how many threads a kernel may use (NUMBA_NUM_THREADS, else the processors)."""
    # numba.get_num_threads first takes two locks, in case the threads have not been started: they have.
    return int(pool._get_num_threads())  # type: ignore[attr-defined]  # made when they start


def threads_for(numbers: int) -> int:
    """Return how many threads a pass over so many numbers is worth: one, where waking another takes longer."""
    return threads() if numbers > SMALL else 1


def threads_for_product(rows: int, numbers: int) -> int:
    """Return how many threads a product of so many rows with a matrix of so many numbers is worth.

    One thread does about 16 multiply-adds in the time in which it reads a number from memory.
    """
    return threads_for(numbers + rows * numbers // 16)


class _Announcer(event.Listener):
    """Tells once in a process that kernels are being compiled, so that nobody waits without knowing for what."""

    told = False

    def on_start(self, event: Any) -> None:
        module = event.data["dispatcher"].py_func.__module__
        if not self.told and module.startswith("nnlib."):
            self.told = True
            print("nnlib: compiling kernels for this processor, once; this takes up to a minute", file=sys.stderr)

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _Announcer())


def _start_threads() -> None:
    """Start numba's threads so that they soon sleep while they wait for work.

    GNU's OpenMP, which numba takes where it is at hand, lets a waiting thread spin for milliseconds. Where another pool
    of threads (that of NumPy's BLAS, say) or another program wants the processor, the thread that is waited for cannot
    run then: steps took fifteen times as long. About thirty microseconds of spinning bridge the gap between two
    kernels. The setting is read from the environment when OpenMP is loaded, whatever was imported before.
    """
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ)
    if not chosen:
        os.environ["GOMP_SPINCOUNT"] = "10000"
    try:
        pool._launch_threads()
    finally:
        if not chosen:
            del os.environ["GOMP_SPINCOUNT"]


_start_threads()


def _complain(text: str) -> None:
    if text not in _COMPLAINTS:
        _COMPLAINTS.add(text)
        print(f"nnlib: {text}", file=sys.stderr)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
