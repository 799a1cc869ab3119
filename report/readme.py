"""The table of results in the README, generated from the full profile's records."""

import re
from pathlib import Path

from nnlib import checkpoint, experiments
from nnlib.records import Record

MARKED = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)


def update(path: Path) -> None:
    """Rewrite the table between the README's two marks."""
    text = path.read_text()
    checkpoint.write_bytes(path, MARKED.sub(lambda match: match[1] + table() + match[2], text).encode())


def table() -> str:
    """Return the results of every full record as a Markdown table, with the data and the machine below."""
    found = [
        record
        for name, profiles in experiments.EXPERIMENTS.items()
        if (record := experiments.stored(name, profiles["full"], experiments.record_folder("full")))
    ]
    lines = [
        "| experiment | layers | trained on | epochs | validation | test | time |",
        "|:---|:---|---:|---:|---:|---:|---:|",
        *map(_row, found),
        "",
        *(f"Data: {source}. " for source in sorted({record.source for record in found})),
        *(f"Machine: {name}. " for name in sorted({_machine(record) for record in found})),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _row(record: Record) -> str:
    widths = "-".join(map(str, record.config["hidden"])) or "linear"
    metrics = record.metrics
    accuracies = " | ".join(f"{100 * metrics[name]:.1f} %" for name in ("val_accuracy", "test_accuracy"))
    size, epochs = record.data["sizes"]["train"], len(record.history.epochs)
    return f"| `{record.name}` | {widths} | {size:,} | {epochs} | {accuracies} | {record.seconds:,.0f} s |"


def _machine(record: Record) -> str:
    return f"{record.machine['processor']}, {record.machine['cores']} cores, NumPy {record.versions['numpy']}"
