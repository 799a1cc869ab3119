"""Several executed notebooks as one, so that numbers and references run across all chapters."""

import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_markdown_cell, new_notebook

FOOTNOTE = re.compile(r"\[\^([^\]\s]+)\]")
DEFINED_LINK = re.compile(r"^\[([^\]^][^\]]*)\]:", re.MULTILINE)


def merge(notebooks: list[tuple[Path, Any]], chapters: list[str], metadata: dict[str, Any]) -> Any:
    """Return one notebook: the cells of all ``(path, notebook)`` in order, then ``chapters`` of Markdown.

    Cell ids, footnotes and link definitions are made unique; each cell remembers its notebook and folder, for messages
    and relative pictures. Raises ValueError for a notebook that was not executed whole, that failed, or that does not
    start with one first-level heading.
    """
    cells = []
    for number, (path, notebook) in enumerate(notebooks, 1):
        _check(path, notebook)
        for place, original in enumerate(notebook.cells):
            cell = nbformat.from_dict(original)
            cell.id = f"n{number}-{place}"
            cell.metadata["nnlib_notebook"] = path.name
            cell.metadata["nnlib_folder"] = str(path.parent)
            if cell.cell_type == "markdown":
                cell.source = _own_names(cell.source, f"n{number}")
            cells.append(cell)
    cells += [new_markdown_cell(text) for text in chapters]
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


def _own_names(source: str, prefix: str) -> str:
    """Return Markdown whose footnotes and named links carry a prefix, so that equal names do not meet."""
    source = FOOTNOTE.sub(rf"[^{prefix}-\1]", source)
    for name in DEFINED_LINK.findall(source):
        source = re.sub(rf"^\[{re.escape(name)}\]:", f"[{prefix}-{name}]:", source, flags=re.MULTILINE)
        source = re.sub(rf"\]\[{re.escape(name)}\]", f"][{prefix}-{name}]", source)
        source = re.sub(rf"\[{re.escape(name)}\]\[\]", f"[{name}][{prefix}-{name}]", source)
    return source
