"""Figures of the report: functions that take results and return a matplotlib `Figure`.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; lines also differ in their dashes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from nnlib import metrics
from nnlib.functional.checks import Array
from nnlib.history import History
from nnlib.network import Network
from nnlib.range_test import RangeTest

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1)), "-")
WIDTH = 6.3  # inches: the text width of the report
FONT_SIZE = 9  # points


def new_figure(columns: int = 1, rows: int = 1, *, height: float = 2.7, **options: Any) -> tuple[Figure, Any]:
    """Return ``(figure, axes)`` as wide as the report's text; ``height`` in inches for each row.

    Made without pyplot, so figures can be drawn in any thread.
    """
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, **options)
    for one in np.atleast_1d(axes).flat:
        one.tick_params(labelsize=FONT_SIZE - 1)
        one.spines[["top", "right"]].set_visible(False)
        one.set_prop_cycle(color=COLOURS, linestyle=DASHES)
        one.grid(alpha=0.25, linewidth=0.5)
        one.set_axisbelow(True)
    return figure, axes


def label(axes: Any, x: str, y: str, *, title: str = "", legend: bool = False) -> None:
    """Write the names of both axes, with their units, and where wanted a title and a legend."""
    axes.set_xlabel(x, fontsize=FONT_SIZE)
    axes.set_ylabel(y, fontsize=FONT_SIZE)
    if title:
        axes.set_title(title, fontsize=FONT_SIZE + 1)
    if legend:
        axes.legend(fontsize=FONT_SIZE - 1, frameon=False)


def legend_below(figure: Figure, axes: Any) -> None:
    """Write the legend of one panel below the whole figure."""
    handles, names = axes.get_legend_handles_labels()
    columns = len(names) if sum(len(name) + 6 for name in names) < 80 else 4  # a line's width in letters, handles too
    figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=FONT_SIZE - 1, frameon=False)


def learning_curves(history: History) -> Figure:
    """Draw loss and accuracy against the epoch, training and validation."""
    figure, (left, right) = new_figure(2)
    epochs = [record.epoch for record in history.epochs]
    for name, dash in (("train", "--"), ("val", "-")):
        title = "training" if name == "train" else "validation"
        losses = [getattr(record, f"{name}_loss") for record in history.epochs]
        accuracies = [100 * getattr(record, f"{name}_accuracy") for record in history.epochs]
        left.plot(epochs, losses, marker=".", linestyle=dash, label=title)
        right.plot(epochs, accuracies, marker=".", linestyle=dash, label=title)
    for one in (left, right):
        one.xaxis.set_major_locator(MaxNLocator(integer=True))
    label(left, "epoch", "loss (nats)", legend=True)
    label(right, "epoch", "accuracy (%)", legend=True)
    right.set_ylim(0, 103)
    return figure


def comparison(histories: Mapping[str, History], *, quantity: str = "accuracy") -> Figure:
    """Draw several runs: training on the left, validation on the right; ``quantity`` is accuracy or loss."""
    figure, (left, right) = new_figure(2, sharey=True)
    scale, unit = (100, "accuracy (%)") if quantity == "accuracy" else (1, "loss (nats)")
    for name, history in histories.items():
        epochs = [record.epoch for record in history.epochs]
        left.plot(epochs, [scale * getattr(record, f"train_{quantity}") for record in history.epochs], label=name)
        right.plot(epochs, [scale * getattr(record, f"val_{quantity}") for record in history.epochs], label=name)
    label(left, "epoch", unit, title="training")
    label(right, "epoch", "", title="validation", legend=True)
    return figure


def seed_curves(runs: Mapping[str, Sequence[History]], *, quantity: str = "accuracy") -> Figure:
    """Draw what was run with several seeds: the mean as a line in a band from the least to the greatest.

    Training is on the left, validation on the right; ``quantity`` is accuracy or loss. The shortest run ends a curve.
    """
    figure, panels = new_figure(2, sharey=True)
    scale, unit = (100, "accuracy (%)") if quantity == "accuracy" else (1, "loss (nats)")
    for one, part in zip(panels, ("train", "val"), strict=True):
        for name, histories in runs.items():
            shortest = min(len(history.epochs) for history in histories)
            values = np.array(
                [[scale * getattr(e, f"{part}_{quantity}") for e in history.epochs[:shortest]] for history in histories]
            )
            epochs = np.arange(1, shortest + 1)
            (line,) = one.plot(epochs, values.mean(axis=0), label=name)
            one.fill_between(
                epochs, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.25, linewidth=0
            )
        one.xaxis.set_major_locator(MaxNLocator(integer=True))
    label(panels[0], "epoch", unit, title="training")
    label(panels[1], "epoch", "", title="validation")
    legend_below(figure, panels[0])
    return figure


def seed_dots(panels: Mapping[str, Mapping[str, Sequence[float]]], *, setting: str) -> Figure:
    """Draw what each setting reached: a dot for every seed, and their mean as a bar.

    panels: the quantity with its unit -> the setting's value -> one result a seed. ``setting`` names what was changed.
    """
    figure, axes = new_figure(len(panels), squeeze=False)
    for one, (quantity, values) in zip(axes[0], panels.items(), strict=True):
        for place, results in enumerate(values.values()):
            one.plot([place - 0.3, place + 0.3], [np.mean(results)] * 2, color=COLOURS[1], linestyle="-", linewidth=2)
            offsets = np.linspace(-0.12, 0.12, len(results)) if len(results) > 1 else [0]
            one.plot(place + np.array(offsets), results, "o", color=COLOURS[0], markersize=4)
        slanted = {"rotation": 30, "ha": "right"} if max(map(len, values)) > 6 else {}
        one.set_xticks(range(len(values)), list(values), **slanted)
        one.grid(visible=False, axis="x")
        label(one, setting, quantity)
    return figure


def range_test(result: RangeTest, *, chosen: float | None = None) -> Figure:
    """Draw a learning-rate range test, with the rate that is ``chosen`` to train with (None: the suggestion) marked."""
    figure, axes = new_figure()
    rate = result.suggestion if chosen is None else chosen
    axes.plot(result.rates, result.losses, color=COLOURS[5], linestyle="-", linewidth=0.8, label="each batch")
    axes.plot(result.rates, result.smoothed, color=COLOURS[0], linestyle="-", linewidth=2, label="running mean")
    word = "suggested" if chosen is None else "chosen"
    axes.axvline(rate, color=COLOURS[1], linestyle="--", label=f"{word}: {rate:.2g}")
    axes.set_xscale("log")
    least = result.smoothed.min()
    # What comes after the explosion would press all else flat.
    axes.set_ylim(max(0.0, least - 0.5 * (result.smoothed[0] - least)), 1.6 * result.smoothed[0])
    label(axes, "learning rate", "loss (nats)", legend=True)
    return figure


def step_losses(histories: Mapping[str, History], *, window: int = 20) -> Figure:
    """Draw the training loss of every step, averaged over ``window`` steps."""
    figure, axes = new_figure()
    for name, history in histories.items():
        losses = np.array([record.loss for record in history.steps])
        width = min(window, len(losses))
        smooth = np.convolve(losses, np.full(width, 1 / width), mode="valid")
        axes.plot(np.arange(width, len(losses) + 1), smooth, label=name)
    label(axes, "step", f"loss (nats), mean of {window} steps", legend=len(histories) > 1)
    return figure


def reliability(predictions: Mapping[str, tuple[Array, Array]], *, bins: int = 10) -> Figure:
    """Draw accuracy against confidence, and how often each occurs, for named (probabilities (N, C), labels (N,))."""
    figure, axes = new_figure(len(predictions), height=3.0, sharey=True, squeeze=False)
    centres = (np.arange(bins) + 0.5) / bins
    for one, (name, (probabilities, labels)) in zip(axes[0], predictions.items(), strict=True):
        result = metrics.reliability(probabilities, labels, bins=bins)
        one.bar(centres, 100 * np.nan_to_num(result.accuracy), width=0.9 / bins, color=COLOURS[0], label="accuracy")
        one.plot(centres, 100 * result.share, color=COLOURS[1], marker=".", linestyle="-", label="share of images")
        one.plot([0, 1], [0, 100], color="black", linewidth=1, linestyle=":", label="calibrated")
        label(one, "confidence", "", title=f"{name}\ncalibration error {100 * result.error:.1f} points")
    label(axes[0][0], "confidence", "%", title=axes[0][0].get_title(), legend=True)
    return figure


def confusion(matrix: Array, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix (C, C) in per cent of each true class."""
    shares = 100 * matrix / matrix.sum(axis=1, keepdims=True)
    figure, axes = new_figure(height=4.2)
    axes.grid(visible=False)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.ndindex(*shares.shape):
        colour = "white" if shares[row, column] > 55 else "black"
        axes.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=7)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    label(axes, "predicted class", "true class")
    figure.colorbar(image, ax=axes, label="share of the true class (%)")
    return figure


def class_report(report: metrics.ClassificationReport, classes: Sequence[str]) -> Figure:
    """Draw precision, recall and F1 of each class as three marks side by side, and the classification rate of all."""
    figure, axes = new_figure(height=2.9)
    places = np.arange(len(classes))
    for number, (name, marker) in enumerate((("precision", "o"), ("recall", "s"), ("f1", "D"))):
        values = 100 * getattr(report, name)
        title = name.capitalize() if name == "f1" else name
        axes.plot(places + 0.2 * (number - 1), values, marker, color=COLOURS[number], markersize=5, label=title)
    axes.axhline(100 * report.rate, color="black", linewidth=1, linestyle=":", label="classification rate")
    axes.set_xticks(places, [f"{name}\n{count:,}" for name, count in zip(classes, report.support, strict=True)])
    axes.set_ylim(0, 100)
    label(axes, "class and its number of images", "%", legend=True)
    return figure


def mistakes(
    images: Array, probabilities: Array, labels: Array, classes: Sequence[str], *, count: int = 14, columns: int = 7
) -> Figure:
    """Draw the most confident mistakes: over each image its class, under that what was predicted, and how surely.

    images: (N, H, W, C);  probabilities: (N, classes);  labels: (N,). Raises ValueError where there is no mistake.
    """
    rows = metrics.confident_mistakes(probabilities, labels, count)
    if not len(rows):
        raise ValueError("mistakes: every prediction is right; there is nothing to show")
    titles = [
        f"{classes[labels[row]]}\n→ {classes[probabilities[row].argmax()]} {100 * probabilities[row].max():.0f} %"
        for row in rows
    ]
    return pictures(images[rows], titles, columns=columns, height=1.25)


def pictures(
    images: Array, titles: Sequence[str] = (), *, columns: int = 10, height: float | None = None
) -> Figure:
    """Draw images (N, H, W, C), uint8 or floats in [0, 1], in rows of ``columns``.

    height: of a row, in inches; None: what ten columns and one line of title take.
    """
    rows = -(-len(images) // columns)
    figure, axes = new_figure(columns, rows, height=height or (0.85 if titles else 0.65), squeeze=False)
    for number, one in enumerate(axes.flat):
        one.set_axis_off()
        if number < len(images):
            one.imshow(images[number].squeeze(), cmap="gray", interpolation="nearest")
            if titles:
                one.set_title(titles[number], fontsize=FONT_SIZE - 2, pad=2)
    return figure


def first_weights(weights: Array, image_shape: tuple[int, int, int], *, columns: int = 7) -> Figure:
    """Draw the weights (D, units) of a first layer as pictures of ``image_shape``, each stretched to its own range."""
    images = weights.T.reshape(-1, *image_shape).astype(np.float64)
    reach = np.abs(images).max(axis=(1, 2, 3), keepdims=True)
    return pictures(0.5 + 0.5 * images / reach, columns=columns * 2)


def activation_statistics(activations: Array) -> Figure:
    """Draw mean, deviation and share of zeros of each rectifier's output against the step.

    activations: rows (step, layer, mean, deviation, share of zeros).
    """
    figure, axes = new_figure(3, height=2.5)
    titles = ("mean", "standard deviation", "share of zeros (%)")
    for column, (one, title) in enumerate(zip(axes, titles, strict=True), 2):
        for layer in np.unique(activations[:, 1]):
            rows = activations[activations[:, 1] == layer]
            scale = 100 if column == 4 else 1
            one.plot(rows[:, 0], scale * rows[:, column], label=f"layer {layer:.0f}")
        label(one, "step", title)
    legend_below(figure, axes[0])
    return figure


def architecture(network: Network) -> Figure:
    """Draw a network's layers as a chain of boxes with output shapes and parameter counts."""
    rows = list(network.layers.trace(np.zeros((1, *network.input_shape), dtype=network.vector.dtype)))
    boxes = [("input", network.input_shape, 0)]
    boxes += [(type(layer).__name__, y.shape[1:], sum(a.size for a in layer.params.values())) for _, layer, y in rows]
    figure, axes = new_figure(height=1.5)
    axes.set_axis_off()
    axes.set_xlim(-0.5, len(boxes) - 0.5)
    axes.set_ylim(-0.75, 0.75)
    for place, (kind, shape, parameters) in enumerate(boxes):
        colour = "#56B4E9" if parameters else "#DDDDDD"
        axes.add_patch(
            FancyBboxPatch((place - 0.38, -0.22), 0.76, 0.44, boxstyle="round,pad=0.02", facecolor=colour, alpha=0.7)
        )
        axes.text(place, 0, kind, ha="center", va="center", fontsize=FONT_SIZE - 2)
        axes.text(place, -0.45, "×".join(map(str, shape)), ha="center", fontsize=FONT_SIZE - 2)
        if parameters:
            axes.text(place, 0.38, f"{parameters:,}", ha="center", fontsize=FONT_SIZE - 2)
        if place:
            axes.annotate("", (place - 0.4, 0), (place - 0.6, 0), arrowprops={"arrowstyle": "->", "linewidth": 0.8})
    return figure
