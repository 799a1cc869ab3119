"""All that a training run must remember to go on as if it had never stopped, and its form on disk."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnlib import checkpoint, memory
from nnlib.configuration import differences
from nnlib.functional.checks import Array
from nnlib.history import EpochRecord, History, StepRecord
from nnlib.network import Network


@dataclass
class TrainingState:
    """Where a run stands: generator, velocity, order of the epoch under way, best weights so far, history."""

    rng: np.random.Generator
    velocity: dict[str, Array]
    history: History = field(default_factory=History)
    order: Array | None = None  # the epoch's permutation of the training data; None between epochs
    batch: int = 0  # batches done in this epoch
    seconds: float = 0.0  # spent in this epoch before an interruption
    best: dict[str, Array] | None = None  # parameters and buffers of the best epoch
    best_score: float = -math.inf
    waited: int = 0  # epochs since the best

    @classmethod
    def start(cls, network: Network, seed: int) -> "TrainingState":
        """Return the state before the first step."""
        velocity = {name: memory.zeros_like(array) for name, array in network.parameters.items()}
        return cls(np.random.default_rng(seed), velocity)


def save(path: Path, state: TrainingState, network: Network, config: dict[str, Any]) -> None:
    """Write a checkpoint, atomically: network, state and the configuration they belong to."""
    tensors = _prefixed("network", {**network.parameters, **network.buffers})
    tensors |= _prefixed("velocity", state.velocity)
    tensors |= _prefixed("best", state.best or {})
    tensors["steps"] = np.array(state.history.steps, dtype=np.float64).reshape(-1, len(StepRecord._fields))
    tensors["epochs"] = np.array(state.history.epochs, dtype=np.float64).reshape(-1, len(EpochRecord._fields))
    if state.order is not None:
        tensors["order"] = state.order
    scalars = {
        "batch": state.batch,
        "seconds": state.seconds,
        "best_score": state.best_score,
        "waited": state.waited,
        "rng": state.rng.bit_generator.state,
    }
    checkpoint.write(path, tensors, {"config": json.dumps(config), "state": json.dumps(scalars)})


def restore(path: Path, network: Network, config: dict[str, Any]) -> TrainingState:
    """Return the state that `save` wrote and fill the network with its arrays.

    Raises ValueError for a broken file and for a checkpoint of another configuration, naming what differs.
    """
    tensors, metadata = checkpoint.read(path)
    try:
        stored, scalars = json.loads(metadata["config"]), json.loads(metadata["state"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: expected a checkpoint of a training run, got another file; remove it") from error
    # Through JSON and back, so that tuples and lists, 1 and 1.0 compare as they were stored.
    if problems := differences(stored, json.loads(json.dumps(config))):
        raise ValueError(
            f"{path}: a checkpoint of another configuration ({'; '.join(problems)}); "
            "choose another run directory, or remove it to start anew"
        )
    state = TrainingState.start(network, 0)
    best = _inside("best", tensors)
    checkpoint.fill({**network.parameters, **network.buffers}, _inside("network", tensors), str(path))
    checkpoint.fill(state.velocity, _inside("velocity", tensors), str(path))
    state.rng.bit_generator.state = scalars["rng"]
    state.history.steps = [StepRecord(int(row[0]), *row[1:].tolist()) for row in tensors["steps"]]
    state.history.epochs = [EpochRecord(int(row[0]), *row[1:].tolist()) for row in tensors["epochs"]]
    state.order, state.best = tensors.get("order"), best or None
    state.batch, state.seconds = scalars["batch"], scalars["seconds"]
    state.best_score, state.waited = scalars["best_score"], scalars["waited"]
    return state


def _prefixed(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def _inside(prefix: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    start = prefix + "/"
    return {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}
