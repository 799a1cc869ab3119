"""Several notebooks as one: names kept apart, numbers shared, and what is refused."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from report_samples import figure_cell, notebook, words

from nnlib_report import markdown
from nnlib_report.exporter import ReportPDFExporter
from nnlib_report.merge import merge

FAILURE = new_output("error", ename="NameError", evalue="no x", traceback=[])


def merged_text(path, *sources):
    notebooks = [(path / f"0{n}.ipynb", notebook(new_markdown_cell(text))) for n, text in enumerate(sources, 1)]
    return markdown.from_notebook(merge(notebooks, [], {}), path).text


def test_merged_notebooks_share_numbers_and_keep_their_names_apart(tmp_path):
    prose = "Note[^1], [text][site].\n\n[^1]: A note.\n\n[site]: https://example.org"
    one = notebook(new_markdown_cell(prose), figure_cell("fig-a"))
    prose = "Another[^1]; see @fig-a and @fig-b.\n\n[^1]: Other note."
    two = notebook(new_markdown_cell(prose), figure_cell("fig-b"))
    notebooks = [(tmp_path / "01.ipynb", one), (tmp_path / "02.ipynb", two)]
    merged = merge(notebooks, [("last.md", "# Last\n\nSee @fig-a.")], {"full": True, "title": "T"})
    nbformat.validate(merged)
    assert len({cell.id for cell in merged.cells}) == len(merged.cells) == 7
    text = markdown.from_notebook(merged, tmp_path).text
    assert "[^n1-1]" in text
    assert "[^n2-1]" in text
    assert "[text][n1-site]" in text
    found = words(ReportPDFExporter().from_notebook_node(merged)[0])
    assert "see Figure 1 and Figure 2" in found
    assert "3 Last" in found


def test_links_of_equal_names_keep_their_own_addresses(tmp_path):
    first = "A [site] and [Site][], `[site]`.\n\n[site]: https://one.org"
    text = merged_text(tmp_path, first, "A [text][site].\n\n[site]: https://two.org")
    assert "A [site][n1-site] and [Site][n1-Site], `[site]`." in text
    assert "[n1-site]: https://one.org" in text
    assert "[text][n2-site]" in text
    assert "[n2-site]: https://two.org" in text


def test_code_that_looks_like_a_footnote_is_left_alone(tmp_path):
    text = merged_text(tmp_path, "Match `[^a-z]` or\n\n```python\nre.compile('[^0-9]')\n```")
    assert "`[^a-z]`" in text
    assert "'[^0-9]'" in text


def test_messages_name_the_notebook_and_the_cell(tmp_path):
    one, two = notebook(new_markdown_cell("see @fig-gone", id="mine")), notebook(figure_cell("fig-a"))
    merged = merge([(tmp_path / "01.ipynb", one), (tmp_path / "02.ipynb", two)], [], {"full": True})
    with pytest.raises(ValueError, match=r"^01\.ipynb, cell mine: @fig-gone"):
        ReportPDFExporter().from_notebook_node(merged)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (new_code_cell("x"), "was never run"),
        (new_code_cell("x", outputs=[FAILURE], execution_count=1), "NameError: no x"),
    ],
)
def test_notebooks_that_were_not_run_whole_are_refused(cell, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        merge([(tmp_path / "01.ipynb", notebook(cell))], [], {})
    assert "01.ipynb" in str(error.value)
    with pytest.raises(ValueError, match="expected the first cell to start with a heading"):
        merge([(tmp_path / "01.ipynb", new_notebook(cells=[new_markdown_cell("no title")]))], [], {})
    two_titles = notebook(new_markdown_cell("# Another\n\n```bash\n# a comment\n```"))
    with pytest.raises(ValueError, match="expected one first-level heading, got also '# Another'"):
        merge([(tmp_path / "01.ipynb", two_titles)], [], {})
