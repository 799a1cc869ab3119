"""Every named search of the report, in its quick and its full profile; `tune.run` finds or makes its result.

These are the steps of notebook 05 in their order. Each compares settings that the next takes for granted, so what a
step found is written down here, as the start of the next. To add a study: write one for each profile into `STUDIES`.
"""

import dataclasses
from typing import Any

from nnlib.data.augment import Augment
from nnlib.experiment import Experiment
from nnlib.experiments import PROFILES, Profile, checked_profile
from nnlib.optim import SGD
from nnlib.schedules import Constant, Cosine, Exponential, Inverse, Linear, OneCycle, Step, WarmUp
from nnlib.study import Choice, Dimension, LogUniform, Study, Uniform

_SEEDS = Choice((0, 1, 2))

# The start: two hidden layers, nothing but SGD with momentum at a usual rate. Few epochs, since there are many trials.
_START: dict[Profile, Experiment] = {
    "quick": Experiment(
        "faces7", (64, 32), epochs=4, train_size=3000, val_size=1000, batch_size=64, schedule=Constant(0.05)
    ),
    "full": Experiment("fer2013", (512, 256), epochs=15, val_size=2871, batch_size=128, schedule=Constant(0.02)),
}
_INPUTS: dict[str, Any] = {"standardize": True, "batch_norm": True}
_SCHEDULE: dict[str, Any] = {**_INPUTS, "schedule": WarmUp(Cosine(0.02), 1), "optimizer": SGD(0.9, nesterov=True)}
_RATE: dict[Profile, dict[str, Any]] = {
    "quick": {**_SCHEDULE, "schedule": WarmUp(Cosine(0.1), 1)},
    "full": {**_SCHEDULE, "schedule": WarmUp(Cosine(0.05), 1)},
}
_MIRRORED: dict[str, Any] = {"augment": Augment(crop=0), "label_smoothing": 0.1}
_LONG: dict[Profile, dict[str, Any]] = {"quick": {"epochs": 4}, "full": {"epochs": 20}}
_WIDE: dict[Profile, dict[str, Any]] = {
    "quick": {"epochs": 6, "hidden": (128, 64)},
    "full": {"epochs": 40, "hidden": (1024, 512)},
}

_EQUAL = tuple((width,) * depth for depth in (1, 2, 3) for width in (256, 512, 1024))
_SHAPES: dict[Profile, tuple[tuple[int, ...], ...]] = {
    "quick": ((64, 32), (128, 64), (32,), (64,), (64, 64)),
    "full": ((512, 256), (1024, 512), *_EQUAL),
}


def _shapes(*shapes: tuple[int, ...]) -> Choice:
    return Choice({"-".join(map(str, shape)): shape for shape in shapes})


def _schedules(value: float, epochs: int) -> dict[str, Any]:
    """Return the schedules that are compared, each from the same rate on."""
    return {
        "constant": Constant(value),
        "steps": Step(value, factor=0.3, every=epochs / 3),
        "exponential": Exponential(value, factor=0.01 ** (1 / epochs)),
        "1/t": Inverse(value, half=epochs / 15),
        "cosine": Cosine(value),
        "warm-up, cosine": WarmUp(Cosine(value), 1),
        "one cycle": OneCycle(value / 10, 2 * value, 0.0),
    }


def _study(profile: Profile, base: dict[str, Any], space: dict[str, Dimension], **options: Any) -> Study:
    return Study(dataclasses.replace(_START[profile], **base), space, **options)


def _studies(profile: Profile) -> dict[str, Study]:
    """Return the steps of notebook 05."""
    full = profile == "full"
    rate, epochs = (0.02 if full else 0.05), _START[profile].epochs
    momenta = {
        "0": SGD(0.0),
        "0.5": SGD(0.5),
        "0.9": SGD(0.9),
        "0.9, Nesterov": SGD(0.9, nesterov=True),
        "0.5 to 0.99": SGD(Linear(0.5, 0.99)),
    }
    return {
        "fer_start": _study(
            profile,
            {},
            {"standardize": Choice((False, True)), "batch_norm": Choice((False, True)), "seed": _SEEDS},
        ),
        "fer_schedule": _study(
            profile, _INPUTS, {"schedule": Choice(_schedules(rate, epochs)), "seed": _SEEDS}
        ),
        "fer_momentum": _study(
            profile,
            {**_INPUTS, "schedule": WarmUp(Cosine(rate), 1)},
            {"optimizer": Choice(momenta), "schedule.schedule.value": Choice((rate, 10 * rate)), "seed": _SEEDS},
        ),
        "fer_rate": _study(
            profile,
            _SCHEDULE,
            {
                "schedule.schedule.value": LogUniform(1e-3, 1.0),
                "batch_size": Choice((64, 128, 256) if full else (32, 64)),
            },
            trials=24 if full else 8,
            sampler="random",
            pruner="median",
        ),
        "fer_dropout": _study(
            profile,
            _RATE[profile],
            {"dropout": Choice((0.0, 0.1, 0.2, 0.3, 0.5) if full else (0.0, 0.2, 0.5)), "seed": _SEEDS},
        ),
        "fer_l2": _study(
            profile,
            _RATE[profile],
            {"l2": Choice((0.0, 1e-4, 3e-4, 1e-3, 3e-3) if full else (0.0, 1e-3, 1e-2)), "seed": _SEEDS},
        ),
        "fer_both": _study(
            profile, _RATE[profile], {"dropout": Choice((0.0, 0.2)), "l2": Choice((0.0, 1e-3)), "seed": _SEEDS}
        ),
        "fer_images": _study(
            profile,
            {**_RATE[profile], "dropout": 0.2},
            {
                "augment": Choice(
                    {
                        "none": None,
                        "mirrored": Augment(crop=0),
                        "mirrored, moved by 2": Augment(crop=2),
                    }
                ),
                "label_smoothing": Choice((0.0, 0.1)),
                "seed": _SEEDS,
            },
        ),
        "fer_topology": _study(
            profile,
            {**_RATE[profile], **_MIRRORED, "dropout": 0.2},
            {"hidden": _shapes(*_SHAPES[profile]), "seed": _SEEDS},
        ),
        "fer_search": _study(
            profile,
            {**_RATE[profile], **_MIRRORED, **_LONG[profile]},
            {
                "hidden": _shapes((512, 256), (1024, 512), (1024, 1024)) if full else _shapes((64, 32), (128, 64)),
                "dropout": Uniform(0.0, 0.5),
                "l2": LogUniform(1e-5, 3e-3),
                "schedule.schedule.value": LogUniform(0.01, 0.3),
                "label_smoothing": Uniform(0.0, 0.3),
            },
            trials=24 if full else 10,
            sampler="tpe",
            pruner="hyperband",
        ),
        "fer_long": _study(
            profile,
            {**_RATE[profile], **_MIRRORED, **_WIDE[profile]},
            {
                "augment": Choice(
                    {
                        "mirrored": Augment(crop=0),
                        "mirrored, moved by 2": Augment(crop=2),
                        "mirrored, moved, turned, scaled": Augment(crop=0, rotation=8, scale=0.05, shift=0.04),
                    }
                ),
                "seed": _SEEDS,
            },
        ),
    }


STUDIES: dict[str, dict[Profile, Study]] = {
    name: {profile: _studies(profile)[name] for profile in PROFILES} for name in _studies("quick")
}


def find(name: str, profile: Profile) -> Study:
    """Return a named study. Raises ValueError that lists the names, and for what is no profile."""
    if name not in STUDIES:
        raise ValueError(f"study: expected one of {', '.join(sorted(STUDIES))}, got {name!r}")
    return STUDIES[name][checked_profile(profile)]
