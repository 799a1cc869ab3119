"""The benchmark behind `nnlib bench`: how fast a training step and inference are, beside the machine and PyTorch.

Every side of a comparison (this library, PyTorch at its defaults, PyTorch tuned, this library on NumPy alone) runs in a
process of its own, a worker, so that thread pools do not fight and each has a memory peak of its own. A worker sleeps
until it is asked for a round of about a third of a second; the sides take turns, round by round, so that a machine that
slows down meanwhile slows all of them. A time is the median over the rounds of each round's median.

Who reads on begins with `works` (what is computed, and the least that it takes), then `measure` (turns, medians,
ratios), `process` and `worker` (the two ends of a worker's pipe), `pytorch` (the same networks there), `machine`,
`tables` and `store`.
"""

from nnlib.bench.measure import Settings, run
from nnlib.bench.works import WORKS, Work

__all__ = ["WORKS", "Settings", "Work", "run"]
