"""A small training run that the fault tests start, kill and start again: `python training_run.py RUN_DIR RESULT`."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from nnlib import SGD, EarlyStopping, Solver, models, schedules
from nnlib.data import Augment, Split


def main(run_dir: str, result: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, size=640)
    images = (40 * labels[:, None, None, None] + rng.integers(0, 90, size=(640, 12, 12, 3))).astype(np.uint8)
    data = Split(images, labels)
    network = models.mlp((12, 12, 3), (256, 128), 5, dropout=0.3, rng=rng)
    network.fit_normalization(images)
    solver = Solver(
        network,
        data[:500],
        data[500:],
        optimizer=SGD(0.9, nesterov=True),
        schedule=schedules.Cosine(0.02),
        epochs=25,
        batch_size=16,
        l2=1e-3,
        augment=Augment(crop=1),
        stopping=EarlyStopping(patience=25),
        run_dir=run_dir,
    )
    print("training", flush=True)
    history = solver.fit(resume=True)
    state = {
        "parameters": hashlib.sha256(network.vector.tobytes()).hexdigest(),
        "steps": hashlib.sha256(json.dumps(history.steps).encode()).hexdigest(),
        "epochs": [record[:-1] for record in history.epochs],
        "generator": solver._state.rng.bit_generator.state["state"],
    }
    Path(result).write_text(json.dumps(state))


if __name__ == "__main__":
    main(*sys.argv[1:])
