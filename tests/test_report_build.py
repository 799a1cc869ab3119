"""Executing the notebooks and writing what comes of them, on a checkout of one small notebook."""

import os

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from report_samples import words

from nnlib_report import build
from nnlib_report.execute import cleaned, execute

FIGURE = """#| label: fig-line
from matplotlib.figure import Figure
from nnlib.notebook import show
figure = Figure(figsize=(2, 1))
figure.subplots().plot([1, 2])
show(figure, "A line.")"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one notebook; what a build sets in the environment is undone."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "README.md").write_text("<!-- results -->\n<!-- /results -->\n")
    cells = [new_markdown_cell("# One\n\nSee @fig-line.", id="head"), new_code_cell(FIGURE, id="line")]
    write(tmp_path, *cells, new_code_cell("import os\nprint(os.environ['NNLIB_PROFILE'])", id="env"))
    return tmp_path


def write(root, *cells):
    nbformat.write(new_notebook(cells=list(cells)), root / "notebooks" / "01_one.ipynb")


def test_quick_leaves_the_notebooks_as_they_are(checkout, capsys):
    before = (checkout / "notebooks" / "01_one.ipynb").read_bytes()
    path = build.build("quick", root=checkout)
    assert path == checkout / "build" / "report.pdf"
    assert (checkout / "notebooks" / "01_one.ipynb").read_bytes() == before
    assert "fig-line" in (checkout / "build" / "notebooks" / "01_one.ipynb").read_text()
    found = words(path.read_bytes())
    assert "1 One" in found
    assert "See Figure 1." in found
    assert "2 January 1970" in found
    assert "Running the code" in found
    assert "01_one.ipynb ... " in capsys.readouterr().out
    assert not (checkout / "figures").exists()


def test_full_writes_notebooks_figures_and_report_and_the_same_each_time(checkout):
    (checkout / "figures").mkdir()
    (checkout / "figures" / "fig-old.svg").write_text("no notebook draws this")
    first = build.build("full", root=checkout).read_bytes()
    notebook = (checkout / "notebooks" / "01_one.ipynb").read_bytes()
    assert [path.name for path in (checkout / "figures").iterdir()] == ["fig-line.svg"]
    assert b'"full\\n"' in notebook
    assert b"iopub" not in notebook  # the times of execution
    assert [cell.id for cell in nbformat.reads(notebook.decode(), 4).cells] == ["head", "line", "env"]
    assert build.build("full", root=checkout) == checkout / "report" / "report.pdf"
    assert (checkout / "notebooks" / "01_one.ipynb").read_bytes() == notebook
    assert (checkout / "report" / "report.pdf").read_bytes() == first


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\nassert x == 2", "AssertionError: assert x == 2"),
        ("raise ValueError('first\\nsecond')", "ValueError: first"),
    ],
)
def test_a_failing_cell_is_one_line_and_nothing_is_written(checkout, source, message, monkeypatch, capsys):
    write(checkout, new_markdown_cell("# One"), new_code_cell(source, id="bad"))
    whole = build.build
    monkeypatch.setattr(build, "build", lambda profile, retrain: whole(profile, retrain=retrain, root=checkout))
    monkeypatch.setattr("sys.argv", ["build", "--profile", "full"])
    assert build.main() == 1
    assert capsys.readouterr().err == f"report: 01_one.ipynb, cell bad: {message}\n"
    assert not (checkout / "report").exists()


def test_a_kernel_that_dies_is_named(checkout):
    write(checkout, new_markdown_cell("# One"), new_code_cell("import os\nos._exit(1)", id="bad"))
    with pytest.raises(RuntimeError, match=r"^01_one\.ipynb: the kernel died"):
        execute(checkout / "notebooks" / "01_one.ipynb")


@pytest.mark.parametrize("text", ["/home/someone/data", "in {root}/data"])
def test_a_path_of_this_machine_is_refused(text, tmp_path):
    output = nbformat.v4.new_output("stream", name="stdout", text=text.format(root=tmp_path))
    notebook = new_notebook(cells=[new_code_cell("f()", id="bad", outputs=[output])])
    with pytest.raises(ValueError, match=r"01\.ipynb, cell bad: prints a path of this machine"):
        cleaned(notebook, "01.ipynb", tmp_path)


def test_kernels_are_told_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NNLIB_DATA", raising=False)
    monkeypatch.setenv("NNLIB_RUNS", "elsewhere")
    without = build.environment("quick", tmp_path, retrain=False)
    assert without["NNLIB_RUNS"] == str(tmp_path / "elsewhere")
    assert "NNLIB_DATA" not in without
    assert "NNLIB_RETRAIN" not in without
    (tmp_path / "data").mkdir()
    assert build.environment("quick", tmp_path, retrain=True)["NNLIB_DATA"] == str(tmp_path / "data")
    assert build.environment("quick", tmp_path, retrain=True)["NNLIB_RETRAIN"]
