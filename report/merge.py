"""Several executed notebooks as one, so that numbers and references run across all chapters."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_markdown_cell, new_notebook

from .markdown import outside
from .references import CODE

FOOTNOTE = re.compile(r"\[\^([^\]\s]+)\]")
DEFINED_LINK = re.compile(r"^ {0,3}\[([^\]^][^\]]*)\]:", re.MULTILINE)


def merge(notebooks: list[tuple[Path, Any]], chapters: list[tuple[str, str]], metadata: dict[str, Any]) -> Any:
    """Return one notebook: the cells of all ``(path, notebook)`` in order, then ``(name, Markdown)`` chapters.

    Cell ids, footnotes and link definitions are made unique; each cell remembers its notebook, folder and id, for
    messages and relative pictures. Raises ValueError for a notebook that was not executed whole, that failed, or that
    does not start with one first-level heading.
    """
    cells = []
    for number, (path, notebook) in enumerate(notebooks, 1):
        _check(path, notebook)
        prefix = f"n{number}"
        links = {name.lower() for cell in notebook.cells for name in DEFINED_LINK.findall(_prose_of(cell))}
        renamed = partial(_own_names, links=links, prefix=prefix)
        for place, original in enumerate(notebook.cells):
            cell = nbformat.from_dict(original)
            cell.metadata["nnlib"] = {"notebook": path.name, "folder": str(path.parent), "cell": cell.get("id", place)}
            cell.id = f"{prefix}-{place}"
            if cell.cell_type == "markdown":
                cell.source = outside(CODE, cell.source, renamed)
            cells.append(cell)
    for number, (name, text) in enumerate(chapters):
        origin = {"notebook": name, "folder": ".", "cell": 0}
        cells.append(new_markdown_cell(text, id=f"c{number}", metadata={"nnlib": origin}))
    return new_notebook(cells=cells, metadata={"report": metadata})


def _check(path: Path, notebook: Any) -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for cell in code:
        if cell.get("execution_count") is None:
            raise ValueError(f"{path.name}: cell {cell.get('id')} was never run; execute the notebook first")
        for output in cell.outputs:
            if output.output_type == "error":
                raise ValueError(f"{path.name}: cell {cell.get('id')} failed: {output.ename}: {output.evalue}")
    first = notebook.cells[0].source if notebook.cells else ""
    if not re.match(r"# \S", first):
        raise ValueError(f"{path.name}: expected the first cell to start with a heading `# Title`, got {first[:40]!r}")
    titles = [line for cell in notebook.cells for line in re.findall(r"^# .*", _prose_of(cell), re.MULTILINE)]
    if len(titles) > 1:
        raise ValueError(f"{path.name}: expected one first-level heading, got also {titles[1]!r}; write it with ##")


def _prose_of(cell: Any) -> str:
    return CODE.sub("", cell.source) if cell.cell_type == "markdown" else ""


def _own_names(text: str, links: set[str], prefix: str) -> str:
    """Return Markdown whose footnotes and named links carry a prefix, so that equal names do not meet."""
    text = FOOTNOTE.sub(rf"[^{prefix}-\1]", text)
    for name in map(re.escape, links):
        text = re.sub(rf"^( {{0,3}})\[({name})\]:", rf"\1[{prefix}-\2]:", text, flags=re.MULTILINE | re.IGNORECASE)
        text = re.sub(rf"\]\[({name})\]", rf"][{prefix}-\1]", text, flags=re.IGNORECASE)
        text = re.sub(rf"(?<!\])\[({name})\](\[\]|(?![\[(:]))", rf"[\1][{prefix}-\1]", text, flags=re.IGNORECASE)
    return text
