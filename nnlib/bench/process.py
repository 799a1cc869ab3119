"""The measuring side's end of a worker: starting it, asking it, and saying why it ended."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any, Self

from nnlib.bench.works import Work

THREADS = min(2, os.cpu_count() or 1)  # of every side
_UNTOUCHED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # overrides of what OpenBLAS finds out itself: not passed on
# glibc's malloc, told to keep what is freed, as nnlib tells it from within (nnlib.memory)
_KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62), "MALLOC_TOP_PAD_": str(64 * 2**20)}
_SETTINGS: dict[str, dict[str, str]] = {"numpy": {"NNLIB_KERNELS": "numpy"}, "tuned": _KEEP_MEMORY}


def environment(side: str) -> dict[str, str]:
    """Return the environment of a side's worker."""
    inherited = {name: value for name, value in os.environ.items() if name not in _UNTOUCHED}
    threads = {name: str(THREADS) for name in ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return {**inherited, **threads, **_SETTINGS.get(side, {})}


class Worker:
    """A side at work in a process of its own. Raises RuntimeError, with its last words, where it ends unasked."""

    def __init__(self, side: str, work: Work | None = None) -> None:
        self.name = f"the {side} worker" + (f" of {work.name}" if work else "")
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed with the worker)
        described = work.to_json() if work else "null"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nnlib.bench.worker", side, str(THREADS), described],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(side),
        )
        try:
            self.parameters: int | None = self._read()
        except BaseException:
            self.close()
            raise

    def ask(self, task: str, **request: Any) -> Any:
        """Return the worker's answer, see `nnlib.bench.worker`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # reading then tells why
            self._process.stdin.write(json.dumps({"task": task, **request}) + "\n")
            self._process.stdin.flush()
        return self._read()

    def errors(self) -> list[str]:
        """Return the lines that the worker wrote to its standard error."""
        self._errors.seek(0)
        return [line for line in self._errors.read().splitlines() if line.strip()]

    def close(self) -> None:
        """End the worker."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            last = (self.errors() or [f"exit status {status}"])[-1]
            raise RuntimeError(f"bench: {self.name} ended: {last}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
