"""A run as tables of text, and several runs as one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

Row = Mapping[str, Any]

NAMES = {"train": "training", "infer": "inference"}
BUSY = 0.6  # processes at work in the minute before a run: it may have been disturbed, PyTorch's threads most of all
WIDTHS = (13, 27)  # of the first two columns


def columns(*, torch: bool) -> list[str]:
    """Return the headings of `cells`."""
    own = ["work", "task, batch", "nnlib ms", "GFLOP/s", "of sgemm", "of copy"]
    compared = ["torch ms", "torch / nnlib", "tuned ms", "tuned / nnlib", "MiB (torch, tuned)"]
    return own + (compared if torch else ["MiB"])


def cells(row: Row, *, torch: bool) -> list[str]:
    """Return a row of a run as strings: times in ms, shares in %, ratios with the least and most of all rounds."""
    alone = ", NumPy alone" if row["side"] == "numpy" else ""
    own = [
        row["work"],
        f"{NAMES[row['task']]}{alone}, {row['batch']}",
        milliseconds(row["seconds"]),
        f"{row['gflops']:.1f}",
        f"{100 * row['peak_share']:.0f} %",
        "" if row["copy_share"] is None else f"{100 * row['copy_share']:.0f} %",
    ]
    memories = [row["memory_mib"], *(other["memory_mib"] for other in row["against"].values())]
    first, *others = ["" if each is None else f"{each:,.0f}" for each in memories]
    memory = f"{first} ({', '.join(others)})" if first and others else first
    if not torch:
        return [*own, memory]
    compared = []
    for side in ("torch", "tuned"):
        other = row["against"].get(side)
        compared += ["", ""] if other is None else [milliseconds(other["seconds"]), spread(other)]
    return [*own, *compared, memory]


def milliseconds(seconds: float) -> str:
    """Return a time in ms with three digits or so."""
    value = 1000 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.{2 + (value < 1)}f}"


def spread(other: Row) -> str:
    """Return a ratio with its spread over the rounds."""
    return f"{other['ratio']:.2f} ({other['least']:.2f}-{other['most']:.2f})"


def heading(*, torch: bool) -> str:
    """Return the line above `line`'s."""
    return _aligned(columns(torch=torch), columns(torch=torch))


def line(row: Row, *, torch: bool) -> str:
    """Return a row of a run as an aligned line."""
    return _aligned(cells(row, torch=torch), columns(torch=torch))


def _aligned(texts: Sequence[str], titles: Sequence[str]) -> str:
    left = [f"{text:<{width}}" for text, width in zip(texts, WIDTHS, strict=False)]
    right = [f"{text:>{max(len(title), 8)}}" for text, title in zip(texts, titles, strict=True)]
    wide = {title: 18 for title in titles if "/ nnlib" in title}
    right = [f"{text:>{wide.get(title, 0)}}" for text, title in zip(right, titles, strict=True)]
    return "  ".join([*left, *right[len(left) :]]).rstrip()


def machine_line(run: Row) -> str:
    """Return what a run was measured on."""
    machine, versions = run["machine"], ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    compiled = machine.get("kernels")
    kernels = f"{8 * compiled['vector_bytes']}-bit vectors" if compiled else "no compiled kernels"
    busy = f"; load {run['load']:.1f} in the minute before" if run["load"] > BUSY else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads a side, {kernels}, "
        f"sgemm {run['peak_gflops']:.0f} GFLOP/s, copy {run['copy_gbs']:.1f} GB/s; {versions}{busy}"
    )


def growth_lines(growth: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return the two tables of growth: step time and time an image, ms."""
    lines = []
    titles = {"batch": "training step of small_cnn, 48x48, by batch size", "side": "the same by image side, batch 16"}
    for key, title in titles.items():
        sides = list(growth[key][0]["seconds"])
        lines += ["", title]
        lines.append("".join([f"{key:>6}", *(f"{side + ' ms':>12}{'an image':>12}" for side in sides)]))
        for point in growth[key]:
            texts = [f"{point[key]:>6}"]
            for seconds in point["seconds"].values():
                texts.append(f"{milliseconds(seconds):>12}{milliseconds(seconds / point['batch']):>12}")
            lines.append("".join(texts))
    return lines


def worst(runs: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the rows of several runs as one: the lowest ratios and shares, the largest memory, else medians."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for run in runs:
        for row in run["rows"]:
            found.setdefault(tuple(row[key] for key in ("work", "side", "task", "batch")), []).append(row)
    return [_worst_of(rows) for rows in found.values()]


# Of the rest the lowest stands for all.
_RULES: dict[str, Callable[..., Any]] = {"seconds": median, "gflops": median, "memory_mib": max, "most": max}


def _worst_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Return rows of the same task as one."""
    merged: dict[str, Any] = {}
    for key, value in rows[0].items():
        values = [row[key] for row in rows if row.get(key) is not None]
        if key == "against":
            sides = dict.fromkeys(side for each in values for side in each)
            merged[key] = {side: _worst_of([each[side] for each in values if side in each]) for side in sides}
        elif values and isinstance(value, int | float):
            merged[key] = _RULES.get(key, min)(values)
        else:
            merged[key] = value
    return merged
