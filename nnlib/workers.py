"""Trials in worker processes on this machine: the client's end, and ``python -m nnlib.workers FD``, a worker's.

A worker is a fresh interpreter, so that it reads how many threads it may use before NumPy does, and that what the
client's main module is, a script, a notebook or standard input, does not matter. It lives no longer than its standard
input is open, that is than the client.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections import Counter
from multiprocessing.connection import Connection, wait
from typing import Any

from nnlib.history import EpochRecord
from nnlib.study import Parameters
from nnlib.trial import Done, Epoch, Outcome, Task

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
DEATHS = 10  # of workers at one trial; the next one ends the search


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalWorkers:
    """So many workers, of so many threads each. A dead one's trial runs again on another."""

    def __init__(self, task: Task, count: int, threads: int) -> None:
        self.slots = count
        self._task, self._threads = task, threads
        self._idle: list[_Worker] = []
        self._busy: dict[Connection[Any, Any], _Worker] = {}
        self._deaths: Counter[int] = Counter()
        try:
            for _ in range(count):
                self._idle.append(_Worker(threads))
        except BaseException:
            self.close()
            raise

    def submit(self, number: int, parameters: Parameters) -> None:
        """Have a trial run. At most ``slots`` trials may run at once."""
        worker = self._idle.pop() if self._idle else _Worker(self._threads)
        self._busy[worker.connection] = worker
        worker.begin(self._task, number, parameters)

    def next(self) -> Epoch | Done:
        """Wait for what happens next. Raises RuntimeError for a trial that fails or ends one worker after another."""
        while True:
            for connection in wait(list(self._busy)):
                assert isinstance(connection, Connection)
                worker = self._busy[connection]
                try:
                    said = connection.recv()
                except (EOFError, OSError):
                    self._replace(worker)
                    continue
                if isinstance(said, EpochRecord):
                    return Epoch(worker.number, said, worker.answer)
                self._idle.append(self._busy.pop(connection))
                if isinstance(said, Outcome):
                    return Done(worker.number, said)
                message, trace = said
                error = RuntimeError(f"trial {worker.number}: {message}")
                error.add_note(trace)
                raise error

    def _replace(self, worker: "_Worker") -> None:
        """Run a dead worker's trial again, unless the worker gave up or the trial has ended too many."""
        del self._busy[worker.connection]
        status, number = worker.end(), worker.number
        self._deaths[number] += 1
        if status >= 0:
            raise RuntimeError(f"the worker of trial {number} ended with status {status}; it said why above")
        if self._deaths[number] > DEATHS:
            last = signal.Signals(-status).name
            raise RuntimeError(
                f"trial {number} ended {self._deaths[number]} workers, the last by {last}; does it need more memory?"
            )
        self.submit(number, worker.parameters)

    def close(self) -> None:
        """End the workers, also those in the middle of a trial."""
        workers = [*self._idle, *self._busy.values()]
        for worker in workers:
            worker.close_input()
        for worker in workers:
            worker.end()
        self._idle, self._busy = [], {}


class _Worker:
    """The client's end of one worker."""

    def __init__(self, threads: int) -> None:
        self.number, self.parameters, self._told = -1, Parameters(), False
        self.connection, theirs = multiprocessing.Pipe()
        with theirs:
            self._process = subprocess.Popen(
                # -P: what lies in the working directory is no module, whatever its name.
                [sys.executable, "-P", "-m", "nnlib.workers", str(theirs.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **dict.fromkeys(THREADS, str(threads)), "TQDM_DISABLE": "1"},
                process_group=0,  # Ctrl-C is the client's alone
            )

    def begin(self, task: Task, number: int, parameters: Parameters) -> None:
        """Send a trial; the first time, the task with it. That the worker is dead turns up when it is listened to."""
        self.number, self.parameters = number, parameters
        with contextlib.suppress(OSError):
            if not self._told:
                self.connection.send(task)
            self._told = True
            self.connection.send(parameters)

    def answer(self, stop: bool) -> None:
        """Tell whether to stop after an epoch."""
        with contextlib.suppress(OSError):
            self.connection.send(stop)

    def close_input(self) -> None:
        """Let the worker end."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end(self) -> int:
        """Wait for the worker's end, which is near, and return its status; below 0 a signal ended it."""
        self.close_input()
        self.connection.close()
        try:
            return self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def main() -> None:
    """Run the trials that the client sends."""
    threading.Thread(target=_end_with_the_client, daemon=True).start()
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))

    def report(epoch: EpochRecord) -> bool:
        connection.send(epoch)
        return connection.recv()

    with contextlib.suppress(EOFError, ConnectionError):
        task = connection.recv()
        while True:
            parameters = connection.recv()
            try:
                said: Any = task.run(parameters, report)
            except (EOFError, ConnectionError):
                raise
            except Exception as error:
                message = " ".join(str(error).split()) or type(error).__name__
                said = message, traceback.format_exc()
            connection.send(said)


def _end_with_the_client() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
