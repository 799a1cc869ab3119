"""The learning-rate range test: what it measures, when it ends, and that its suggestion trains."""

import numpy as np
import pytest

from nnlib import SGD, Solver, data, models
from nnlib.range_test import EXPLODED, SMOOTHING, RangeTest, range_test


@pytest.fixture(scope="module")
def faces():
    return data.load("faces7", "train")[:2000]


def small_net(seed=0):
    return models.mlp((48, 48, 1), (32,), 7, standardize=True, rng=np.random.default_rng(seed))


def test_the_rate_grows_by_the_same_factor_until_the_loss_explodes(faces):
    network = small_net()
    before = network.vector.copy()
    result = range_test(network, faces, low=1e-4, high=100.0, steps=60, batch_size=100)
    np.testing.assert_array_equal(network.vector, before)
    np.testing.assert_allclose(result.rates, np.geomspace(1e-4, 100, 60)[: len(result.rates)])
    assert result.losses[0] == pytest.approx(np.log(7), rel=0.05)
    assert result.smoothed.min() < 0.99 * result.losses[0]
    assert len(result.rates) < 60
    explosions = result.smoothed > EXPLODED * np.minimum.accumulate(result.smoothed)
    assert not explosions[:-1].any()


def test_losses_are_smoothed_by_a_running_mean_without_a_bias_at_the_start(faces):
    result = range_test(small_net(), faces, low=1e-4, high=1e-3, steps=30, batch_size=100)
    assert len(result.rates) == 30  # over more than one epoch
    for last in (0, 1, 29):
        weights = SMOOTHING ** np.arange(last, -1, -1)
        assert result.smoothed[last] == pytest.approx(np.average(result.losses[: last + 1], weights=weights))


def test_a_loss_that_is_not_finite_ends_the_test(faces):
    result = range_test(small_net(), faces, low=1e30, high=1e31, batch_size=100)
    assert len(result.rates) == len(result.losses) == len(result.smoothed) < 5
    assert np.isfinite(result.losses).all()
    broken = small_net()
    broken.vector[...] = np.inf
    with pytest.raises(FloatingPointError, match="not finite at the first step"):
        range_test(broken, faces, steps=5)


def test_the_same_seed_gives_the_same_test(faces):
    options = {"high": 0.01, "steps": 15, "batch_size": 100}
    one, again, other = (range_test(small_net(), faces, seed=seed, **options) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert (one.losses != other.losses).any()
    slow = range_test(small_net(), faces, optimizer=SGD(0.0), **options)
    assert (one.losses != slow.losses).any()


def test_the_suggestion_trains_and_rates_far_from_it_do_not(faces):
    network = small_net()
    rate = range_test(network, faces, steps=100, batch_size=100).suggestion

    def loss(rate):
        try:
            history = Solver(small_net(), faces, schedule=rate, epochs=2, batch_size=100).fit()
        except FloatingPointError:
            return np.inf
        return history.epochs[-1].train_loss

    assert loss(rate) < min(loss(rate / 100), loss(rate * 100)) - 0.02


def test_the_suggestion_is_a_tenth_of_the_rate_at_the_least_loss():
    result = RangeTest(np.array([0.1, 0.2, 0.4, 0.8]), np.zeros(4), np.array([2.0, 1.5, 1.0, 3.0]))
    assert result.suggestion == pytest.approx(0.04)


@pytest.mark.parametrize("options", [{"low": 0}, {"low": 1, "high": 1}, {"steps": 1}, {"batch_size": 0}])
def test_impossible_tests(faces, options):
    with pytest.raises(ValueError, match="range_test: expected 0 < low < high"):
        range_test(small_net(), faces, **options)
