"""A network as a scikit-learn estimator, for pipelines, cross-validation and searches written for such.

scikit-learn is an extra: nothing else in the library imports this module.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from nnlib.data.split import Split
from nnlib.functional.checks import Array
from nnlib.layers import Generator
from nnlib.models import mlp
from nnlib.network import Network
from nnlib.optim import SGD
from nnlib.schedules import Schedule
from nnlib.solver import Augmentation, Solver
from nnlib.stopping import EarlyStopping

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(f"nnlib.sklearn needs scikit-learn ({error}): pip install scikit-learn==1.9.1") from error

HIDDEN = (100,)


class NetworkClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of feature rows: a network trained by stochastic gradient descent with momentum.

    The network is fully connected, with a `Normalize` layer in front that is fitted too, so rows need no scaling. It
    computes in the precision of X: float32, or float64 for whatever else comes.

    - ``hidden``, ``dropout``, ``batch_norm``: of the fully connected network, see `nnlib.models.mlp`.
    - ``network``: any other one, as a function that is called with the keywords ``input_shape``, ``classes`` and
      ``rng`` and returns a `Network`: ``small_cnn``, say, or ``functools.partial(resnet, 50, 1)``.
    - ``input_shape``: the shape to give to each row, (height, width, channels) for images; None leaves it flat.
    - ``rate``, ``momentum``: numbers or schedules of `nnlib.schedules`;  ``nesterov``: as in `nnlib.SGD`.
    - ``epochs``, ``batch_size``, ``l2``, ``label_smoothing``, ``augment``, ``stopping``: as in `nnlib.Solver`. A batch
      takes some more rows where the last one would be left with a single row, since no norm can be trained on that.
    - ``validation_fraction``: the share of the rows that ``stopping`` watches, held out in the classes' proportions.
    - ``random_state``: an integer for the same result each time, None for another each time, or a `RandomState`.
    - ``verbose``: show a progress bar.

    After `fit`: ``classes_`` (C,), the labels in order; ``n_features_in_``, and ``feature_names_in_`` for data frames;
    ``network_``, the trained `Network`; ``history_``, its `History`. Parameters are checked when they are used, in
    `fit`, which raises ValueError or TypeError, and FloatingPointError where training diverges.
    """

    classes_: Array
    network_: Network

    def __init__(
        self,
        hidden: tuple[int, ...] = HIDDEN,
        *,
        dropout: float = 0.0,
        batch_norm: bool = False,
        network: Callable[..., Network] | None = None,
        input_shape: tuple[int, ...] | None = None,
        rate: float | Schedule = 0.01,
        momentum: float | Schedule = 0.9,
        nesterov: bool = False,
        epochs: int = 50,
        batch_size: int = 32,
        l2: float = 0.0,
        label_smoothing: float = 0.0,
        augment: Augmentation | None = None,
        stopping: EarlyStopping | None = None,
        validation_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.hidden = hidden
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.network = network
        self.input_shape = input_shape
        self.rate = rate
        self.momentum = momentum
        self.nesterov = nesterov
        self.epochs = epochs
        self.batch_size = batch_size
        self.l2 = l2
        self.label_smoothing = label_smoothing
        self.augment = augment
        self.stopping = stopping
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> "NetworkClassifier":
        """Train a new network on rows X (N, features), finite numbers, and their labels y (N,) of 2 classes or more."""
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"NetworkClassifier: expected labels of at least 2 classes, got 1 class, {y[0]}")
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        train, val = self._parted(Split(self._shaped(X), labels), seed)
        network = self._untrained(train.inputs.shape[1:], np.random.default_rng((seed, 1))).astype(X.dtype)
        network.fit_normalization(train.inputs)
        self.history_ = self._solver(network, train, val, seed).fit()
        self.network_ = network
        return self

    def predict(self, X: Any) -> Array:
        """Return the most probable label (N,) of each row of X (N, features)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def predict_proba(self, X: Any) -> Array:
        """Return the probabilities (N, C) of the labels in ``classes_`` for the rows of X (N, features)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=self.network_.vector.dtype, reset=False)
        return self.network_.predict_proba(self._shaped(X))

    def _shaped(self, X: Array) -> Array:
        """Return the rows in the shape that the network takes."""
        if self.input_shape is None:
            return X
        if math.prod(self.input_shape) != X.shape[1]:
            raise ValueError(f"NetworkClassifier: rows of {X.shape[1]} features do not fit shape {self.input_shape}")
        return X.reshape(len(X), *self.input_shape)

    def _parted(self, rows: Split, seed: int) -> tuple[Split, Split | None]:
        """Return the rows to train on and, for ``stopping``, those to watch."""
        if self.stopping is None:
            return rows, None
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"NetworkClassifier: validation_fraction lies in (0, 1), got {self.validation_fraction}")
        return rows.hold_out(math.ceil(self.validation_fraction * len(rows)), seed=seed)

    def _untrained(self, input_shape: tuple[int, ...], rng: Generator) -> Network:
        """Return the network as it starts; ValueError or TypeError for settings that do not go together."""
        if isinstance(self.hidden, int):
            raise TypeError(f"NetworkClassifier: hidden is a tuple of widths, got {self.hidden}; give ({self.hidden},)")
        classes = len(self.classes_)
        if self.network is None:
            return mlp(input_shape, self.hidden, classes, dropout=self.dropout, batch_norm=self.batch_norm, rng=rng)
        if self.hidden != HIDDEN or self.dropout or self.batch_norm:
            raise ValueError(
                "NetworkClassifier: hidden, dropout and batch_norm are those of the fully connected network; another "
                "network brings its own: network=functools.partial(small_cnn, dropout=0.2)"
            )
        network = self.network(input_shape=input_shape, classes=classes, rng=rng)
        outputs = network.forward(np.zeros((1, *input_shape))).shape[1]
        if outputs != classes:
            raise ValueError(f"NetworkClassifier: the network has {outputs} outputs, but y has {classes} classes")
        return network

    def _solver(self, network: Network, train: Split, val: Split | None, seed: int) -> Solver:
        batch_size = self.batch_size
        while len(train) > batch_size > 1 and len(train) % batch_size == 1:
            batch_size += 1
        return (Solver if self.verbose else SilentSolver)(
            network,
            train,
            val,
            optimizer=SGD(self.momentum, self.nesterov),
            schedule=self.rate,
            epochs=self.epochs,
            batch_size=batch_size,
            l2=self.l2,
            label_smoothing=self.label_smoothing,
            augment=self.augment,
            stopping=self.stopping,
            seed=seed,
        )


class SilentSolver(Solver):
    """A solver without a progress bar: a search fits hundreds of estimators, in many processes."""

    def _bar(self) -> Any:
        return tqdm(disable=True)
