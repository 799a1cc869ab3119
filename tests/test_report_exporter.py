"""From notebooks to the PDF: references, figures, tables, what a reader may see, and what must be refused."""

import base64
import io
import re
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pypdf import PdfReader
from report_samples import exported, figure_cell, notebook, svg, table_cell, words

from nnlib_report import markdown
from nnlib_report.exporter import BIBLIOGRAPHY, ReportPDFExporter


def text_of(*cells, folder="."):
    return markdown.from_notebook(notebook(*cells), folder).text


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("<b>bold</b> and x<sub>i</sub>", "**bold** and x~i~"),
        ('<img src="a.svg" alt="A picture">', "![A picture]"),
        ("`<b>` in code stays", "`<b>` in code stays"),
        ("$a<b>c$ is a formula", "$a<b>c$ is a formula"),
        ("<b>with `code` and $x$</b>", "**with `code` and $x$**"),
        ("a <!-- note --> b", "a  b"),
        ('<a href="https://a.org">site</a>', "[site](https://a.org)"),
        ("<table><tr><th>h</th></tr><tr><td>cell</td></tr></table>", "cell\n"),
    ],
)
def test_html_in_prose_becomes_markdown(source, wanted, tmp_path):
    (tmp_path / "a.svg").write_bytes(svg())
    assert wanted in markdown.from_notebook(notebook(new_markdown_cell(source)), tmp_path).text


def test_figures_tables_equations_and_citations_are_numbered_and_referred_to():
    text = "As @fig-one, @tbl-one, @eq-one and @sec-end show [@he2015].\n\n"
    text += "$$x = y$$ {#eq-one}\n\n## End <!-- {#sec-end} -->"
    found = words(exported(new_markdown_cell(text), figure_cell(), table_cell()))
    assert "As Figure 1, Table 1, Equation 1 and Section 1 show [1]" in found
    assert "Figure 1: What to see" in found
    assert "Table 1: A table." in found
    assert "Deep Residual Learning" in found


def test_the_pdf_is_tagged_archivable_and_the_same_each_time():
    first = exported(figure_cell())
    assert first == exported(figure_cell())
    catalog = PdfReader(io.BytesIO(first)).trailer["/Root"]
    assert catalog["/MarkInfo"]["/Marked"]
    assert "/StructTreeRoot" in catalog
    metadata = catalog["/Metadata"].get_object().get_data()
    assert b"pdfuaid:part>1" in metadata
    assert b"pdfaid:part>2" in metadata


def test_code_is_hidden_unless_asked_for(tmp_path):
    hidden = new_code_cell("secret = 1", execution_count=1)
    stream = [new_output("stream", name="stdout", text="printed\n"), new_output("stream", name="stderr", text="noise")]
    shown = new_code_cell("#| echo: true\nvisible = 1", execution_count=2, outputs=stream)
    text = markdown.from_notebook(notebook(hidden, shown), tmp_path).text
    assert "secret" not in text
    assert "visible = 1" in text
    assert "#|" not in text
    assert "printed" in text
    assert "noise" not in text


def test_a_caption_in_a_comment_serves_where_code_gave_none(tmp_path):
    png = base64.b64encode(b"\x89PNG").decode()
    cell = new_code_cell(
        "#| label: fig-x\n#| fig-cap: Said in a comment.\n#| fig-alt: Seen\nplot()",
        outputs=[new_output("display_data", {"image/png": png})], execution_count=1,
    )  # fmt: skip
    text = markdown.from_notebook(notebook(cell), tmp_path).text
    assert '![Said in a comment.](fig-x.png){#fig-x alt="Seen"}' in text


def test_progress_bars_leave_nothing_on_paper(tmp_path):
    data = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "HBox(children=())"}
    cell = new_code_cell("bar()", outputs=[new_output("display_data", data)], execution_count=1)
    assert "HBox" not in markdown.from_notebook(notebook(cell), tmp_path).text


def test_attachments_and_pictures_of_prose_are_found(tmp_path):
    (tmp_path / "b.svg").write_bytes(svg())
    cell = new_markdown_cell("![a](attachment:a.png) ![b](b.svg)")
    cell.attachments = {"a.png": {"image/png": base64.b64encode(b"png").decode()}}
    document = markdown.from_notebook(notebook(cell), tmp_path)
    assert b"png" in document.pictures.values()
    assert len(document.pictures) == 2
    with pytest.raises(ValueError, match=r"the picture c\.svg is not there"):
        markdown.from_notebook(notebook(new_markdown_cell("![c](c.svg)")), tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("see @fig-gone", "@fig-gone refers to a label"),
        ("as [@nobody2020] says", "@nobody2020 is not in report/references.bib"),
        ("## A {#sec-a}\n\n## B {#sec-a}", "label sec-a is defined 2 times"),
        (r"$\undefinedmacro{x}$", r"formula that cannot be typeset: \undefinedmacro{x}"),
        (r"\vspace{1em} text", r"TeX that cannot be typeset: \vspace{1em}"),
        (r"see \eqref{eq-gone}", "@eq-gone refers to a label"),
        (r"as \cite{he2015,nobody2020} says", "@nobody2020 is not in"),
        ("![a](gone.svg)", "the picture gone.svg is not there"),
        ("```{=typst}\n#nothing()\n```", "typst: unknown variable: nothing"),
        ("a <blink>tag</blink>", "HTML that cannot be typeset: <blink>"),
    ],
)
def test_what_cannot_be_typeset_is_one_line(text, message):
    with pytest.raises(ValueError, match=r"Notebook\.ipynb, cell here: ") as error:
        exported(new_markdown_cell(text, id="here"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "one\n\n---\n\ntwo",
        "> A quotation.\n\nTerm\n:   meaning\n\n- [x] done\n\nA note.[^1]\n\n[^1]: With $x$ and `code`.",
        "~~struck~~ H~2~O x^2^ [link](https://example.org) <https://example.org>",
        "<table><tr><th>h</th></tr><tr><td>cell</td></tr></table>",
        r"as \cite{he2015} say",
        "@he2015 and [see @guo2017, p. 3; @zhang2017]",
        "```bash\n" + "word " * 60 + "\n```",
        "| " + " | ".join("abcdefgh") + " |\n|" + "---|" * 8 + "\n" + ("| " + " | ".join("12345678") + " |\n") * 90,
    ],
)
def test_what_markdown_offers_is_typeset(text):
    assert exported(new_markdown_cell(text)).startswith(b"%PDF")


def test_the_title_of_a_single_notebook_is_its_heading_and_its_sections_are_numbered_from_one():
    text = "# About `x` and $y$ {#sec-top}\n\nIn @sec-top and @sec-a.\n\n## First {#sec-a}\n\n## Next"
    pdf, _ = ReportPDFExporter().from_notebook_node(new_notebook(cells=[new_markdown_cell(text)]))
    reader = PdfReader(io.BytesIO(pdf))
    assert reader.metadata.title == "About x and y"
    assert len(reader.pages) == 1
    assert "In this notebook and Section 1. 1 First 2 Next" in words(pdf)


def test_a_single_notebook_names_what_another_one_shows(tmp_path):
    other = notebook(new_markdown_cell("## L2 in the loss {#sec-l2}\n\n$$x$$ {#eq-x}"), figure_cell("fig-l2"))
    nbformat.write(other, tmp_path / "04_more.ipynb")
    nbformat.write(notebook(new_markdown_cell("See @sec-l2, \\eqref{eq-x} and @fig-l2.")), tmp_path / "02_one.ipynb")
    command = [sys.executable, "-m", "nbconvert", "--to", "report-pdf", str(tmp_path / "02_one.ipynb")]
    subprocess.run(command, check=True, capture_output=True)
    found = words((tmp_path / "02_one.pdf").read_bytes())
    assert "See Section “L2 in the loss” of 04_more, Equation eq-x of 04_more and Figure fig-l2 of 04_more." in found


def test_alternative_texts_carry_no_markup():
    assert markdown.plain("*Seen* in `x`: $x^2$ [@he2015], [a link](https://a.org)") == "Seen in x: x^2, a link"


def test_printed_text_is_as_a_terminal_shows_it(tmp_path):
    text = "\x1b[31mred\x1b[0m\n10 %\r100 %\n" + "x" * 200 + "\n```\n"
    cell = new_code_cell("f()", outputs=[new_output("stream", name="stdout", text=text)], execution_count=1)
    shown = text_of(cell)
    assert "````text\nred\n100 %\n" + "x" * 90 + "\n" in shown
    exported(cell)


def test_nothing_stands_outside_the_margins():
    long = "x = function_of_a_long_name(first_argument, second_argument, third_argument, fourth_argument, fifth, sixth)"
    cell = new_code_cell(f"#| echo: true\n{long}", execution_count=1)
    cell.outputs = [new_output("stream", name="stdout", text="y" * 300)]
    places = []
    for page in PdfReader(io.BytesIO(exported(cell))).pages:
        page.extract_text(visitor_text=lambda text, _cm, tm, _font, size: places.append((text.strip(), tm[4])))
    assert max(x for text, x in places if text) < 595 - 69


def test_every_work_of_the_bibliography_is_typeset_with_its_authors_and_where_it_appeared():
    keys = re.findall(r"^@\w+\{([\w-]+),", BIBLIOGRAPHY.read_text(), re.MULTILINE)
    found = words(exported(new_markdown_cell(" ".join(f"[@{key}]" for key in keys))))
    assert f"[{len(keys)}]" in found
    assert "Imperial College London" in found
    assert "University of Toronto" in found
    assert "I. J. Goodfellow et al." in found
    assert not re.search(r"and others|\\text|[{}]", found)
