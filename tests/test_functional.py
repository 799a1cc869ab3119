"""Forward and backward pairs: against formulas written as loops, SciPy, and numerical gradients."""

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlib import functional, kernels
from nnlib.functional.checks import Array
from nnlib.gradcheck import check

# Limits that the coursework sets for each layer (largest relative error, float64).
LINEAR, RELU, DROPOUT, SOFTMAX = 5e-10, 1e-11, 5e-11, 1e-5
sizes = st.integers(1, 6)
# Functions that are linear (or piecewise so) have no truncation error, so a large step costs nothing and rounds least.
LARGE_STEP = 1e-2


def worst(f, arrays, gradients, *, step=1e-5):
    return max(one.relative_error for one in check(f, arrays, gradients, step=step))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(n=sizes, shape=st.lists(sizes, min_size=1, max_size=3), m=sizes, seed=st.integers(0, 99))
def test_linear_equals_loops_and_numerical_gradients(n, shape, m, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, *shape))
    d = int(np.prod(shape))
    w, b, dy = rng.normal(size=(d, m)), rng.normal(size=m), rng.normal(size=(n, m))
    y = functional.linear_forward(x, w, b)
    for i in range(n):
        for j in range(m):
            assert y[i, j] == pytest.approx(sum(x[i].ravel()[k] * w[k, j] for k in range(d)) + b[j], abs=1e-12)
    dx, dw, db = functional.linear_backward(dy, x, w)
    assert dx.shape == x.shape
    assert worst(
        lambda: float((dy * functional.linear_forward(x, w, b)).sum()),
        {"x": x, "w": w, "b": b},
        {"x": dx, "w": dw, "b": db},
        step=LARGE_STEP,
    ) < 1e-8  # products that nearly cancel lose digits; the stated case below is held to the coursework's limit


@pytest.mark.parametrize("library", [functional, kernels])
def test_no_samples_pass_a_linear_layer(library):
    x, w, b = np.ones((0, 2, 3)), np.ones((6, 4)), np.ones(4)
    y = library.linear_forward(x, w, b)
    dx, dw, db = library.linear_backward(y, x, w)
    assert (y.shape, dx.shape) == ((0, 4), (0, 2, 3))
    assert not dw.any()
    assert not db.any()


def test_gradients_keep_the_limits_of_the_coursework():
    rng = np.random.default_rng(7)
    x, w, b, dy = rng.normal(size=(4, 5)), rng.normal(size=(5, 3)), rng.normal(size=3), rng.normal(size=(4, 3))
    dx, dw, db = functional.linear_backward(dy, x, w)
    linear = worst(
        lambda: float((dy * functional.linear_forward(x, w, b)).sum()),
        {"x": x, "w": w, "b": b}, {"x": dx, "w": dw, "b": db}, step=LARGE_STEP,
    )  # fmt: skip
    assert linear <= LINEAR
    x = rng.normal(size=(4, 5))
    x += np.sign(x) * 2 * LARGE_STEP  # away from the kink
    dy = rng.normal(size=x.shape)
    relu = worst(
        lambda: float((dy * functional.relu_forward(x)).sum()), {"x": x},
        {"x": functional.relu_backward(dy, x)}, step=LARGE_STEP,
    )  # fmt: skip
    assert relu <= RELU

    def dropped() -> Array:
        return functional.dropout_forward(x, 0.4, np.random.default_rng(3))[0]

    _, mask = functional.dropout_forward(x, 0.4, np.random.default_rng(3))
    dx = functional.dropout_backward(dy, mask, 0.4)
    assert worst(lambda: float((dy * dropped()).sum()), {"x": x}, {"x": dx}, step=LARGE_STEP) <= DROPOUT
    labels = np.array([0, 2, 1, 4])
    for smoothing in (0.0, 0.1):
        _, dlogits = functional.softmax_cross_entropy(x, labels, label_smoothing=smoothing)
        loss = lambda s=smoothing: functional.softmax_cross_entropy(x, labels, label_smoothing=s)[0]  # noqa: E731
        assert worst(loss, {"logits": x}, {"logits": dlogits}) <= SOFTMAX


def test_relu_takes_zero_at_the_kink():
    x = np.array([[-1.0, 0.0, 2.0]])
    assert functional.relu_forward(x).tolist() == [[0.0, 0.0, 2.0]]
    assert functional.relu_backward(np.ones_like(x), x).tolist() == [[0.0, 0.0, 1.0]]


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_scales_what_it_keeps(p):
    x = np.full(200_000, 3.0)
    y, mask = functional.dropout_forward(x, p, np.random.default_rng(0))
    assert set(np.unique(y)) <= {0.0, 3.0 / (1 - p)}
    deviation = 3.0 * np.sqrt(p / (1 - p) / x.size)
    assert abs(y.mean() - 3.0) <= 4 * deviation + 1e-12
    assert ((y != 0) == mask).all()


def test_dropout_draws_a_new_mask_each_time_and_none_in_test_mode():
    rng = np.random.default_rng(0)
    x = np.ones((50, 50))
    first, second = (functional.dropout_forward(x, 0.5, rng)[1] for _ in range(2))
    assert (first != second).any()
    y, mask = functional.dropout_forward(x, 0.5, None, train=False)
    assert y is x
    assert mask is None
    assert functional.dropout_backward(x, None, 0.5) is x


@settings(max_examples=25, deadline=None, derandomize=True)
@given(n=sizes, c=sizes, scale=st.sampled_from([1e-3, 1.0, 1e3]), seed=st.integers(0, 99))
def test_softmax_equals_scipy_and_is_shift_invariant(n, c, scale, seed):
    logits = np.random.default_rng(seed).normal(size=(n, c)) * scale
    expected = scipy.special.softmax(logits, axis=1)
    np.testing.assert_allclose(functional.softmax(logits), expected, rtol=1e-10, atol=1e-300)
    np.testing.assert_allclose(functional.softmax(logits + 5 * scale), expected, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(functional.log_softmax(logits), scipy.special.log_softmax(logits, axis=1), atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits_neither_overflow_nor_change_dtype(dtype):
    logits = np.array([[1e4, 0.0, -1e4]], dtype=dtype)
    assert functional.softmax(logits).tolist() == [[1.0, 0.0, 0.0]]
    loss, dlogits = functional.softmax_cross_entropy(logits, np.array([2]))
    assert loss == pytest.approx(2e4)
    assert dlogits.dtype == dtype


def test_smoothed_loss_is_the_mean_of_the_losses_against_every_class():
    logits = np.random.default_rng(0).normal(size=(6, 4))
    labels = np.array([0, 1, 2, 3, 0, 1])
    every = np.mean([functional.softmax_cross_entropy(logits, np.full(6, c))[0] for c in range(4)])
    plain = functional.softmax_cross_entropy(logits, labels)[0]
    smooth = functional.softmax_cross_entropy(logits, labels, label_smoothing=0.2)[0]
    assert smooth == pytest.approx(0.8 * plain + 0.2 * every)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_return_the_dtype_they_were_given_and_write_into_no_operand(dtype):
    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(size=s).astype(dtype) for s in ((3, 4), (4, 2), (2,)))
    dy = rng.normal(size=(3, 2)).astype(dtype)
    for array in (x, w, b, dy):
        array.flags.writeable = False
    results = [functional.linear_forward(x, w, b), *functional.linear_backward(dy, x, w), functional.relu_forward(x)]
    dropped, mask = functional.dropout_forward(x, 0.5, rng)
    results += [dropped, functional.dropout_backward(x, mask, 0.5), functional.relu_backward(x, x)]
    results += [functional.softmax(x), functional.softmax_cross_entropy(x, np.array([0, 1, 2]))[1]]
    assert {result.dtype for result in results} == {np.dtype(dtype)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.linear_forward(np.ones((2, 3)), np.ones((4, 5)), np.ones(5)), "x has 3 features, w expects 4"),
        (lambda f: f.linear_forward(np.ones((2, 3)), np.ones((3, 5)), np.ones(4)), "b has shape (4,)"),
        (lambda f: f.linear_backward(np.ones((2, 4)), np.ones((2, 3)), np.ones((3, 5))), "dy has shape (2, 4)"),
        (lambda f: f.relu_backward(np.ones(3), np.ones(4)), "dy has shape (3,), expected (4,)"),
        (lambda f: f.dropout_forward(np.ones(3), 1.0, np.random.default_rng(0)), "lies in [0, 1), got 1.0"),
        (lambda f: f.dropout_forward(np.ones(3), 0.5, None), "needs rng"),
        (lambda f: f.dropout_forward(np.ones(3), 0.5, 7), "needs rng, a numpy.random.Generator"),
        (lambda f: f.normalize(np.ones((2, 3)), np.ones(4), np.ones(3)), "mean has shape (4,), expected (3,)"),
        (lambda f: f.normalize(np.ones((2, 3)), np.ones(3), np.ones(1)), "normalize: deviation has shape (1,)"),
        (lambda f: f.softmax_cross_entropy(np.ones((0, 3)), np.ones(0, dtype=int)), "N >= 1"),
        (lambda f: f.softmax_cross_entropy(np.ones((2, 3)), np.array([0, 3])), "expected 0 to 2 for 3 classes"),
        (lambda f: f.softmax_cross_entropy(np.ones((2, 3)), np.array([0, -1])), "got -1 to 0"),
        (lambda f: f.softmax_cross_entropy(np.ones((2, 3)), np.array([0, 1, 2])), "labels has shape (3,)"),
    ],
)
@pytest.mark.parametrize("module", [functional, kernels])
def test_wrong_operands_are_told_in_one_line(module, call, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is checked below)
        call(module)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_labels_of_the_wrong_dtype_are_a_type_error():
    with pytest.raises(TypeError, match="expected integers"):
        functional.softmax_cross_entropy(np.ones((2, 3)), np.array([0.0, 1.0]))


def test_kernels_offer_every_function():
    assert set(kernels.__all__) == set(functional.__all__)
