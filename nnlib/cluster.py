"""Trials on a Dask cluster: what `nnlib.workers` is on one machine, on many.

Dask's scheduler runs a trial again whose worker died, and tells each epoch and each end. A trial has one thread; a
worker that was given several runs as many trials.
"""

import asyncio
import contextlib
import logging
import os
import queue
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import threadpoolctl
from distributed import Client, Future, KilledWorker, Queue, get_worker, rpc

from nnlib import kernels
from nnlib.history import EpochRecord
from nnlib.study import Parameters
from nnlib.trial import Done, Epoch, Outcome, Task
from nnlib.workers import DEATHS

PATIENCE = 10  # seconds in which a scheduler must answer, and in which it must have a worker
HEARTBEAT = 2  # seconds after which a waiting trial looks whether the client is still there


class DaskWorkers:
    """The workers of the scheduler at an address; they may come and go, and where there is none trials wait for one.

    Raises OSError where no scheduler answers or it has no worker, ValueError for what is no address.
    """

    def __init__(self, task: Task, address: str) -> None:
        self._address, self._task, self._client = address, task, _connect(address)
        self._session = f"nnlib-{uuid.uuid4().hex}"  # a client that died may have left tasks and messages behind
        self._happened: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._running: dict[Any, tuple[Future[Any], int, Parameters]] = {}  # by key; dropped futures are cancelled
        self._deaths: Counter[int] = Counter()
        self._answers: dict[int, Queue] = {}  # by trial, the one that its worker listens to
        self._client.subscribe_topic(self._session, self._on_epoch)

    @property
    def slots(self) -> int:
        """How many trials can run at once now."""
        try:
            return max(1, sum(self._client.nthreads().values()))
        except OSError:
            raise self._lost() from None

    def submit(self, number: int, parameters: Parameters) -> None:
        """Have a trial run."""
        key = f"{self._session}-trial-{number}-{self._deaths[number]}"
        future = self._client.submit(
            run_trial, self._task, number, parameters, self._session, key=key, pure=False
        )
        self._running[key] = future, number, parameters
        future.add_done_callback(self._on_end)

    def next(self) -> Epoch | Done:
        """Wait for what happens next. Raises RuntimeError for a trial that fails, OSError if the scheduler is lost."""
        while True:
            happened = self._happened.get()
            if isinstance(happened, Epoch):
                return happened
            key, outcome = happened
            _, number, parameters = self._running.pop(key)
            self._drop_answers(number)
            if isinstance(outcome, Outcome):
                return Done(number, outcome)
            if not isinstance(outcome, KilledWorker):
                raise outcome
            self._deaths[number] += outcome.allowed_failures + 1
            if self._deaths[number] > DEATHS:
                raise RuntimeError(f"trial {number} ended {self._deaths[number]} workers one after another")
            self.submit(number, parameters)

    def _on_epoch(self, event: tuple[float, Any]) -> None:
        number, record, answers = event[1]

        def answer(stop: bool) -> None:
            with contextlib.suppress(OSError):  # `next` tells that the scheduler is lost
                self._answers_to(number, answers).put(stop)

        self._happened.put(Epoch(number, EpochRecord(*record), answer))

    def _answers_to(self, number: int, name: str) -> Queue:
        """Return the queue of a trial under way; a trial that runs again listens to another."""
        if number not in self._answers or self._answers[number].name != name:
            self._drop_answers(number)
            self._answers[number] = Queue(name, client=self._client)
        return self._answers[number]

    def _drop_answers(self, number: int) -> None:
        # The scheduler counts who holds a queue, and keeps it as long as one does.
        if number in self._answers:
            self._answers.pop(number).close()

    def _on_end(self, future: Future[Any]) -> None:
        # In a thread of Dask's, since the result may have died with its worker: then the trial runs once more, and
        # meanwhile the client must answer it.
        try:
            outcome: Any = self._lost() if future.status == "cancelled" else future.exception() or future.result()
        except (Exception, asyncio.CancelledError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            outcome = RuntimeError(f"{future.key}: how it ended could not be fetched: {reason}")
        self._happened.put((future.key, outcome))

    def _lost(self) -> OSError:
        return OSError(f"{self._address}: the scheduler is gone; start it, and the same search continues")

    def close(self) -> None:
        """Leave the cluster; trials under way end after their epoch."""
        for number in list(self._answers):
            self._drop_answers(number)
        self._client.close()


def _connect(address: str) -> Client:
    try:
        # In a thread, since a notebook has an event loop of its own.
        with ThreadPoolExecutor(1) as aside:
            aside.submit(asyncio.run, _ask_who(address)).result()
    except ValueError as error:
        raise ValueError(f"{address}: expected a scheduler's address, as tcp://127.0.0.1:8786 ({error})") from error
    except Exception as error:  # whatever else answers there, it answers in its own way
        reason = f" ({error})" if str(error) else ""
        raise OSError(f"{address}: no Dask scheduler answered{reason}; `dask scheduler` starts one") from error
    for name in ("distributed", "distributed.client"):  # what is told here in a line they log in twenty
        logging.getLogger(name).setLevel(logging.CRITICAL)
    client = Client(address, timeout=PATIENCE, set_as_default=False)
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError:
        client.close()
        raise OSError(f"{address}: the scheduler has no worker; `dask worker {address}` starts one") from None
    return client


async def _ask_who(address: str) -> None:
    """Ask for a scheduler before a client is made: one that cannot connect holds up the process's end."""
    async with asyncio.timeout(PATIENCE), rpc(address) as peer:
        if (await peer.identity())["type"] != "Scheduler":
            raise OSError("a worker is there")


def run_trial(task: Task, number: int, parameters: Parameters, topic: str) -> Outcome:
    """Run a trial on a worker. Raises RuntimeError, which names the worker, for whatever goes wrong."""
    os.environ["TQDM_DISABLE"] = "1"
    threadpoolctl.threadpool_limits(1)
    if kernels.accelerated():
        import numba  # it takes a moment

        numba.set_num_threads(1)
    worker = get_worker()
    key, answers = worker.get_current_task(), Queue(f"{topic}-{uuid.uuid4().hex}")

    def report(epoch: EpochRecord) -> bool:
        worker.log_event(topic, (number, list(epoch), answers.name))
        while True:
            try:
                return answers.get(timeout=HEARTBEAT)
            except TimeoutError:
                if key not in worker.state.tasks or worker.state.tasks[key].state == "cancelled":
                    raise ConnectionError("the client is gone") from None

    try:
        return task.run(parameters, report)
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise RuntimeError(f"trial {number} on {worker.address}: {message}") from error
    finally:
        answers.close()
