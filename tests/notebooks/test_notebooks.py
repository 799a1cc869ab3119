"""The notebooks as they are committed: executed, whole, small, and fit to be read anywhere."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter

from nnlib_report import markdown

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def test_all_chapters_are_there():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]


def test_a_notebook_was_executed_in_order_without_an_error(notebook):
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]


def test_cells_are_short_and_outputs_small(notebook):
    for cell in code_cells(notebook):
        assert len(cell.source.splitlines()) <= 15, cell.source
        assert len(json.dumps(cell.outputs)) < 1_000_000, cell.source


def test_a_notebook_has_one_title_and_ends_with_three_exercises(notebook):
    headings = re.findall(r"^(#+) (.*)$", "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown"), re.M)
    assert [level for level, _ in headings].count("#") == 1
    assert headings[0][0] == "#"
    assert headings[-1][1].startswith("Exercises")
    last = "\n".join(c.source for c in notebook.cells[-2:] if c.cell_type == "markdown")
    assert len(re.findall(r"^\d\. ", last, re.M)) == 3


def test_a_notebook_tells_nothing_of_the_machine(notebook):
    text = json.dumps(notebook)
    assert not re.search(r"/(home|Users|root|tmp|work)/", text)


def test_labelled_cells_hold_one_figure_or_table_with_a_caption(notebook):
    for cell in code_cells(notebook):
        label = markdown.options_of(cell.source)[0].get("label", "")
        if label.startswith(("fig-", "tbl-")):
            kinds = [output.get("metadata", {}).get("nnlib", {}).get("kind") for output in cell.outputs]
            assert kinds == ["figure" if label.startswith("fig-") else "table", "caption"], label


def test_a_caption_says_when_its_images_are_drawn(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    captions = [output.get("metadata", {}).get("nnlib", {}).get("caption", "") for output in outputs]
    drawn = [caption for caption in captions if re.search("shapes10|faces7", caption)]
    assert all("synthetic" in caption for caption in drawn)
    for cell in code_cells(notebook):  # drawn in the cell itself
        if "shapes10(" in cell.source and (outputs := [o for o in cell.outputs if "nnlib" in o.get("metadata", {})]):
            assert "synthetic" in outputs[-1].metadata["nnlib"]["caption"]


def test_the_stock_html_exporter_works(notebook):
    html, _ = HTMLExporter().from_notebook_node(notebook)
    assert "Exercises" in html
