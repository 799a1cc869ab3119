"""The scikit-learn estimator: scikit-learn's own checks, its tools around it, and what is particular to networks."""

import copy
import importlib
import pickle
import subprocess
import sys
import warnings
from functools import partial

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_blobs
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from nnlib import EarlyStopping, Network, models, schedules
from nnlib.data import Augment
from nnlib.sklearn import NetworkClassifier
from nnlib.solver import Solver

QUICK = {"epochs": 15, "rate": 0.05, "random_state": 0}


@pytest.fixture(scope="module")
def digits():
    """1797 images of 8x8 pixels as rows of 64 features."""
    X, y = load_digits(return_X_y=True)
    return X.astype(np.float32), y


@pytest.fixture(scope="module")
def flowers():
    return load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def fitted(flowers):
    return NetworkClassifier((20,), dropout=0.1, batch_norm=True, **QUICK).fit(*flowers)


@parametrize_with_checks(
    [
        NetworkClassifier(epochs=15, rate=0.05),
        NetworkClassifier(epochs=15, rate=0.05, dropout=0.1, batch_norm=True, stopping=EarlyStopping(5)),
    ]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_the_defaults_learn_flowers(flowers):
    assert cross_val_score(NetworkClassifier(random_state=0), *flowers, cv=3).mean() > 0.92


def test_digits_are_learnt_as_well_as_by_mlp_classifier(digits):
    ours = NetworkClassifier(epochs=10, rate=0.05, random_state=0)
    theirs = MLPClassifier(
        solver="sgd", learning_rate_init=0.05, nesterovs_momentum=False, alpha=0, batch_size=32, max_iter=10, tol=0,
        random_state=0,
    )  # fmt: skip
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # ten epochs are meant
        mine, reference = (
            cross_val_score(make_pipeline(StandardScaler(), one), *digits, cv=folds).mean() for one in (ours, theirs)
        )
    assert mine > 0.94
    assert mine > reference - 0.01


def test_a_grid_search_over_widths_and_rates_finds_the_better(flowers):
    estimator = make_pipeline(StandardScaler(), NetworkClassifier(epochs=10, random_state=0))
    grid = {"networkclassifier__hidden": [(), (16,)], "networkclassifier__rate": [1e-5, 0.05]}
    search = GridSearchCV(estimator, grid, cv=2).fit(*flowers)
    assert search.best_params_["networkclassifier__rate"] == 0.05
    assert search.best_score_ > 0.85
    assert search.score(*flowers) > 0.9


def test_labels_may_be_strings(flowers):
    X, y = flowers
    names = np.array(["setosa", "versicolor", "virginica"])
    model = NetworkClassifier(**QUICK).fit(X, names[y])
    assert model.classes_.tolist() == names.tolist()
    assert set(model.predict(X)) <= set(names)
    assert model.score(X, names[y]) > 0.9


def test_one_seed_gives_the_same_network_to_the_last_bit(flowers):
    options = {"dropout": 0.2, "stopping": EarlyStopping(3), **QUICK}
    one, same, other = (NetworkClassifier(**{**options, "random_state": seed}).fit(*flowers) for seed in (0, 0, 1))
    assert one.network_.vector.tobytes() == same.network_.vector.tobytes()
    assert one.history_.steps == same.history_.steps
    assert one.network_.vector.tobytes() != other.network_.vector.tobytes()


@pytest.mark.parametrize("duplicate", [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy])
def test_a_fitted_estimator_can_be_pickled_and_copied(duplicate, fitted, flowers):
    X, y = flowers
    other = duplicate(fitted)
    assert other.predict_proba(X).tobytes() == fitted.predict_proba(X).tobytes()
    assert other.history_.steps == fitted.history_.steps
    before = fitted.network_.vector.copy()
    network = other.network_
    network.vector[...] = 0  # the views still share the vector, the layers still use the views, and both are its own
    assert not any(array.any() for array in network.parameters.values())
    np.testing.assert_allclose(network.predict_proba(X), 1 / 3)
    np.testing.assert_array_equal(fitted.network_.vector, before)
    other.fit(X, y)
    assert other.network_.vector.tobytes() == before.tobytes()


def test_a_pickle_can_be_read_where_nothing_is_compiled(fitted, flowers, tmp_path):
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps((fitted, flowers)))
    code = (
        "import pathlib, pickle, sys; sys.modules['numba'] = None;"
        "model, data = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()); print(model.score(*data))"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    assert float(run.stdout) == fitted.score(*flowers)


def test_a_network_keeps_its_shared_layers_and_metadata_in_a_pickle():
    rng = np.random.default_rng(0)
    network = models.mlp((4,), (4,), 4, rng=rng)
    layers = network.layers.layers
    network = Network(type(network.layers)({"a": layers["fc1"], "b": layers["relu1"], "c": layers["fc1"]}), (4,))
    network.metadata = {"data": "drawn"}
    other = pickle.loads(pickle.dumps(network))
    assert other.metadata == {"data": "drawn"}
    assert other.vector.size == 4 * 4 + 4
    x = rng.normal(size=(3, 4))
    np.testing.assert_array_equal(other.forward(x), network.forward(x))


def test_a_clone_is_not_fitted_and_has_the_same_settings(flowers):
    one = NetworkClassifier((8,), rate=schedules.Cosine(0.05), stopping=EarlyStopping(3), epochs=1).fit(*flowers)
    other = clone(one)
    assert other.get_params() == one.get_params()
    with pytest.raises(NotFittedError):
        other.predict(flowers[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_network_computes_in_the_precision_of_the_data(dtype, flowers):
    X, y = flowers[0].astype(dtype), flowers[1]
    model = NetworkClassifier(epochs=1, random_state=0).fit(X, y)
    assert model.network_.vector.dtype == model.predict_proba(X).dtype == dtype


def test_rows_can_be_images(digits):
    X, y = digits
    model = NetworkClassifier((32,), input_shape=(8, 8, 1), augment=Augment(flip=False, crop=1), **QUICK).fit(X, y)
    assert model.network_.input_shape == (8, 8, 1)
    assert len(model.network_.buffers["normalize.mean"]) == 1
    assert model.score(X, y) > 0.9
    images = X.reshape(-1, 8, 8, 1)
    np.testing.assert_array_equal(model.predict_proba(X), model.network_.predict_proba(images))


def test_any_network_can_be_wrapped(digits):
    X, y = digits[0][:100], digits[1][:100]
    build = partial(models.small_cnn, dropout=0.1)
    model = NetworkClassifier(network=build, input_shape=(8, 8, 1), epochs=1, random_state=0).fit(X, y)
    assert model.network_.parameters["conv1.weight"].shape == (5, 5, 1, 16)
    assert model.predict_proba(X).shape == (100, 10)


def test_the_settings_reach_the_solver(flowers, monkeypatch):
    seen = []
    monkeypatch.setattr(Solver, "fit", lambda solver: seen.append(solver))
    stopping, rate, momentum = EarlyStopping(2), schedules.Cosine(0.1), schedules.OneCycle(0.9, 0.8, 0.9)
    NetworkClassifier(
        rate=rate, momentum=momentum, nesterov=True, epochs=7, batch_size=10, l2=0.01, label_smoothing=0.1,
        stopping=stopping, validation_fraction=0.2, random_state=0,
    ).fit(*flowers)  # fmt: skip
    (solver,) = seen
    assert (solver.schedule, solver.optimizer.momentum, solver.optimizer.nesterov) == (rate, momentum, True)
    assert (solver.epochs, solver.batch_size, solver.l2, solver.label_smoothing) == (7, 10, 0.01, 0.1)
    assert solver.stopping == stopping
    assert np.bincount(solver.val.labels).tolist() == [10, 10, 10]
    assert len(solver.train) == 120


def test_early_stopping_ends_training_and_keeps_the_best_weights(flowers):
    X, y = flowers
    stopping = EarlyStopping(1, min_delta=10.0)  # no second epoch is better by so much
    model = NetworkClassifier(stopping=stopping, **QUICK).fit(X, y)
    first = NetworkClassifier(stopping=stopping, **{**QUICK, "epochs": 1}).fit(X, y)
    assert len(model.history_.epochs) == 2
    assert model.network_.vector.tobytes() == first.network_.vector.tobytes()


@pytest.mark.parametrize(("rows", "batch_size", "batches"), [(33, 32, 1), (34, 32, 2), (31, 2, 8), (129, 32, 4)])
def test_no_batch_is_left_with_a_single_row(rows, batch_size, batches):
    X, y = make_blobs(rows, random_state=0)
    model = NetworkClassifier((4,), batch_norm=True, epochs=1, batch_size=batch_size).fit(X, y)
    assert len(model.history_.steps) == batches


def test_a_feature_that_was_constant_in_training_does_not_blow_up(flowers):
    X = np.column_stack([flowers[0], np.full(150, 0.1)])  # the mean of many 0.1 is not 0.1, so its deviation is not 0
    model = NetworkClassifier(**QUICK).fit(X, flowers[1])
    before = model.predict_proba(X)
    X[:, -1] += 1e-3
    np.testing.assert_allclose(model.predict_proba(X), before, atol=0.01)


def test_progress_is_shown_only_when_asked_for(flowers, monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    NetworkClassifier(epochs=1).fit(*flowers)
    assert capsys.readouterr().err == ""
    NetworkClassifier(epochs=1, verbose=True).fit(*flowers)
    assert "0/5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"hidden": (0,)}, ValueError, "mlp: expected sizes of at least 1"),
        ({"hidden": 64}, TypeError, r"hidden is a tuple of widths, got 64; give \(64,\)"),
        ({"epochs": 0}, ValueError, "epochs >= 1"),
        ({"batch_size": 0}, ValueError, "batch_size >= 1"),
        ({"dropout": 1.0}, ValueError, "probability to drop"),
        ({"momentum": 1.0}, ValueError, "momentum lies in"),
        ({"label_smoothing": 1.0}, ValueError, "label_smoothing lies in"),
        ({"stopping": EarlyStopping(), "validation_fraction": 1}, ValueError, "validation_fraction lies in"),
        ({"input_shape": (2, 3, 1)}, ValueError, r"rows of 4 features do not fit shape \(2, 3, 1\)"),
        ({"network": models.small_cnn, "dropout": 0.1}, ValueError, "another network brings its own"),
        ({"network": lambda rng, **_: models.mlp((4,), (), 7, rng=rng)}, ValueError, "7 outputs, but y has 3 classes"),
        ({"network": lambda rng, **_: models.mlp((5,), (), 3, rng=rng)}, ValueError, r"expected \(N, 5\)"),
        ({"rate": 1e30, "l2": 1e30}, FloatingPointError, "training diverged at step"),
    ],
)
def test_bad_settings_are_refused(options, error, message, flowers):
    with pytest.raises(error, match=message):
        NetworkClassifier(**{"epochs": 2, **options}).fit(*flowers)


def test_bad_data_is_refused(fitted, flowers):
    X, y = flowers
    with pytest.raises(ValueError, match="at least 2 classes, got 1 class, 5"):
        NetworkClassifier().fit(X, np.full(150, 5))
    with pytest.raises(ValueError, match="Input X contains NaN"):
        NetworkClassifier().fit(np.where(X > 7, np.nan, X), y)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        NetworkClassifier().fit(X, y + 0.5)
    with pytest.raises(ValueError, match="X has 3 features, but NetworkClassifier is expecting 4 features"):
        fitted.predict(X[:, :3])
    with pytest.raises(ValueError, match="Input X contains infinity"):
        fitted.predict_proba(np.where(X > 7, np.inf, X))


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "nnlib.sklearn")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ImportError, match=r"^nnlib\.sklearn needs scikit-learn \(.*\): pip install scikit-learn==1"):
        importlib.import_module("nnlib.sklearn")


def test_the_library_itself_does_not_import_scikit_learn():
    code = "import sys, nnlib, nnlib.cli; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
