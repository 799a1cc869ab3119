"""A worker: ``python -m nnlib.bench.worker SIDE THREADS WORK``, asked and answering in lines of JSON.

It builds the work's network, says how many parameters that has, and then waits. Asked ``{"task": "train", "batch": 64,
"seconds": 0.3, "least": 1}`` (or "infer") it answers with the seconds of each of the steps done in that time, asked for
"memory" with its peak in MiB, for "count" with what the network takes, for "machine" with what `nnlib.bench.machine`
finds.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nnlib.bench import machine
from nnlib.bench.works import Work, count
from nnlib.optim import SGD
from nnlib.state import TrainingState

RATE, MOMENTUM = 0.001, 0.9  # small steps: a network that learned the batch by heart would compute with other numbers


class NnlibSide:
    """A network of a work in this library, its Normalize layer included."""

    def __init__(self, work: Work) -> None:
        self.work, self.network = work, work.network()
        self.state = TrainingState.start(self.network, seed=2)

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        return int(self.network.vector.size)

    def train(self, batch: int) -> Callable[[], Any]:
        """Return a training step on a batch, as the solver does it; it returns the loss."""
        x, labels = self.work.batch_of(batch)
        network, state, optimizer = self.network, self.state, SGD(MOMENTUM)

        def step() -> Any:
            result = network.backpropagate(x, labels, rng=state.rng)
            optimizer.update(network.parameters, result.gradients, state.velocity, rate=RATE, momentum=MOMENTUM)
            return result.data_loss

        return step

    def infer(self, batch: int) -> Callable[[], Any]:
        """Return inference on a batch; it returns the logits."""
        x, _ = self.work.batch_of(batch)
        return lambda: self.network.forward(x)


def main() -> None:
    """Build what the command line names, then answer until the input ends."""
    side, threads, work = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer

    def answer(value: Any) -> None:
        print(json.dumps(value), file=answers, flush=True)

    runner: Any = None if side == "machine" else _side(side, threads, Work.from_json(work))
    answer(runner and runner.parameters)
    for line in sys.stdin:
        request = json.loads(line)
        task = request.pop("task")
        if task == "machine":
            answer(machine.describe(**request, threads=threads))
        elif task == "memory":
            answer(peak_memory())
        elif task == "count":
            answer(count(runner.network))
        else:
            answer(timed(getattr(runner, task)(request["batch"]), request["seconds"], request["least"]))


def _side(side: str, threads: int, work: Work) -> Any:
    if side in ("nnlib", "numpy"):
        return NnlibSide(work)
    from nnlib.bench.pytorch import TorchSide

    return TorchSide(work, tuned=side == "tuned", threads=threads, rate=RATE, momentum=MOMENTUM)


def timed(task: Callable[[], Any], seconds: float, least: int) -> list[float]:
    """Return the seconds of each run of a task: ``least`` runs, and more while ``seconds`` are not over.

    Raises FloatingPointError where it ends in NaN or infinity.
    """
    took: list[float] = []
    result: Any = 0.0
    began = time.perf_counter()
    while len(took) < least or time.perf_counter() - began < seconds:
        started = time.perf_counter()
        result = task()
        took.append(time.perf_counter() - started)
    if not np.isfinite(np.asarray(result)).all():
        raise FloatingPointError("the network computed NaN or infinity")
    return took


def peak_memory() -> float:
    """Return the most memory that this process has held, MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would begin at the size of the process that started this one
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


if __name__ == "__main__":
    main()
