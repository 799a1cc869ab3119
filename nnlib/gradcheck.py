"""Numerical against analytic gradients.

The numerical side is the central difference (f(x + h) - f(x - h)) / 2h in float64. The error of a pair is
|a - b| / max(1e-8, |a| + |b|), as in the notes of CS231n; a check's error is the largest of its pairs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from nnlib.functional.checks import Array


@dataclass(frozen=True)
class GradientCheck:
    """Both sides of one array's gradient, at every index or at a stated sample."""

    name: str
    size: int  # elements of the array
    indices: Array  # flat indices that were checked
    analytic: Array  # float64, one for each index
    numerical: Array

    @property
    def relative_error(self) -> float:
        """The largest relative error."""
        return float(relative_error(self.analytic, self.numerical).max())


def relative_error(a: Array, b: Array) -> Array:
    """Return ``|a - b| / max(1e-8, |a| + |b|)`` elementwise."""
    return np.abs(a - b) / np.maximum(1e-8, np.abs(a) + np.abs(b))


def numerical_gradient(f: Callable[[], float], x: Array, indices: Array, *, step: float = 1e-5) -> Array:
    """Return df/dx at the flat ``indices`` of x, float64, which f reads and which is restored after each change."""
    if x.dtype != np.float64:
        raise TypeError(f"gradient check: expected float64, where differences are exact enough, got {x.dtype}")
    gradient = np.empty(len(indices))
    for k, index in enumerate(indices):
        place = np.unravel_index(index, x.shape)
        old = x[place]
        x[place] = old + step
        above = f()
        x[place] = old - step
        gradient[k] = (above - f()) / (2 * step)
        x[place] = old
    return gradient


def check(
    f: Callable[[], float],
    arrays: Mapping[str, Array],
    gradients: Mapping[str, Array],
    *,
    step: float = 1e-5,
    sample: int | None = None,
    rng: np.random.Generator | None = None,
) -> list[GradientCheck]:
    """Compare the analytic ``gradients`` of the scalar f() with numerical ones, array by array.

    arrays: float64, read by f;  gradients: by the same names, in the same shapes;  step: h;  sample: how many indices
    of each array are drawn from ``rng``, all without. Raises TypeError for other dtypes, ValueError for other shapes.
    """
    checks = []
    for name, x in arrays.items():
        if gradients[name].shape != x.shape:
            raise ValueError(f"gradient check: {name} has shape {x.shape}, its gradient {gradients[name].shape}")
        indices = np.arange(x.size)
        if sample is not None and sample < x.size:
            if rng is None:
                raise ValueError("gradient check: a sample needs rng, a numpy.random.Generator")
            indices = np.sort(rng.choice(x.size, size=sample, replace=False))
        numerical = numerical_gradient(f, x, indices, step=step)
        checks.append(GradientCheck(name, x.size, indices, gradients[name].ravel()[indices], numerical))
    return checks


def table(checks: list[GradientCheck]) -> tuple[list[str], list[list[str]]]:
    """Return ``(header, rows)``: for each array how many gradients were checked, the worst pair and its error."""
    header = ["gradient of", "checked", "analytic", "numerical", "largest relative error"]
    rows = []
    for one in checks:
        worst = int(relative_error(one.analytic, one.numerical).argmax())
        rows.append(
            [
                f"`{one.name}`",
                f"{len(one.indices)} of {one.size}",
                f"{one.analytic[worst]:.10f}",
                f"{one.numerical[worst]:.10f}",
                f"{one.relative_error:.1e}",
            ]
        )
    return header, rows
