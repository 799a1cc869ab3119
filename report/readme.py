"""The tables in the README: results, from the full profile's records, and speed, from the runs of `nnlib bench`."""

import re
import sys
from pathlib import Path
from typing import Any

from nnlib import checkpoint, experiments, studies, tune
from nnlib.bench import store, tables
from nnlib.records import Record

BENCH = Path("report") / "bench.json"  # beside the README


def update(path: Path) -> None:
    """Rewrite what stands between the README's pairs of marks."""
    text = path.read_text()
    for mark, content in (("results", table()), ("bench", bench_table(path.parent / BENCH))):
        text = _replaced(text, mark, content)
    checkpoint.write_bytes(path, text.encode())


def _replaced(text: str, mark: str, content: str) -> str:
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    return pattern.sub(lambda match: match[1] + content + match[2], text)


def table() -> str:
    """Return the results of every full record as a Markdown table, with the data and the machine below."""
    found = [
        record
        for name, profiles in experiments.EXPERIMENTS.items()
        if (record := experiments.stored(name, profiles["full"], experiments.record_folder("full")))
    ]
    lines = [
        "| experiment | network | trained on | epochs | validation | test | time |",
        "|:---|:---|---:|---:|---:|---:|---:|",
        *map(_row, found),
        "",
        *(f"Data: {source}. " for source in sorted({record.source for record in found})),
        *_machines(found),
        _searches(),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _row(record: Record) -> str:
    network = record.config["network"]
    widths = network if network != "mlp" else "-".join(map(str, record.config["hidden"])) or "linear"
    metrics = record.metrics
    accuracies = " | ".join(f"{100 * metrics[name]:.1f} %" for name in ("val_accuracy", "test_accuracy"))
    size, epochs = record.data["sizes"]["train"], len(record.history.epochs)
    return f"| `{record.name}` | {widths} | {size:,} | {epochs} | {accuracies} | {record.seconds:,.0f} s |"


def _machines(found: list[Record]) -> list[str]:
    """Return a line for each machine, the one of most records first; the others' tell which records are theirs."""
    names: dict[str, list[str]] = {}
    for record in found:
        machine = f"{record.machine['processor']}, {record.machine['cores']} cores, NumPy {record.versions['numpy']}"
        names.setdefault(machine, []).append(f"`{record.name}`")
    machines = sorted(names, key=lambda machine: -len(names[machine]))
    others = [f"Machine of {', '.join(names[other])}: {other}. " for other in machines[1:]]
    return [*(f"Machine: {usual}. " for usual in machines[:1]), *others]


def _searches() -> str:
    """Return what the searches of notebook 05 took together, from their stored results."""
    found = [
        result for name, profiles in studies.STUDIES.items() if (result := tune.stored(name, "full", profiles["full"]))
    ]
    trials, minutes = sum(len(result.trials) for result in found), sum(result.seconds for result in found) / 60
    return f"The {len(found)} searches of notebook 05: {trials} trials, {minutes:.0f} minutes."


def bench_table(path: Path) -> str:
    """Return the stored runs of the benchmark as Markdown: for each machine, last measured first, a table of the worst.

    A ratio says nothing about another processor, so that machines are not merged.
    """
    machines: dict[str, list[dict[str, Any]]] = {}
    for run in reversed(store.load(path)):
        machines.setdefault(f"{run['machine']['processor']}, {run['machine']['cores']} cores", []).insert(0, run)
    found = [[f"**{name}**", "", *lines] for name, runs in machines.items() if (lines := _machine_table(runs))]
    text = "\n".join("\n".join(line.rstrip() for line in lines) + "\n" for lines in found)
    return text or "Nothing was measured yet.\n"


def _machine_table(runs: list[dict[str, Any]]) -> list[str]:
    """Return the runs of one machine as the lines of a table, the worst ratio of each work, and the machine below."""
    rows = tables.worst(runs)
    if not rows:
        return []
    torch = any(row["against"] for row in rows)
    titles = tables.columns(torch=torch)
    lines = [
        f"| {' | '.join(titles)} |",
        f"|:---|:---|{'---:|' * (len(titles) - 2)}",
        *(f"| {' | '.join(_quoted(tables.cells(row, torch=torch)))} |" for row in rows),
        "",
        *(f"{line}. " for line in dict.fromkeys(_run(run) for run in runs)),
    ]
    if len(runs) > 1:
        lines.append(f"Of {len(runs)} runs: the median time and rate, the lowest ratio and share, the largest memory.")
    return lines


def _quoted(cells: list[str]) -> list[str]:
    return [f"`{cells[0]}`", *cells[1:]]


def _run(run: dict[str, Any]) -> str:
    return f"{run['date'][:10]}: {tables.machine_line(run)}"


if __name__ == "__main__":
    try:
        update(Path("README.md"))
    except (OSError, ValueError) as error:
        sys.exit(f"readme: {error}")
