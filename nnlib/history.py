"""What a training run writes down."""

from dataclasses import dataclass, field
from typing import NamedTuple


class StepRecord(NamedTuple):
    """One update of the parameters."""

    step: int  # counted from 1
    loss: float  # mean cross-entropy of the batch, nats, penalty apart
    penalty: float  # 0.5 * l2 * sum of squared weights
    rate: float  # learning rate of the update


class EpochRecord(NamedTuple):
    """One pass over the training data. Losses are without penalty; accuracies lie in [0, 1]; both in test mode."""

    epoch: int  # counted from 1
    train_loss: float  # on a fixed sample of the training data, as large as makes the estimate cheap
    train_accuracy: float
    val_loss: float  # nan without validation data
    val_accuracy: float
    seconds: float  # wall time of the epoch, evaluation included


@dataclass
class History:
    """The records of every step and every epoch, in order."""

    steps: list[StepRecord] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)
