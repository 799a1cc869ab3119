"""Small notebooks with real figures, and the text of a PDF, for the tests of the report."""

import io

from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pypdf import PdfReader

from nnlib_report import markdown
from nnlib_report.exporter import ReportPDFExporter, to_pdf
from nnlib_report.references import Part

META = {**ReportPDFExporter.defaults, "title": "Test", "date": "2026-01-02"}


def pdf_of(text):
    return to_pdf(markdown.Document([Part("test", text)]), META)


def exported(*cells):
    """The PDF of a notebook of these cells, below its title."""
    return ReportPDFExporter().from_notebook_node(notebook(*cells))[0]


def words(pdf):
    """The text of a PDF, its spaces and line ends made one space."""
    return " ".join(" ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages).split())


def svg():
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def figure_cell(label="fig-one", caption="What to see: $x^2$ grows [@he2015]."):
    data = {"image/svg+xml": svg().decode(), "text/plain": "figure"}
    outputs = [
        new_output("display_data", data, metadata={"nnlib": {"kind": "figure", "alt": caption}}),
        caption_output(caption),
    ]
    return new_code_cell(f"#| label: {label}\nshow()", outputs=outputs, execution_count=1)


def caption_output(caption):
    meta = {"nnlib": {"kind": "caption", "caption": caption}}
    return new_output("display_data", {"text/markdown": caption}, metadata=meta)


def table_cell(label="tbl-one", caption="A table."):
    text = {"text/markdown": "| a | b |\n|:--|--:|\n| `x` | 1 |"}
    outputs = [new_output("display_data", text, metadata={"nnlib": {"kind": "table"}}), caption_output(caption)]
    return new_code_cell(f"#| label: {label}\nshow()", outputs=outputs, execution_count=2)


def notebook(*cells):
    return new_notebook(cells=[new_markdown_cell("# Title\n\nProse."), *cells])
