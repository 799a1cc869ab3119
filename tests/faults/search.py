"""A search that the fault tests start, kill and start again: `python search.py RESULT [SCHEDULER]`, run in a folder.

The faces are under the folder that $NNLIB_DATA names. The journal keeps a second name, by which it is read afterwards.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from nnlib import studies, tune
from nnlib.experiment import Experiment
from nnlib.schedules import Constant
from nnlib.study import LogUniform, Study, Uniform

BASE = Experiment("fer2013", (128,), epochs=4, val_size=100, batch_size=4, schedule=Constant(0.01))
STUDY = Study(
    BASE, {"schedule.value": LogUniform(1e-4, 1e-2), "dropout": Uniform(0.0, 0.5)}, trials=20, sampler="random"
)


def keep(journal: Path) -> None:
    """Give the journal, once it is there, the second name."""
    while not journal.exists():
        time.sleep(0.01)
    if not Path("kept.journal").exists():
        os.link(journal, "kept.journal")


def main(result: str, scheduler: str | None = None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes begin without it
    studies.STUDIES["search"] = {"quick": STUDY, "full": STUDY}
    threading.Thread(target=keep, args=(tune._journal_path("search", "quick", STUDY),), daemon=True).start()
    found = tune.run("search", workers=None if scheduler else 2, dask=scheduler)
    trials = [[t.number, t.parameters, t.state, t.value, [e[:-1] for e in t.epochs]] for t in found.trials]
    Path(result).write_text(json.dumps(trials))


if __name__ == "__main__":
    main(*sys.argv[1:])
