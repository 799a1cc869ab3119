"""Every named experiment of the report, in its quick and its full profile; `run` finds or makes its record.

To add one: write an `Experiment` for each profile into `EXPERIMENTS`.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nnlib import data, predict, records
from nnlib.configuration import as_config
from nnlib.data.augment import Augment
from nnlib.data.root import checkout_root
from nnlib.experiment import Experiment, Replay, replay, tested, train
from nnlib.network import load
from nnlib.optim import SGD
from nnlib.records import Record
from nnlib.schedules import Constant, Cosine, WarmUp

Profile = Literal["quick", "full"]
PROFILES: tuple[Profile, ...] = ("quick", "full")


# One net on a part of the data, and what changes when one thing is changed: notebooks 02 to 04 compare these.
_FAMILY_FULL = Experiment("cifar10", (512, 256), epochs=25, train_size=10000, schedule=Constant(0.01))
_FAMILY_QUICK = Experiment("shapes10", (256, 128), epochs=12, train_size=5000, val_size=1500, schedule=Constant(0.02))
_DEEP = (256, 256, 256, 256, 256)

_VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": {"dropout": 0.5},
    "dropout_frozen": {"dropout": 0.5, "frozen_masks": True},
    "smoothing": {"label_smoothing": 0.1},
    "l2": {"l2": 0.01},
    "l2_strong": {"l2": 0.1},
    "linear": {"hidden": (), "schedule": Constant(0.0003)},  # 3,072 inputs straight into the loss: larger rates swing
    "init_good": {"hidden": _DEEP, "epochs": 3, "keep": "activations"},
    "init_bad": {"hidden": _DEEP, "epochs": 3, "keep": "activations", "deviation": 0.01},
}

_FAMILY: dict[str, dict[Profile, Experiment]] = {
    name: {
        "quick": dataclasses.replace(_FAMILY_QUICK, **changes),
        "full": dataclasses.replace(_FAMILY_FULL, **changes),
    }
    for name, changes in _VARIANTS.items()
}

_TUNED: dict[str, Any] = {
    "standardize": True,
    "batch_norm": True,
    "dropout": 0.1,
    "optimizer": SGD(0.9, nesterov=True),
    "batch_size": 128,
    "label_smoothing": 0.1,
    "augment": Augment(crop=2),
    "test_mirrored": True,
}

EXPERIMENTS: dict[str, dict[Profile, Experiment]] = {
    **_FAMILY,
    # Faces, with and without convolution, and the first steps of a deep network.
    "mlp_faces": {
        "quick": Experiment("faces7", (512, 256), epochs=6, val_size=1000, dropout=0.2, schedule=Cosine(0.02)),
        "full": Experiment("fer2013", (1024, 512), epochs=10, val_size=2871, dropout=0.2, schedule=Cosine(0.02)),
    },
    "small_cnn": {
        "quick": Experiment(
            "faces7", (), 3, "small_cnn", val_size=1000, dropout=0.5, schedule=WarmUp(Cosine(0.02), 1)
        ),
        "full": Experiment(
            "fer2013", (), 3, "small_cnn", val_size=2871, dropout=0.5, schedule=WarmUp(Cosine(0.02), 1)
        ),
    },
    "resnet50_start": {
        "quick": Experiment(
            "faces7", (), 1, "resnet50", width=8, train_size=3200, val_size=1000, batch_size=64,
            schedule=WarmUp(Cosine(0.02), 0.3),
        ),
        "full": Experiment(
            "fer2013", (), 1, "resnet50", train_size=19200, val_size=2871, batch_size=64,
            schedule=WarmUp(Cosine(0.02), 0.3),
        ),
    },
    # What the searches of notebook 05 (`nnlib.studies`) led to.
    "fer_mlp": {
        "quick": Experiment("faces7", (128, 64), epochs=6, val_size=1000, **_TUNED, schedule=WarmUp(Cosine(0.05), 1)),
        "full": Experiment(
            "fer2013", (1792, 896), epochs=100, val_size=2871, **_TUNED, schedule=WarmUp(Cosine(0.1), 1)
        ),
    },
    "overfit50": {
        "quick": Experiment(
            "shapes10", (1024, 512), epochs=10, train_size=50, val_size=1500, batch_size=10, schedule=Cosine(0.01)
        ),
        "full": Experiment("cifar10", (1024, 512), epochs=10, train_size=50, batch_size=10, schedule=Cosine(0.02)),
    },
    "mlp_512_256": {
        "quick": Experiment(
            "shapes10", (512, 256), epochs=8, val_size=1500, l2=1e-3, schedule=Cosine(0.02), keep="weights"
        ),
        "full": Experiment(
            "cifar10", (512, 256), epochs=4, batch_size=50, l2=2e-3, schedule=Cosine(0.006), keep="weights"
        ),
    },
    "mlp_best": {
        "quick": Experiment(
            "shapes10",
            (512, 256),
            epochs=10,
            val_size=1500,
            dropout=0.1,
            optimizer=SGD(0.9, nesterov=True),
            schedule=WarmUp(Cosine(0.05), 1),
            batch_size=128,
            l2=1e-4,
            augment=Augment(),
        ),
        "full": Experiment(
            "cifar10",
            (1536, 768, 384),
            epochs=40,
            dropout=0.1,
            optimizer=SGD(0.9, nesterov=True),
            schedule=WarmUp(Cosine(0.02), 1),
            l2=3e-4,
            augment=Augment(crop=3),
        ),
    },
}


def profile() -> Profile:
    """Return the profile that notebooks run in: $NNLIB_PROFILE, quick by default."""
    return checked_profile(os.environ.get("NNLIB_PROFILE", "quick"))


def checked_profile(name: str) -> Profile:
    """Return ``name`` if it is a profile. Raises ValueError."""
    for known in PROFILES:
        if name == known:
            return known
    raise ValueError(f"profile: expected quick or full, got {name!r}")


def find(name: str, profile: Profile) -> Experiment:
    """Return a named experiment. Raises ValueError that lists the names."""
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment: expected one of {', '.join(sorted(EXPERIMENTS))}, got {name!r}")
    return EXPERIMENTS[name][profile]


def run(
    name: str,
    profile: Profile = "quick",
    *,
    changes: dict[str, Any] | None = None,
    root: str | Path | None = None,
) -> Record:
    """Return the record of an experiment: the stored one where it matches, else by training, continued if cut off.

    ``changes``: fields to replace; the record then lies with the runs, under a name of its own. ``root``: the data
    root. A stored record counts where its configuration and the library's numerics version match, and it is not older
    than $NNLIB_RETRAIN, seconds since 1970. It is used whatever copy of the data it came from, which its ``source``
    names, and also where no data is at hand. Raises ValueError for a record changed by hand, which is left as it is.
    """
    experiment = dataclasses.replace(find(name, profile), **(changes or {}))
    name = f"{name}-{digest(experiment)}" if changes else name
    folder = runs_root() / "records" if changes else record_folder(profile)
    record = stored(name, experiment, folder)
    if record is None or records.path_of(folder, name).stat().st_mtime < float(os.environ.get("NNLIB_RETRAIN", 0)):
        run_dir = runs_root() / f"{profile}-{name}-{digest(experiment)}"
        saved = network_path(name, profile)
        record = train(name, profile, experiment, run_dir=run_dir, root=root, network_path=saved)
        records.save(record, folder)
        shutil.rmtree(run_dir, ignore_errors=True)
    return record


MODEL_BYTES = 12_000_000  # the most that a model of the checkout may take
ROUNDING = 0.003  # the most by which float16 may change the test accuracy


def release(name: str, *, root: str | Path | None = None) -> Path:
    """Write the network that the full profile trained to models/NAME.safetensors, in float16, and return the path.

    It is tested again as rounded; its metadata tells what it reached, the record and the record's seal. Raises
    FileNotFoundError without a matching record or the network trained on this machine, ValueError for another network
    or test data than the record's, an accuracy more than 0.3 points from it, and a file of more than 12 MB.
    """
    experiment, saved, folder = find(name, "full"), network_path(name, "full"), record_folder("full")
    record = stored(name, experiment, folder)
    again = f"NNLIB_RETRAIN=$(date +%s) nnlib train {name} --profile full"
    if record is None or not saved.is_file():
        missing = f"a full record of {name}" if record is None else str(saved)
        raise FileNotFoundError(f"release: expected {missing}, found none; `{again}` makes both")
    test = data.load(experiment.data, "test", root=root)
    if test.fingerprint != record.data["fingerprints"]["test"]:
        raise ValueError(f"release: the test images here are not those of {name}'s record; use the data it names")
    network = load(saved)
    trained = json.loads(network.metadata.get("metrics", "{}"))
    if any(trained.get(key) != record.metrics[key] for key in ("test_loss", "test_accuracy")):
        raise ValueError(f"release: {saved} is not the network of the record; `{again}` makes both")
    network.vector[...] = network.vector.astype(np.float16)
    results = tested(network.predict_proba(test.inputs, mirrored=experiment.test_mirrored), test.labels)
    ours, theirs = results["test_accuracy"], record.metrics["test_accuracy"]
    if not abs(ours - theirs) <= ROUNDING:
        raise ValueError(f"release: {saved} reaches {ours:.4f} in float16, its record {theirs:.4f}; train it anew")
    size = 2 * network.vector.size + sum(buffer.nbytes for buffer in network.buffers.values())
    if size > MODEL_BYTES:
        raise ValueError(f"release: {name} takes {size:,} bytes in float16, more than {MODEL_BYTES:,}; narrow it")
    seal = json.loads(records.path_of(folder, name).read_text())["seal"]
    told = {**network.metadata, "metrics": json.dumps(results), "record": name, "seal": seal}
    network.save(predict.model_path(name), dtype=np.float16, metadata=told)
    return predict.model_path(name)


def verify(name: str, profile: Profile, *, root: str | Path | None = None) -> Replay:
    """Replay the first steps of a named experiment's record. Raises FileNotFoundError where none matches."""
    record = stored(name, find(name, profile), record_folder(profile))
    if record is None:
        raise FileNotFoundError(f"{name}: no {profile} record of this configuration; `nnlib train {name}` makes one")
    return replay(record, find(name, profile), root=root)


def stored(name: str, experiment: Experiment, folder: Path) -> Record | None:
    """Return the record in ``folder`` if there is one of this configuration and numerics version.

    A field that the record lacks, since it is younger, counts as its default, which means what was before.
    """
    if not records.path_of(folder, name).exists():
        return None
    record = records.load(folder, name)
    same = up_to_date(record.config) == plain(experiment) and record.numerics == records.NUMERICS
    return record if same else None


def up_to_date(config: dict[str, Any]) -> dict[str, Any]:
    """Return a stored experiment with the fields that it lacks, since they are younger, at their defaults."""
    fields = dataclasses.fields(Experiment)
    return {**{field.name: as_config(field.default) for field in fields if field.name not in config}, **config}


def record_folder(profile: Profile) -> Path:
    """Return where a profile's records lie: full ones with the report, quick ones under build."""
    root = checkout_root() or Path.cwd()
    return root / "report" / "records" if profile == "full" else root / "build" / "records"


def runs_root() -> Path:
    """Return where runs and checkpoints lie: $NNLIB_RUNS, else runs/ of the checkout."""
    return Path(os.environ.get("NNLIB_RUNS") or (checkout_root() or Path.cwd()) / "runs")


def network_path(name: str, profile: Profile) -> Path:
    """Return where the network that an experiment trained on this machine is saved."""
    return runs_root() / "networks" / f"{profile}-{name}.safetensors"


def plain(experiment: object) -> dict[str, Any]:
    """Return an experiment, or what else a result depends on, as JSON holds it."""
    return json.loads(json.dumps(as_config(experiment)))


def digest(experiment: object) -> str:
    """Return eight hexadecimal digits that stand for the configuration."""
    return hashlib.sha256(json.dumps(plain(experiment), sort_keys=True).encode()).hexdigest()[:8]
