"""SGD, schedules and early stopping: the rules that training follows."""

import math

import numpy as np
import pytest
from sklearn.neural_network._stochastic_optimizers import SGDOptimizer

from nnlib import SGD, EarlyStopping, schedules
from nnlib.configuration import as_config, differences
from nnlib.functional.descent import BLOCK
from nnlib.history import EpochRecord


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_moves_as_scikit_learn_s_does(nesterov, momentum):
    rng = np.random.default_rng(0)
    start = [rng.normal(size=(3, 4)), rng.normal(size=BLOCK + 5)]
    ours = {str(i): p.copy() for i, p in enumerate(start)}
    velocity = {name: np.zeros_like(p) for name, p in ours.items()}
    theirs = [p.copy() for p in start]
    reference = SGDOptimizer(theirs, learning_rate_init=0.1, momentum=momentum, nesterov=nesterov)
    for _ in range(5):
        gradients = [rng.normal(size=p.shape) for p in start]
        reference.update_params(theirs, gradients)
        named = {str(i): g for i, g in enumerate(gradients)}
        SGD(momentum, nesterov).update(ours, named, velocity, rate=0.1, momentum=momentum)
    for i, expected in enumerate(theirs):
        np.testing.assert_allclose(ours[str(i)], expected, rtol=1e-12, atol=1e-14)


def test_sgd_leaves_gradients_and_dtypes_alone():
    p, g, v = np.ones(5, dtype=np.float32), np.ones(5, dtype=np.float32), np.zeros(5, dtype=np.float32)
    g.flags.writeable = False
    SGD(0.9, nesterov=True).update({"p": p}, {"p": g}, {"p": v}, rate=0.1, momentum=0.9)
    assert p.dtype == v.dtype == np.float32
    np.testing.assert_allclose(p, 1 - 0.1 * 1.9, rtol=1e-6)


def test_values_of_every_schedule():
    epochs = 20
    assert schedules.Constant(0.3)(7.5, epochs) == 0.3
    step = schedules.Step(1.0, factor=0.5, every=4)
    assert [step(e, epochs) for e in (0, 3.99, 4, 8)] == [1, 1, 0.5, 0.25]
    assert schedules.Exponential(2.0, 0.5)(3, epochs) == 0.25
    inverse = schedules.Inverse(0.6, half=4)
    assert [inverse(e, epochs) for e in (0, 4, 8)] == pytest.approx([0.6, 0.3, 0.2])
    assert [schedules.Linear(1.0, 0.0)(e, epochs) for e in (0, 5, 20)] == pytest.approx([1, 0.75, 0])
    cosine = schedules.Cosine(1.0, final=0.2)
    assert [cosine(e, epochs) for e in (0, 10, 20)] == pytest.approx([1, 0.6, 0.2])
    cycle = schedules.OneCycle(0.1, 1.0, 0.01, rise=0.25)
    assert [cycle(e, epochs) for e in (0, 2.5, 5, 20)] == pytest.approx([0.1, 0.55, 1.0, 0.01])
    warm = schedules.WarmUp(schedules.Constant(1.0), warm=2, start=0.1)
    assert [warm(e, epochs) for e in (0, 1, 2, 9)] == pytest.approx([0.1, 0.55, 1.0, 1.0])
    assert schedules.WarmUp(schedules.Constant(1.0), warm=0)(0, epochs) == 1.0


def test_a_momentum_schedule():
    optimizer = SGD(schedules.OneCycle(0.95, 0.85, 0.95))
    assert optimizer.momentum_at(0, 10) == pytest.approx(0.95)
    assert optimizer.momentum_at(3, 10) == pytest.approx(0.85)
    assert SGD(0.8).momentum_at(3, 10) == 0.8
    assert SGD(np.float32(0.5)).momentum_at(3, 10) == 0.5
    growing = SGD(schedules.Linear(0.5, 0.99, share=0.2))
    assert [growing.momentum_at(e, 10) for e in (0, 1, 2, 9)] == pytest.approx([0.5, 0.745, 0.99, 0.99])


@pytest.mark.parametrize(
    "call",
    [
        lambda: SGD(1.0),
        lambda: SGD(np.int64(1)),
        lambda: EarlyStopping(patience=0),
        lambda: EarlyStopping(2, -1.0),
        lambda: schedules.Constant(-0.1),
        lambda: schedules.WarmUp(schedules.Cosine(0.1), -1),
        lambda: schedules.Step(0.1, every=0),
    ],
)
def test_impossible_rules(call):
    with pytest.raises(ValueError, match=r"got -?\d"):
        call()


def record(val_loss, val_accuracy):
    return EpochRecord(1, 0.0, 0.0, val_loss, val_accuracy, 0.0)


def test_an_improvement_must_exceed_the_minimum():
    by_loss = EarlyStopping(min_delta=0.1)
    assert by_loss.improved(record(5.0, 0.1), -math.inf)
    assert not by_loss.improved(record(0.95, 0), by_loss.score(record(1.0, 0)))
    assert by_loss.improved(record(0.85, 0), by_loss.score(record(1.0, 0)))
    by_accuracy = EarlyStopping(metric="val_accuracy")
    assert by_accuracy.improved(record(9, 0.6), by_accuracy.score(record(1, 0.5)))
    assert not by_accuracy.improved(record(0.1, 0.5), by_accuracy.score(record(1, 0.5)))


def test_configurations_tell_where_they_differ():
    one = as_config({"schedule": schedules.Cosine(0.1), "batch_size": 64})
    two = as_config({"schedule": schedules.Cosine(0.2), "batch_size": 64})
    assert differences(one, one) == []
    assert len(differences(one, two)) == 1
    assert "0.1" in differences(one, two)[0]
    with pytest.raises(TypeError, match="frozen dataclass"):
        as_config({"augment": np.sin})
