"""The gradient check itself: it must find a wrong gradient."""

import numpy as np
import pytest

from nnlib.gradcheck import check, numerical_gradient, relative_error, table


def test_it_finds_the_derivative_of_a_known_function():
    x = np.linspace(0.5, 2, 7)
    numerical = numerical_gradient(lambda: float(np.exp(x).sum()), x, np.arange(7))
    np.testing.assert_allclose(numerical, np.exp(x), rtol=1e-9)
    np.testing.assert_array_equal(x, np.linspace(0.5, 2, 7))


def test_it_tells_a_wrong_gradient_from_a_right_one():
    x = np.linspace(0.5, 2, 12).reshape(3, 4)
    right = check(lambda: float((x**3).sum()), {"x": x}, {"x": 3 * x**2})
    wrong = check(lambda: float((x**3).sum()), {"x": x}, {"x": 3 * x**2 * 1.001})
    assert right[0].relative_error < 1e-8
    assert wrong[0].relative_error > 1e-4


def test_a_sample_is_drawn_from_the_generator_and_stated():
    x = np.ones((20, 20))
    one = check(lambda: float(x.sum()), {"x": x}, {"x": np.ones((20, 20))}, sample=15, rng=np.random.default_rng(0))
    assert len(set(one[0].indices)) == 15
    assert one[0].size == 400
    header, rows = table(one)
    assert len(header) == len(rows[0])
    assert rows[0][1] == "15 of 400"


def test_errors_are_relative_with_a_floor():
    assert relative_error(np.array([1.0]), np.array([1.1]))[0] == pytest.approx(0.1 / 2.1)
    assert relative_error(np.array([0.0]), np.array([1e-12]))[0] == pytest.approx(1e-4)


def test_bad_input():
    with pytest.raises(TypeError, match="expected float64"):
        check(lambda: 0.0, {"x": np.ones(3, dtype=np.float32)}, {"x": np.ones(3)})
    with pytest.raises(ValueError, match="its gradient"):
        check(lambda: 0.0, {"x": np.ones(3)}, {"x": np.ones(4)})
    with pytest.raises(ValueError, match="needs rng"):
        check(lambda: 0.0, {"x": np.ones(3)}, {"x": np.ones(3)}, sample=2)
