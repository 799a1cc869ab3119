"""Measuring: workers take turns, and their times become medians, rates and ratios."""

import importlib.metadata
import importlib.util
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

from tqdm.auto import tqdm

from nnlib.bench import tables
from nnlib.bench.process import Worker
from nnlib.bench.works import Count, Work, growing

TORCH = "torch==2.13.0"
OTHERS = ("torch", "tuned")  # PyTorch's two sides
REST = 0.05  # seconds between two workers, in which the first one's threads fall asleep
WARM_UP = {"seconds": 0.1, "least": 3}
STEPS = 3  # of a side in a round, or more. The first finds the others' data in the caches; the median is not its
GROWTH_ROUNDS = 5
BATCHES = tuple(2**i for i in range(9))
IMAGE_SIDES, IMAGE_BATCH = (24, 48, 96, 192), 16

Times = dict[str, list[float]]  # by side, each round's median in seconds


@dataclass(frozen=True)
class Settings:
    """How long is measured."""

    rounds: int = 15
    seconds: float = 0.3  # of a side in a round, with STEPS or more
    matrix: int = 4096  # rows and columns of the product that tells the machine's peak
    copied: int = 256 * 2**20  # bytes of the copy that tells its bandwidth

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"bench: expected rounds >= 1, got {self.rounds}")


def run(
    works: Iterable[Work],
    *,
    torch: bool = False,
    growth: bool = False,
    settings: Settings = Settings(),
    show: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure works and return the run as JSON-able values; ``show`` gets each line of the tables as it is known.

    torch: compare with PyTorch, at its defaults and tuned.  growth: the small CNN's step time against batch size and
    image side, too. Raises RuntimeError without PyTorch, where a worker ends, and where two sides' networks differ.
    """
    if torch and importlib.util.find_spec("torch") is None:
        raise RuntimeError(f"bench: --against torch needs torch: pip install {TORCH}")
    result: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "rounds": settings.rounds}
    result["load"] = os.getloadavg()[0]  # processes at work, mean of the last minute
    with Worker("machine") as worker:
        result |= worker.ask("machine", matrix=settings.matrix, copied=settings.copied)
    if torch:
        result["versions"]["torch"] = importlib.metadata.version("torch")
    result |= {"works": {}, "rows": []}
    show(tables.machine_line(result))
    show(tables.heading(torch=torch))
    for work in works:
        counted, rows = measure(work, result, settings, torch=torch)
        described = {"batch": work.batch, "traffic_bytes": counted.traffic(work.batch), **counted._asdict()}
        result["works"][work.name] = described
        result["rows"] += rows
        for row in rows:
            show(tables.line(row, torch=torch))
    if growth:
        result["growth"] = measure_growth(settings, torch=torch)
        for text in tables.growth_lines(result["growth"]):
            show(text)
    return result


def measure(
    work: Work, machine: Mapping[str, Any], settings: Settings, *, torch: bool
) -> tuple[Count, list[dict[str, Any]]]:
    """Return what a work takes and its rows: training with the peak memories, on NumPy alone too, inference."""
    sides = ["nnlib", *(OTHERS if torch else ()), *(["numpy"] if work.numpy else [])]
    turns = settings.rounds * (1 + len(work.inference))
    with ExitStack() as stack, tqdm(total=turns, desc=work.name, leave=False) as bar:
        workers = {side: stack.enter_context(started(side, work)) for side in sides}
        same_size(workers)
        tasks = {("train", work.batch): take_turns(workers, "train", work.batch, settings, bar.update)}
        memory = {side: worker.ask("memory") for side, worker in workers.items()}  # before larger batches
        counted = Count(*workers["nnlib"].ask("count"))
        workers.pop("numpy", None)
        for batch in work.inference:
            tasks["infer", batch] = take_turns(workers, "infer", batch, settings, bar.update)
    return counted, [
        row_of(work, counted, machine, task, batch, side, times, memory if task == "train" else {})
        for (task, batch), times in tasks.items()
        for side in ("nnlib", "numpy")
        if side in times
    ]


def started(side: str, work: Work) -> Worker:
    """Return a worker that has trained a step. One that compiled kernels is ended: it took the compiler's memory."""
    for _ in range(2):
        worker = Worker(side, work)
        try:
            worker.ask("train", batch=work.batch, seconds=0, least=1)
            if not any("compiling kernels" in line for line in worker.errors()):
                return worker
        except BaseException:
            worker.close()
            raise
        worker.close()
    return Worker(side, work)  # the compiled kernels cannot be kept here


def same_size(workers: Mapping[str, Worker]) -> None:
    """Raise RuntimeError unless all networks have as many parameters."""
    sizes = {side: worker.parameters for side, worker in workers.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{side} {size:,}" for side, size in sizes.items())
        raise RuntimeError(f"bench: expected networks of one size, got parameters: {told}")


def take_turns(
    workers: Mapping[str, Worker], task: str, batch: int, settings: Settings, advance: Callable[[], Any]
) -> Times:
    """Return each side's median seconds of every round; within a round one side works after the other."""
    for worker in workers.values():
        worker.ask(task, batch=batch, **WARM_UP)
    times: Times = {side: [] for side in workers}
    for _ in range(settings.rounds):
        for side, worker in workers.items():
            time.sleep(REST)
            times[side].append(median(worker.ask(task, batch=batch, seconds=settings.seconds, least=STEPS)))
        advance()
    return times


def row_of(
    work: Work,
    counted: Count,
    machine: Mapping[str, Any],
    task: str,
    batch: int,
    side: str,
    times: Times,
    memory: Mapping[str, float],
) -> dict[str, Any]:
    """Return what one task gave on a side of this library, and beside it PyTorch's."""
    seconds, train = median(times[side]), task == "train"
    gflops = counted.flops(train=train, batch=batch) / seconds / 1e9
    return {
        "work": work.name,
        "side": side,
        "task": task,
        "batch": batch,
        "seconds": seconds,
        "gflops": gflops,
        "peak_share": gflops / machine["peak_gflops"],
        "copy_share": counted.traffic(batch) / seconds / 1e9 / machine["copy_gbs"] if train else None,
        "memory_mib": memory.get(side),
        "against": {
            other: {
                "seconds": median(times[other]),
                "memory_mib": memory.get(other),
                **ratio(times[other], times[side]),
            }
            for other in OTHERS
            if other in times
        },
    }


def ratio(other: list[float], own: list[float]) -> dict[str, float]:
    """Return how many times as long the other takes: of the medians, and the least and most of single rounds."""
    rounds = [a / b for a, b in zip(other, own, strict=True)]
    return {"ratio": median(other) / median(own), "least": min(rounds), "most": max(rounds)}


def measure_growth(settings: Settings, *, torch: bool) -> dict[str, list[dict[str, Any]]]:
    """Return the small CNN's training times by batch size, at 48x48, and by image side, at a batch of 16."""
    fewer = Settings(min(settings.rounds, GROWTH_ROUNDS), settings.seconds)
    by_batch = _points(growing(48, 64), BATCHES, fewer, torch=torch)
    by_side = []
    for side in IMAGE_SIDES:
        (point,) = _points(growing(side, IMAGE_BATCH), [IMAGE_BATCH], fewer, torch=torch)
        by_side.append({"side": side, **point})
    return {"batch": by_batch, "side": by_side}


def _points(work: Work, batches: Iterable[int], settings: Settings, *, torch: bool) -> list[dict[str, Any]]:
    points = []
    with ExitStack() as stack:
        sides = ["nnlib", *(["tuned"] if torch else [])]
        workers = {side: stack.enter_context(Worker(side, work)) for side in sides}
        same_size(workers)
        for batch in tqdm(list(batches), desc=work.name, leave=False):
            times = take_turns(workers, "train", batch, settings, lambda: None)
            points.append({"batch": batch, "seconds": {side: median(each) for side, each in times.items()}})
    return points
