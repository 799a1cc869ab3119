"""One experiment: its settings, and how it is trained, becomes a record, and is replayed from one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from nnlib import data, initialization, metrics, models, predict, records
from nnlib.configuration import as_config
from nnlib.data.augment import Augment
from nnlib.functional.checks import Array
from nnlib.layers import Context, Dropout, Generator, Layer, ReLU
from nnlib.network import Network, Sequential
from nnlib.optim import SGD
from nnlib.records import Record
from nnlib.schedules import Constant, Schedule
from nnlib.solver import Callback, Solver, evaluate
from nnlib.stopping import EarlyStopping

Kind = Literal["mlp", "small_cnn", "face_cnn", "resnet50", "resnet101"]


@dataclass(frozen=True)
class Experiment:
    """A network, its data and its training: all that the result depends on.

    A field that is added later has a default that means what was before: stored records lack it and still count.
    Raises ValueError for settings out of range, and for those that the network does not have.
    """

    data: str  # cifar10, fer2013, shapes10 or faces7
    hidden: tuple[int, ...]  # of an mlp; () for a linear classifier
    epochs: int
    network: Kind = "mlp"
    width: int = 64  # of a resnet
    schedule: Schedule = Constant(0.01)
    train_size: int | None = None  # the first so many training images; None: all
    val_size: int = 5000  # held out of the training images
    standardize: bool = False  # an mlp that begins with each image's own mean and deviation
    batch_norm: bool = False  # an mlp with a norm before each rectifier
    dropout: float = 0.0
    frozen_masks: bool = False  # the bug of notebook 02: the same dropout mask at every step
    deviation: float | None = None  # of the hidden weights at the start; None: He et al. 2015
    optimizer: SGD = SGD(0.9)
    batch_size: int = 100
    l2: float = 0.0
    label_smoothing: float = 0.0
    augment: Augment | None = None
    stopping: EarlyStopping | None = None
    seed: int = 0
    test_mirrored: bool = False  # test with the mean probabilities of each image and its mirror image
    keep: Literal["", "weights", "activations"] = ""  # what a figure needs beyond the history and the test results

    def __post_init__(self) -> None:
        if self.network not in get_args(Kind):
            raise ValueError(
                f"experiment: expected network to be one of {', '.join(get_args(Kind))}, got {self.network!r}"
            )
        if self.network != "mlp" and (self.standardize or self.batch_norm):
            raise ValueError(f"experiment: standardize and batch_norm are settings of an mlp, not of {self.network}")
        counts = [(name, getattr(self, name)) for name in ("epochs", "width", "val_size", "batch_size")]
        counts += [("train_size", 1 if self.train_size is None else self.train_size)]
        for name, count in (*counts, *(("hidden widths", width) for width in self.hidden)):
            if not isinstance(count, Integral) or count < 1:
                raise ValueError(f"experiment: expected {name} >= 1, in whole numbers, got {count!r}")
        for name in ("dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"experiment: {name} lies in [0, 1), got {getattr(self, name)}")
        for name in ("l2", "deviation", "seed"):
            if not (getattr(self, name) or 0) >= 0:
                raise ValueError(f"experiment: expected {name} >= 0, got {getattr(self, name)}")


Splits = tuple[data.Split, data.Split, data.Split]


def load_splits(experiment: Experiment, root: str | Path | None = None) -> Splits:
    """Return ``(train, validation, test)``. The validation images are a stratified part of those not trained on."""
    return *load_training_splits(experiment, root), data.load(experiment.data, "test", root=root)


def load_training_splits(experiment: Experiment, root: str | Path | None = None) -> tuple[data.Split, data.Split]:
    """Return ``(train, validation)`` without a look at the test images."""
    images = data.load(experiment.data, "train", root=root)
    if experiment.train_size is None:
        return images.hold_out(experiment.val_size)
    _, val = images[experiment.train_size :].hold_out(experiment.val_size)
    return images[: experiment.train_size], val


def describe_data(splits: Mapping[str, data.Split]) -> dict[str, Any]:
    """Return what a record says of its data, given "train" and what else there is."""
    return {
        "source": splits["train"].source,
        "synthetic": splits["train"].synthetic,
        "classes": list(splits["train"].classes),
        "fingerprints": {name: split.fingerprint for name, split in splits.items()},
        "sizes": {name: len(split) for name, split in splits.items()},
    }


def build(experiment: Experiment, train_split: data.Split) -> Network:
    """Return the experiment's untrained network, its normalisation fitted."""
    rng = np.random.default_rng((experiment.seed, 1))
    shape, classes = train_split.inputs.shape[1:], len(train_split.classes)
    network = untrained(experiment, shape, classes, rng)
    network.fit_normalization(train_split.inputs)
    if experiment.deviation is not None:
        for name in network.weights()[:-1]:
            weight = network.parameters[name]
            weight[...] = initialization.normal(weight.shape, rng, experiment.deviation)
    if experiment.frozen_masks:
        layers = network.layers.layers
        frozen: dict[str, Layer] = {
            name: FrozenDropout(layer.p) if isinstance(layer, Dropout) else layer for name, layer in layers.items()
        }
        network = Network(Sequential(frozen), network.input_shape)
    return network


def untrained(experiment: Experiment, shape: tuple[int, ...], classes: int, rng: Generator) -> Network:
    """Return the named network for inputs of ``shape``. Raises ValueError for a shape that it does not take."""
    if experiment.network == "mlp":
        options = {name: getattr(experiment, name) for name in ("dropout", "batch_norm", "standardize")}
        return models.mlp(shape, experiment.hidden, classes, rng=rng, **options)
    height, width, channels = shape
    image = height, width, channels
    if experiment.network == "small_cnn":
        return models.small_cnn(image, classes, dropout=experiment.dropout, rng=rng)
    if experiment.network == "face_cnn":
        return models.face_cnn(image, classes, rng=rng)
    depth = int(experiment.network.removeprefix("resnet"))
    # Blocks that start as the identity let the first steps go downhill (Goyal et al. 2017, section 5.1).
    return models.resnet(
        depth, 1, input_shape=image, classes=classes, width=experiment.width, zero_init=True, rng=rng
    )


def make_solver(
    experiment: Experiment,
    network: Network,
    splits: Sequence[data.Split],
    *,
    run_dir: Path | None = None,
    callbacks: tuple[Callback, ...] = (),
) -> Solver:
    """Return the solver that trains ``network`` as the experiment says, on the first two splits."""
    names = ("optimizer", "schedule", "epochs", "batch_size", "l2", "label_smoothing", "augment", "stopping", "seed")
    settings = {name: getattr(experiment, name) for name in names}
    return Solver(network, splits[0], splits[1], run_dir=run_dir, callbacks=callbacks, **settings)


def train(
    name: str,
    profile: str,
    experiment: Experiment,
    *,
    run_dir: Path | None,
    root: str | Path | None = None,
    network_path: Path | None = None,
) -> Record:
    """Train an experiment, continuing the run in ``run_dir`` if it was cut off, and return its record.

    The trained network is saved at ``network_path`` if one is given.
    """
    splits = load_splits(experiment, root)
    network = build(experiment, splits[0])
    watch = ActivationStatistics(splits[0].inputs[:500]) if experiment.keep == "activations" else None
    # What a callback saw is not in a checkpoint, so a run that is watched starts anew; it is a short one.
    solver = make_solver(
        experiment, network, splits, run_dir=None if watch else run_dir, callbacks=(watch,) if watch else ()
    )
    initial_loss, _ = evaluate(network, splits[1])
    history = solver.fit(resume=True)
    train_split, val, test = splits
    probabilities = network.predict_proba(test.inputs, mirrored=experiment.test_mirrored)
    results = {"initial_val_loss": initial_loss, **_metrics(network, splits, probabilities, experiment)}
    if network_path is not None:
        told = {"experiment": name, "profile": profile, "data": train_split.source, "train": train_split.fingerprint}
        network.save(network_path, metadata={**told, **_for_prediction(experiment, test.classes, results)})
    arrays: dict[str, Array] = {
        "test_probabilities": probabilities.astype(np.float16),
        "test_labels": test.labels.astype(np.uint8),
    }
    if watch is not None:
        arrays["activations"] = np.array(watch.rows, dtype=np.float32)
    if experiment.keep == "weights":
        arrays["first_weights"] = strongest_units(network)
    return Record(
        name=name,
        profile=profile,
        numerics=records.NUMERICS,
        config=as_config(experiment),
        data=describe_data({"train": train_split, "val": val, "test": test}),
        history=history,
        first_losses=[step.loss.hex() for step in history.steps[: records.REPLAYED]],
        metrics=results,
        seconds=sum(epoch.seconds for epoch in history.epochs),
        versions=records.versions(),
        machine=records.machine(),
        arrays=arrays,
    )


def _metrics(network: Network, splits: Splits, probabilities: Array, experiment: Experiment) -> dict[str, float]:
    """Return what tables show of a trained network: its accuracy and loss on all the data.

    ``probabilities`` are the test images', as the experiment tests: on mirrored images its test results are of them.
    """
    train_split, val, test = splits
    result: dict[str, float] = {"parameters": network.vector.size}
    for name, split in (("train", train_split), ("val", val), ("test", test)):
        result[f"{name}_loss"], result[f"{name}_accuracy"] = evaluate(network, split)
    if experiment.test_mirrored:
        result |= tested(probabilities, test.labels)
    result["test_calibration_error"] = metrics.reliability(probabilities, test.labels).error
    return result


def tested(probabilities: Array, labels: Array) -> dict[str, float]:
    """Return the test loss, in nats, and the test accuracy of class probabilities (N, C) and labels (N,)."""
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    return {"test_loss": metrics.negative_log_likelihood(probabilities, labels), "test_accuracy": accuracy}


def _for_prediction(experiment: Experiment, classes: tuple[str, ...], results: dict[str, float]) -> dict[str, str]:
    """Return the metadata by which a saved network predicts as it was tested, and what it then reached."""
    test = {key: results[key] for key in ("test_loss", "test_accuracy")}
    told = predict.metadata(predict.Preprocessing(mirrored=experiment.test_mirrored), classes)
    return {**told, "metrics": json.dumps(test)}


class Replay(NamedTuple):
    """A record's first steps, done again."""

    steps: int
    same_machine: bool  # same processor, BLAS and versions: the losses must then agree to the last bit
    largest_difference: float  # relative
    passed: bool


TOLERANCE = 1e-4  # relative difference of losses between machines


def replay(record: Record, experiment: Experiment, *, root: str | Path | None = None) -> Replay:
    """Do a record's first steps again on the same data and compare the losses.

    They must be equal to the last bit on the same processor and versions, to 1e-4 elsewhere. Raises ValueError when the
    data at hand is not what the record was made from.
    """
    splits = load_splits(experiment, root)
    ours, theirs = splits[0].fingerprint, record.data["fingerprints"]["train"]
    if ours != theirs:
        raise ValueError(f"{record.name}: its record is of data {theirs}, not of {ours} that is here; no replay")
    stop = StopAfter(len(record.first_losses))
    solver = make_solver(experiment, build(experiment, splits[0]), splits, callbacks=(stop,))
    losses = [step.loss for step in solver.fit().steps]
    stored = [float.fromhex(text) for text in record.first_losses]
    same = records.made_here(record)
    difference = max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(losses, stored, strict=True))
    return Replay(len(stored), same, difference, losses == stored if same else difference <= TOLERANCE)


class StopAfter(Callback):
    """Stops a run after a number of steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step(self, solver: Solver) -> None:
        if len(solver.history.steps) >= self.steps:
            solver.stop()


class ActivationStatistics(Callback):
    """Writes down, every few steps, what comes out of each rectifier for one fixed batch of inputs.

    ``rows`` holds (step, layer number, mean, standard deviation, share of zeros).
    """

    EVERY = 10

    def __init__(self, inputs: Array) -> None:
        self.inputs = inputs
        self.rows: list[tuple[float, ...]] = []

    def on_step(self, solver: Solver) -> None:
        step = len(solver.history.steps)
        if step % self.EVERY and step != 1:
            return
        outputs = [y for _, layer, y in solver.network.layers.trace(self.inputs) if isinstance(layer, ReLU)]
        for number, y in enumerate(outputs, 1):
            self.rows.append((step, number, float(y.mean()), float(y.std()), float((y == 0).mean())))


class FrozenDropout(Dropout):
    """The bug that notebook 02 shows: a seed fixed inside the layer draws the same mask at every step."""

    def forward(self, x: Array, *, train: bool = False, rng: Generator | None = None) -> tuple[Array, Context]:
        return super().forward(x, train=train, rng=np.random.default_rng(0))


SHOWN_UNITS = 49  # of the first layer, in a figure


def strongest_units(network: Network) -> Array:
    """Return the first layer's weights (D, 49) of the units with the largest norm, float16."""
    weight = network.parameters[network.weights()[0]]
    order = np.argsort(-np.linalg.norm(weight, axis=0), kind="stable")
    return weight[:, order[:SHOWN_UNITS]].astype(np.float16)
