"""The training loop: what it visits, when it stops, and that an interruption leaves no trace."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from tqdm.notebook import tqdm as notebook_tqdm

from nnlib import SGD, EarlyStopping, Solver, models, schedules
from nnlib.data import Augment, Split
from nnlib.solver import Callback, evaluate


def blobs(n=205, seed=0, noise=1.0):
    """Three Gaussian clouds as tiny images: learnable in a few steps."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, size=n)
    images = 128 + 40 * (labels[:, None, None, None] - 1) + noise * 20 * rng.normal(size=(n, 3, 3, 1))
    return Split(images.clip(0, 255).astype(np.uint8), labels)


def network(data, **options):
    net = models.mlp((3, 3, 1), (8,), 3, rng=np.random.default_rng(1), **options)
    net.fit_normalization(data.inputs)
    return net


def settings(**changes):
    return {
        "optimizer": SGD(schedules.OneCycle(0.9, 0.8, 0.9), nesterov=True),
        "schedule": schedules.Cosine(0.1),
        "epochs": 4,
        "batch_size": 20,
        "l2": 1e-3,
        "label_smoothing": 0.05,
        "augment": Augment(crop=1),
        "seed": 3,
        **changes,
    }


def solver(data=None, run_dir=None, callbacks=(), **changes):
    data = data or blobs()
    val = blobs(60, seed=9)
    net = network(data, dropout=0.3)
    return Solver(net, data, val, run_dir=run_dir, callbacks=callbacks, **settings(**changes))


def outcome(one):
    """All that must be equal after an interruption; wall times are not."""
    epochs = [record[:-1] for record in one.history.epochs]
    return one.network.vector.tobytes(), one.history.steps, epochs, one._state.rng.bit_generator.state


class At(Callback):
    """Does something after a given step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step(self, solver):
        if len(solver.history.steps) == self.step:
            self.action(solver)


def test_training_learns():
    data = blobs()
    net = network(data)
    history = Solver(net, data, epochs=5, schedule=0.05, batch_size=20).fit()
    assert history.epochs[-1].train_accuracy > 0.9
    assert history.epochs[-1].train_loss < history.epochs[0].train_loss
    assert np.isnan(history.epochs[-1].val_loss)


def test_no_bar_is_drawn_in_a_notebook_either(monkeypatch):
    monkeypatch.setattr("nnlib.progress.tqdm", notebook_tqdm)
    data = blobs()
    assert Solver(network(data), data)._bar().disable  # conftest sets TQDM_DISABLE


def test_a_rate_may_be_a_numpy_number():
    data = blobs()
    solver = Solver(network(data), data, schedule=np.float32(0.5), optimizer=SGD(np.float32(0.5)))
    assert solver.config()["schedule"] == {"kind": "Constant", "value": 0.5}
    assert solver.config()["optimizer"]["momentum"] == 0.5


def test_every_epoch_visits_each_sample_once_and_keeps_the_partial_batch():
    n = 25
    images = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 3, 1), dtype=np.uint8)
    data = Split(images, np.zeros(n, dtype=np.int64))
    batches = []

    def spy(x, rng):
        batches.append(x[:, 0, 0, 0].tolist())
        return x

    Solver(network(data), data, epochs=2, batch_size=10, augment=spy).fit()
    assert [len(b) for b in batches] == [10, 10, 5] * 2
    first, second = sum(batches[:3], []), sum(batches[3:], [])  # noqa: RUF017 (six short lists)
    assert sorted(first) == sorted(second) == list(range(n))
    assert first != second


def test_history_holds_data_loss_penalty_and_rate():
    one = solver()
    history = one.fit()
    assert [record.step for record in history.steps] == list(range(1, 4 * 11 + 1))
    assert history.steps[0].rate == pytest.approx(0.1)
    assert history.steps[22].rate == pytest.approx(0.05)
    assert all(record.penalty > 0 for record in history.steps)
    assert [record.epoch for record in history.epochs] == [1, 2, 3, 4]


def test_two_runs_with_one_seed_are_identical_and_another_seed_differs():
    first, second, third = solver(), solver(), solver(seed=4)
    for one in (first, second, third):
        one.fit()
    assert outcome(first) == outcome(second)
    assert outcome(first) != outcome(third)


@pytest.mark.parametrize("step", [1, 7, 11, 12, 22, 43])
def test_a_stopped_run_resumes_bit_for_bit(tmp_path, step):
    whole = solver()
    whole.fit()
    cut = solver(run_dir=tmp_path, callbacks=[At(step, Solver.stop)])
    cut.fit()
    assert len(cut.history.steps) == step
    resumed = solver(run_dir=tmp_path)
    resumed.fit(resume=True)
    assert outcome(resumed) == outcome(whole)


def test_ctrl_c_saves_and_propagates(tmp_path):
    whole = solver()
    whole.fit()
    cut = solver(run_dir=tmp_path, callbacks=[At(15, lambda _: os.kill(os.getpid(), signal.SIGINT))])
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        cut.fit()
    assert signal.getsignal(signal.SIGINT) is before
    assert len(cut.history.steps) == 15
    resumed = solver(run_dir=tmp_path)
    resumed.fit(resume=True)
    assert outcome(resumed) == outcome(whole)


def test_stop_from_another_thread_takes_effect_within_one_step():
    steps_after = []
    stopped = threading.Event()

    class Slow(Callback):
        def on_step(self, solver):
            if stopped.is_set():
                steps_after.append(len(solver.history.steps))
            time.sleep(0.005)

    one = solver(callbacks=[Slow()], epochs=500)
    thread = threading.Thread(target=one.fit)
    thread.start()
    while len(one.history.steps) < 5:
        time.sleep(0.001)
    one.stop()
    stopped.set()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert len(steps_after) <= 1


def test_resuming_a_finished_run_trains_no_further(tmp_path):
    done = solver(run_dir=tmp_path)
    done.fit()
    again = solver(run_dir=tmp_path)
    again.fit(resume=True)
    assert outcome(again) == outcome(done)


def test_without_resume_a_run_starts_anew(tmp_path):
    first, second = solver(run_dir=tmp_path), solver(run_dir=tmp_path)
    first.fit()
    second.fit()
    assert outcome(first) == outcome(second)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"batch_size": 30}, "batch_size is 20, not 30"), ({"epochs": 9}, "epochs is 4, not 9"), ({"l2": 0.5}, "l2 is")],
)
def test_a_checkpoint_of_another_configuration_is_refused_and_kept(tmp_path, change, message):
    solver(run_dir=tmp_path).fit()
    path = tmp_path / "checkpoint.safetensors"
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message) as error:
        solver(run_dir=tmp_path, **change).fit(resume=True)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    solver(run_dir=tmp_path).fit()
    with pytest.raises(ValueError, match="train is"):
        solver(data=blobs(seed=5), run_dir=tmp_path).fit(resume=True)


def test_a_broken_checkpoint_is_told_in_one_line(tmp_path):
    solver(run_dir=tmp_path).fit()
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="broken") as error:
        solver(run_dir=tmp_path).fit(resume=True)
    assert "\n" not in str(error.value)


def test_early_stopping_restores_the_best_weights(tmp_path):
    noisy = blobs(noise=6.0)
    changes = {"stopping": EarlyStopping(patience=3, min_delta=0.001), "epochs": 60, "schedule": 0.3}
    one = solver(data=noisy, **changes)
    history = one.fit()
    losses = [record.val_loss for record in history.epochs]
    assert len(losses) < 60
    best = int(np.argmin(losses))
    assert evaluate(one.network, one.val)[0] == pytest.approx(losses[best], abs=0.001 + 1e-6)
    cut = solver(data=noisy, run_dir=tmp_path, callbacks=[At(25, Solver.stop)], **changes)
    cut.fit()
    resumed = solver(data=noisy, run_dir=tmp_path, **changes)
    resumed.fit(resume=True)
    assert outcome(resumed) == outcome(one)


def test_divergence_names_the_step_the_rate_and_the_parameter(tmp_path):
    one = solver(schedule=1e6, run_dir=tmp_path)
    with pytest.raises(FloatingPointError, match=r"step \d+, rate 1e\+06: .* parameter is fc") as error:
        one.fit()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs >= 1"),
        ({"batch_size": 0}, ValueError, "batch_size >= 1"),
        ({"l2": -1.0}, ValueError, "l2 >= 0"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing lies in"),
    ],
)
def test_impossible_settings(arguments, error, message):
    with pytest.raises(error, match=message):
        solver(**arguments).fit()


def test_data_that_does_not_fit_the_network():
    data = blobs()
    with pytest.raises(ValueError, match="expected 0 to 2 for 3 classes"):
        Solver(network(data), Split(data.inputs, data.labels + 1))
    with pytest.raises(ValueError, match=r"expected \(N, 3, 3, 1\)"):
        Solver(network(data), Split(np.zeros((4, 5, 5, 1), dtype=np.uint8), np.zeros(4, dtype=int)))
    with pytest.raises(ValueError, match="give val"):
        Solver(network(data), data, stopping=EarlyStopping())
