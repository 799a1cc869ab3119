"""When to stop, and which weights to keep."""

import math
from dataclasses import dataclass
from typing import Literal

from nnlib.history import EpochRecord


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after ``patience`` epochs without an improvement of more than ``min_delta``; the best weights are restored.

    ``metric`` is what is watched on the validation data: the loss falls, the accuracy rises. Source: Prechelt 1998.
    """

    patience: int = 5
    min_delta: float = 0.0
    metric: Literal["val_loss", "val_accuracy"] = "val_loss"

    def __post_init__(self) -> None:
        if self.patience < 1 or self.min_delta < 0 or self.metric not in ("val_loss", "val_accuracy"):
            raise ValueError(
                "EarlyStopping: expected patience >= 1, min_delta >= 0 and metric val_loss or val_accuracy, "
                f"got {self.patience}, {self.min_delta}, {self.metric!r}"
            )

    def score(self, record: EpochRecord) -> float:
        """Return what improves by growing: the accuracy, or the loss with its sign turned."""
        return record.val_accuracy if self.metric == "val_accuracy" else -record.val_loss

    def improved(self, record: EpochRecord, best: float) -> bool:
        """Tell whether an epoch beats the best score so far, -inf at first."""
        return best == -math.inf or self.score(record) > best + self.min_delta
