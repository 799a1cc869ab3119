"""Figures of searches: functions that take the trials of a study and return a matplotlib `Figure`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nnlib.functional.checks import Array
from nnlib.plots import COLOURS, FONT_SIZE, label, new_figure
from nnlib.study import Trial


def trials(results: Sequence[Trial], parameter: str, *, colour: str, x: str, log: bool = False) -> Figure:
    """Draw each trial's validation error against a parameter, marked by another that has few values.

    Trials that were pruned or diverged are drawn hollow, after the last epoch that they saw.
    """
    figure, axes = new_figure(height=3.0)
    values = sorted({trial.parameters[colour] for trial in results}, key=str)
    for number, value in enumerate(values):
        for ended in (True, False):
            shown = [t for t in results if t.epochs and (t.state == "complete") == ended]
            some = [t for t in shown if t.parameters[colour] == value]
            axes.plot(
                [t.parameters[parameter] for t in some],
                [100 * (1 - t.epochs[-1].val_accuracy) for t in some],
                "osD^v"[number % 5],
                color=COLOURS[number % len(COLOURS)],
                fillstyle="full" if ended else "none",
                label=f"{colour.replace('_', ' ')} {value}" + ("" if ended else ", not finished"),
            )
    if log:
        axes.set_xscale("log")
    label(axes, x, "validation error (%)", legend=True)
    return figure


def history(results: Sequence[Trial]) -> Figure:
    """Draw each complete trial's validation error against its number, and the least so far."""
    figure, axes = new_figure()
    complete = [trial for trial in results if trial.state == "complete"]
    numbers = [trial.number for trial in complete]
    errors = np.array([100 * (1 - trial.epochs[-1].val_accuracy) for trial in complete])
    axes.plot(numbers, errors, "o", color=COLOURS[0], markersize=4, label="complete trials")
    least = np.minimum.accumulate(errors)
    axes.step(numbers, least, where="post", color=COLOURS[1], linestyle="-", label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    label(axes, f"trial (of {len(results)})", "validation error (%)", legend=True)
    return figure


def importances(values: Mapping[str, float]) -> Figure:
    """Draw how much each parameter decides, as shares of all, the largest on top."""
    figure, axes = new_figure(height=0.5 + 0.3 * len(values))
    names = sorted(values, key=values.__getitem__)
    axes.barh(names, [values[name] for name in names], color=COLOURS[0], height=0.6)
    axes.grid(visible=False, axis="y")
    label(axes, "importance (share of all)", "")
    return figure


def parallel_coordinates(results: Sequence[Trial], names: Mapping[str, str], *, log: Sequence[str] = ()) -> Figure:
    """Draw complete trials as lines through an axis for each parameter and one for the validation error.

    names: what a table calls a parameter;  log: parameters whose axis is logarithmic. The best lines are the darkest.
    Raises ValueError where no trial is complete.
    """
    complete = [trial for trial in results if trial.state == "complete"]
    if not complete:
        raise ValueError(f"parallel_coordinates: expected a complete trial, got none among {len(results)}")
    errors = np.array([100 * (1 - trial.epochs[-1].val_accuracy) for trial in complete])
    axes_of = [
        (names.get(key, key), *_scaled([t.parameters[key] for t in complete], key in log))
        for key in complete[0].parameters
    ]
    axes_of.append(("error (%)", *_scaled(errors.tolist(), log=False)))
    figure, axes = new_figure(height=3.4)
    heights = np.array([places for _, places, _ in axes_of])
    ranks = errors.argsort().argsort() / max(1, len(errors) - 1)
    for trial in reversed(errors.argsort()):
        axes.plot(heights[:, trial], color=str(0.85 * ranks[trial]), linestyle="-", linewidth=2.2 - 1.7 * ranks[trial])
    for place, (_, _, ticks) in enumerate(axes_of):
        axes.axvline(place, color="grey", linewidth=0.6, linestyle="-")
        for height, text in ticks:
            axes.text(
                place + 0.03, height, text, fontsize=FONT_SIZE - 2, va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
            )  # fmt: skip
    axes.set_xticks(range(len(axes_of)), [name for name, _, _ in axes_of])
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(axes_of) - 0.6)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    return figure


def _scaled(values: list[Any], log: bool) -> tuple[Array, list[tuple[float, str]]]:
    """Return where values lie on an axis from 0 to 1, and what stands beside it: ``(height, text)``."""
    if not all(isinstance(value, int | float) for value in values):
        names = [str(value) for value in values]
        known = sorted(set(names))
        heights = {name: i / max(1, len(known) - 1) for i, name in enumerate(known)}
        return np.array([heights[name] for name in names]), [(height, name) for name, height in heights.items()]
    numbers = np.log10(values) if log else np.array(values, dtype=float)
    low, high = numbers.min(), numbers.max()
    ticks = np.linspace(low, high, 4)
    heights_of = (numbers - low) / ((high - low) or 1)
    return heights_of, [(i / 3, f"{10**tick if log else tick:.2g}") for i, tick in enumerate(ticks)]
