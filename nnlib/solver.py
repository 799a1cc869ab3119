"""The training loop: steps, epochs, stopping, checkpoints, resume."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from nnlib import progress
from nnlib import state as training_state
from nnlib.configuration import as_config
from nnlib.data.split import Split
from nnlib.functional.checks import Array, class_labels
from nnlib.functional.softmax import log_softmax
from nnlib.history import EpochRecord, History, StepRecord
from nnlib.layers import Generator, describe
from nnlib.network import EVALUATION_BATCH, Network
from nnlib.optim import SGD
from nnlib.schedules import Constant, Schedule
from nnlib.state import TrainingState
from nnlib.stopping import EarlyStopping

Augmentation = Callable[[Array, Generator], Array]

TRAIN_SAMPLE = 5000  # training images that an epoch's training loss and accuracy are computed on


class Callback:
    """What may watch a run; override what you need. Callbacks are code, so a checkpoint does not hold them."""

    def on_step(self, solver: "Solver") -> None:
        """Run after each update; ``solver.history.steps[-1]`` is the step's record."""

    def on_epoch(self, solver: "Solver") -> None:
        """Run after each epoch's evaluation; ``solver.history.epochs[-1]`` is its record."""


class Solver:
    """Trains a network on a split by mini-batch gradient descent.

    Each epoch visits the training data in a new random order, every sample once, the last batch being smaller where the
    sizes do not divide. ``schedule`` is the learning rate or a schedule of it; ``augment`` a function of (images,
    generator) applied to each batch; ``stopping`` watches ``val``. With ``run_dir`` the run leaves a checkpoint there
    after every epoch, at `stop` and at Ctrl-C. Raises ValueError or TypeError for data that does not fit the network.
    """

    def __init__(
        self,
        network: Network,
        train: Split,
        val: Split | None = None,
        *,
        optimizer: SGD = SGD(),
        schedule: float | Schedule = 0.01,
        epochs: int = 10,
        batch_size: int = 128,
        l2: float = 0.0,
        label_smoothing: float = 0.0,
        augment: Augmentation | None = None,
        stopping: EarlyStopping | None = None,
        seed: int = 0,
        run_dir: str | PathLike[str] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        if epochs < 1 or batch_size < 1 or l2 < 0:
            raise ValueError(
                f"Solver: expected epochs >= 1, batch_size >= 1 and l2 >= 0, got {epochs}, {batch_size}, {l2}"
            )
        if stopping is not None and val is None:
            raise ValueError("Solver: stopping watches the validation data; give val, or no stopping")
        for split in (train, val):
            if split is not None:
                logits = network.forward(split.inputs[:1])
                class_labels(split.labels, len(split), logits.shape[1])
        self.network, self.train, self.val = network, train, val
        self.optimizer, self.epochs, self.batch_size = optimizer, epochs, batch_size
        self.schedule = schedule if callable(schedule) else Constant(float(schedule))
        self.l2, self.label_smoothing, self.augment = l2, label_smoothing, augment
        self.stopping, self.seed, self.callbacks = stopping, seed, callbacks
        self.checkpoint_path = None if run_dir is None else Path(run_dir) / "checkpoint.safetensors"
        self.batches = math.ceil(len(train) / batch_size)
        self._stop = threading.Event()
        self._state = TrainingState.start(network, seed)

    @property
    def history(self) -> History:
        """The records so far."""
        return self._state.history

    def config(self) -> dict[str, Any]:
        """Return all that the run's result depends on, JSON-able; a checkpoint can only continue the same."""
        return {
            "network": {"layers": describe(self.network.layers), "input_shape": list(self.network.input_shape)},
            "train": self.train.fingerprint,
            "val": None if self.val is None else self.val.fingerprint,
            **{name: as_config(getattr(self, name)) for name in self._SETTINGS},
        }

    _SETTINGS = (
        "optimizer", "schedule", "epochs", "batch_size", "l2", "label_smoothing", "augment", "stopping", "seed",
    )  # fmt: skip

    def stop(self) -> None:
        """Ask a running `fit`, from any thread, to return after the step it is at."""
        self._stop.set()

    def fit(self, *, resume: bool = False) -> History:
        """Train and return the history; the network ends with the last weights, or with ``stopping`` the best.

        ``resume``: continue from the run directory's checkpoint if there is one, else start. Raises FloatingPointError
        when the loss is not finite, ValueError for a checkpoint that does not fit, KeyboardInterrupt after saving.
        """
        self._stop.clear()
        if resume and self.checkpoint_path is not None and self.checkpoint_path.exists():
            self._state = training_state.restore(self.checkpoint_path, self.network, self.config())
        with self._bar() as bar, self._interrupt_between_steps(), np.errstate(over="ignore", invalid="ignore"):
            while not self._finished():
                self._run_epoch(bar)
                self._save()
                if self._stop.is_set():
                    break
        if self._finished() and self._state.best is not None:
            for name, array in (*self.network.parameters.items(), *self.network.buffers.items()):
                array[...] = self._state.best[name]
        return self.history

    def _finished(self) -> bool:
        state = self._state
        stopped_early = self.stopping is not None and state.waited >= self.stopping.patience
        return state.order is None and (stopped_early or len(state.history.epochs) >= self.epochs)

    def _run_epoch(self, bar: Any) -> None:
        """Do the batches of an epoch that are left; when none is, evaluate and write the epoch's record."""
        state, started = self._state, time.perf_counter()
        if state.order is None:
            state.order, state.batch, state.seconds = state.rng.permutation(len(self.train)), 0, 0.0
        while state.batch < self.batches and not self._stop.is_set():
            self._run_step(state.order, bar)
            state.batch += 1
            for callback in self.callbacks:
                callback.on_step(self)
        state.seconds += time.perf_counter() - started
        if state.batch == self.batches:
            self._finish_epoch()

    def _run_step(self, order: Array, bar: Any) -> None:
        state, step = self._state, len(self.history.steps)
        moment = step / self.batches
        rate = float(self.schedule(moment, self.epochs))
        chosen = order[state.batch * self.batch_size : (state.batch + 1) * self.batch_size]
        x, labels = self.train.inputs[chosen], self.train.labels[chosen]
        if self.augment is not None:
            x = self.augment(x, state.rng)
        result = self.network.backpropagate(
            x, labels, l2=self.l2, label_smoothing=self.label_smoothing, rng=state.rng
        )
        if not math.isfinite(result.data_loss + result.penalty):
            raise FloatingPointError(self._what_diverged(step + 1, rate, result.gradients))
        momentum = self.optimizer.momentum_at(moment, self.epochs)
        self.optimizer.update(
            self.network.parameters, result.gradients, state.velocity, rate=rate, momentum=momentum
        )
        self.history.steps.append(StepRecord(step + 1, result.data_loss, result.penalty, rate))
        accuracy = float((result.logits.argmax(axis=1) == labels).mean())
        bar.set_postfix(loss=f"{result.data_loss:.3f}", rate=f"{rate:.2g}", accuracy=f"{accuracy:.2f}", refresh=False)
        bar.update()

    def _what_diverged(self, step: int, rate: float, gradients: dict[str, Array]) -> str:
        """Return the message for a loss that is not finite: where, and the first bad parameter."""
        suspects = [
            f"the first bad parameter is {name}: its {what} is not finite"
            for what, arrays in (("value", self.network.parameters), ("gradient", gradients))
            for name in self.network.parameters
            if not np.isfinite(arrays[name]).all()
        ]
        bad = suspects[0] if suspects else "every parameter and gradient is finite"
        return f"training diverged at step {step}, rate {rate:g}: the loss is not finite; {bad}; lower the rate"

    def _finish_epoch(self) -> None:
        state, started = self._state, time.perf_counter()
        every = math.ceil(len(self.train) / TRAIN_SAMPLE)  # spread out: a split may be sorted by class
        train = evaluate(self.network, self.train[::every])
        val = (math.nan, math.nan) if self.val is None else evaluate(self.network, self.val)
        seconds = state.seconds + time.perf_counter() - started
        record = EpochRecord(len(self.history.epochs) + 1, *train, *val, seconds)
        self.history.epochs.append(record)
        state.order = None
        if self.stopping is not None:
            self._watch(self.stopping, record)
        for callback in self.callbacks:
            callback.on_epoch(self)

    def _watch(self, stopping: EarlyStopping, record: EpochRecord) -> None:
        state = self._state
        if stopping.improved(record, state.best_score):
            arrays = {**self.network.parameters, **self.network.buffers}
            state.best = {name: array.copy() for name, array in arrays.items()}
            state.best_score, state.waited = stopping.score(record), 0
        else:
            state.waited += 1

    def _save(self) -> None:
        if self.checkpoint_path is not None:
            training_state.save(self.checkpoint_path, self._state, self.network, self.config())

    def _bar(self) -> Any:
        return progress.bar(self.epochs * self.batches, "step", done=len(self.history.steps))

    @contextlib.contextmanager
    def _interrupt_between_steps(self) -> Iterator[None]:
        """Turn Ctrl-C into a stop between two steps, so that what is saved is whole; it is raised afterwards.

        A second Ctrl-C acts at once. Signals reach the main thread only; elsewhere there is `stop`.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        interrupted = threading.Event()

        def on_interrupt(*_: object) -> None:
            interrupted.set()
            self.stop()
            signal.signal(signal.SIGINT, previous)

        previous = signal.signal(signal.SIGINT, on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
        if interrupted.is_set():
            raise KeyboardInterrupt


def evaluate(network: Network, split: Split) -> tuple[float, float]:
    """Return ``(loss, accuracy)`` of a network on a split in test mode: mean cross-entropy in nats, share in [0, 1]."""
    loss, hits = 0.0, 0
    for start in range(0, len(split), EVALUATION_BATCH):
        labels = split.labels[start : start + EVALUATION_BATCH]
        logits = network.forward(split.inputs[start : start + EVALUATION_BATCH])
        loss -= float(log_softmax(logits)[np.arange(len(labels)), labels].sum(dtype=np.float64))
        hits += int((logits.argmax(axis=1) == labels).sum())
    return loss / len(split), hits / len(split)
