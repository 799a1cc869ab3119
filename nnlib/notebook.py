"""How a notebook shows a figure or a table: on the screen, and with what the report needs to typeset it.

A caption is an output, not a comment, because it holds measured numbers and says what data they come from.
"""

import base64
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from IPython.display import display
from matplotlib.figure import Figure


def show(figure: Figure, caption: str) -> None:
    """Display a figure as SVG, with a PDF twin for those who typeset with TeX, and its caption (Markdown) below."""
    svg, pdf = io.BytesIO(), io.BytesIO()
    # Text as outlines: the same in every viewer. A fixed salt: the same ids, so the same bytes, at every run.
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "nnlib"}):
        figure.savefig(svg, format="svg", metadata={"Date": None}, dpi=150)
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None}, dpi=150)
    data = {
        "text/plain": caption,
        "image/svg+xml": re.sub(r"\s+", " ", svg.getvalue().decode()),  # line ends make a third of a stored figure
        "application/pdf": base64.b64encode(pdf.getvalue()).decode(),
    }
    _display(data, {"kind": "figure", "alt": caption})
    _caption(caption)


def show_table(header: Sequence[str], rows: Sequence[Sequence[Any]], caption: str) -> None:
    """Display rows under a header as a Markdown table, columns of numbers to the right, and its caption below."""
    cells = [[str(cell) for cell in row] for row in rows]
    for row in cells:
        if len(row) != len(header):
            raise ValueError(f"table: expected {len(header)} cells in each row, got {row}")
    numeric = [all(re.match(r"[-−]?\d|$", row[i]) for row in cells) for i in range(len(header))]  # or empty
    lines = [
        "| " + " | ".join(header) + " |",
        "|" + "|".join("---:" if right else ":---" for right in numeric) + "|",
        *("| " + " | ".join(row) + " |" for row in cells),
    ]
    _display({"text/markdown": "\n".join(lines), "text/plain": caption}, {"kind": "table"})
    _caption(caption)


def _caption(text: str) -> None:
    _display({"text/markdown": f"*{text}*", "text/plain": text}, {"kind": "caption", "caption": text})


def _display(data: dict[str, Any], metadata: dict[str, str]) -> None:
    display(data, raw=True, metadata={"nnlib": metadata})
