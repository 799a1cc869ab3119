"""From notebooks to the PDF: formulas, references, figures, tables, and what must be refused."""

import base64
import io
import re

import nbformat
import pytest
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pypdf import PdfReader

from nnlib_report import markdown
from nnlib_report.exporter import ReportPDFExporter, to_pdf, to_typst
from nnlib_report.merge import merge

# The formulas of the coursework's chapters; each must go through pandoc and Typst without a warning.
FORMULAS = r"""
y = x W + b
Y = X W + \mathbf{1} b^\top, \qquad X \in \mathbb{R}^{N \times D},\ W \in \mathbb{R}^{D \times M}
\frac{\partial L}{\partial W} = X^\top \frac{\partial L}{\partial Y}
\frac{\partial L}{\partial b_m} = \sum_{n=1}^{N} \frac{\partial L}{\partial Y_{nm}}
\frac{\partial L}{\partial X} = \frac{\partial L}{\partial Y} W^\top
\frac{\partial Y_{nm}}{\partial W_{dk}} = X_{nd}\,\delta_{mk}
\operatorname{ReLU}(x) = \max(0, x)
\frac{\mathrm{d}}{\mathrm{d}x}\max(0, x) = \begin{cases} 1 & x > 0 \\ 0 & x \le 0 \end{cases}
\mathrm{d}X = \mathrm{d}Y \odot [X > 0]
f'(x) \approx \frac{f(x + h) - f(x - h)}{2h} + O(h^2)
\frac{|a - b|}{\max(10^{-8}, |a| + |b|)}
m_i \sim \operatorname{Bernoulli}(1 - p)
y_i = \frac{m_i x_i}{1 - p}
\mathbb{E}[y_i] = \frac{(1 - p)\, x_i}{1 - p} = x_i
\operatorname{Var}[y_i] = x_i^2 \frac{p}{1 - p}
p_j = \frac{e^{z_j}}{\sum_{k=1}^{C} e^{z_k}}
\frac{e^{z_j - c}}{\sum_k e^{z_k - c}} = \frac{e^{-c} e^{z_j}}{e^{-c} \sum_k e^{z_k}}, \quad c = \max_k z_k
\log p_j = z_j - \log \sum_{k} e^{z_k}
L = -\frac{1}{N} \sum_{n=1}^{N} \log p_{n, y_n}
\frac{\partial p_i}{\partial z_j} = p_i (\delta_{ij} - p_j)
J = \operatorname{diag}(p) - p p^\top \in \mathbb{R}^{C \times C}
\frac{\partial L}{\partial z} = J^\top \frac{\partial L}{\partial p} = \frac{1}{N}(p - t)
t = (1 - \varepsilon)\, e_y + \frac{\varepsilon}{C} \mathbf{1}
\hat{y} = \operatorname*{arg\,max}_k z_k
\theta^\star = \operatorname*{arg\,min}_\theta L(\theta)
\underset{w}{\min}\; L(w) + \tfrac{\lambda}{2} \lVert w \rVert_2^2
\Omega(W) = \frac{\lambda}{2} \sum_{l} \|W_l\|_F^2
W \leftarrow (1 - \eta\lambda) W - \eta \nabla_W L
v \leftarrow \mu v + g, \qquad w \leftarrow w - \eta v
w \leftarrow w - \eta\,(g + \mu v)
\eta_t = \eta_{\min} + \frac{1}{2}(\eta_{\max} - \eta_{\min})\left(1 + \cos\frac{\pi t}{T}\right)
\eta_t = \eta_0\, \gamma^{\lfloor t / s \rfloor}
\operatorname{Var}(w) = \frac{2}{n_{\mathrm{in}}}
\operatorname{Var}(w) = \frac{2}{n_{\mathrm{in}} + n_{\mathrm{out}}}
\mathrm{ECE} = \sum_{b=1}^{B} \frac{|B_b|}{N} \bigl| \mathrm{acc}(B_b) - \mathrm{conf}(B_b) \bigr|
\Bigl( \sum_i x_i \Bigr) \bigl[ a \bigr] \bigl\{ b \bigr\} \Bigl\| c \Bigr\|
a \odot b \otimes c \oplus d
a\!b\;c\,d\:e\quad f
\begin{aligned} a &= b + c \\ &= d \end{aligned}
\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} \begin{bmatrix} x \\ y \end{bmatrix}
\overbrace{a + b}^{\text{both}} + \underbrace{c}_{\text{one}}
\bar{x} = \frac{1}{N}\sum_n x_n, \quad \hat{\sigma}^2 = \frac{1}{N - 1}\sum_n (x_n - \bar{x})^2
\hat{x} = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}, \qquad y = \gamma \hat{x} + \beta
y_{n,i,j,k} = \sum_{u,v,c} x_{n,\,i+u,\,j+v,\,c}\, w_{u,v,c,k} + b_k
H_{\mathrm{out}} = \left\lfloor \frac{H + 2P - K}{S} \right\rfloor + 1
y = \mathcal{F}(x, \{W_i\}) + x
\lim_{h \to 0^+} \frac{f(x_0 + h) - f(x_0)}{h} \in [0, 1]
P(A \mid B) = \frac{P(B \mid A)\, P(A)}{P(B)}
\prod_{n=1}^N p(y_n \mid x_n; \theta) \propto \exp\left(-N L(\theta)\right)
\forall \epsilon > 0\ \exists \delta : |x - a| < \delta \implies |f(x) - f(a)| < \epsilon
\ln 10 \approx 2.303, \quad 2^{-23} \approx 1.2 \times 10^{-7}
\lvert x \rvert \ll \infty, \quad A \subseteq B \cup C, \quad x \notin \emptyset
""".strip().splitlines()

FAILURE = new_output("error", ename="NameError", evalue="no x", traceback=[])
META = {**ReportPDFExporter.defaults, "title": "Test", "date": "2026-01-02"}


def pdf_of(text, **pictures):
    return to_pdf(markdown.Document(text, pictures), META)


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


def test_every_formula_of_the_coursework_is_typeset_without_a_warning():
    assert len(FORMULAS) >= 50
    text = "\n\n".join(f"$${formula}$$\n\nInline ${formula}$." for formula in FORMULAS)
    assert pdf_of(text).startswith(b"%PDF")


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        (r"$a \odot b$", "dot.o"),
        (r"$a \otimes b$", "times.o"),
        (r"$a\!b$", "#h(-0.1667em)"),
        (r"$a\;b$", "#h(0.2778em)"),
        (r"$\operatorname*{arg\,max}_k z_k$", "limits: #true"),
        (r"$\operatorname{softmax}(z)$", 'op("softmax")'),
        (r"$\lVert x \rVert_2^2$", 'class("normal", norm(x))_2^2'),
        (r"$\bigl[ a \bigr]$", r"lr(size: #1.2em, \[)"),
        ("\\begin{align}\na &= b\n\\end{align}", "block: true"),
        (r"see \eqref{eq-one} and \ref{fig-two}", "#ref(<eq-one>) and #ref(<fig-two>)"),
        (r"as in \cite{he2015, glorot2010}", "#cite(<he2015>)#cite(<glorot2010>)"),
        ("see @fig-x and @sec-y", "#ref(<fig-x>) and #ref(<sec-y>)"),
        ("known [@he2015]", "#cite(<he2015>)"),
        ('![c](p.svg){#fig-p alt="What is seen"}', 'alt: "What is seen"'),
        (r"$\alpha$", 'alt: "\\\\alpha"'),
    ],
)
def test_what_pandoc_loses_is_mended(source, wanted):
    assert wanted in to_typst(source)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("<b>bold</b> and x<sub>i</sub>", "**bold** and x~i~"),
        ('<img src="a.svg" alt="A picture">', "![A picture]"),
        ("`<b>` in code stays", "`<b>` in code stays"),
        ("$a<b>c$ is a formula", "$a<b>c$ is a formula"),
    ],
)
def test_html_in_prose_becomes_markdown(source, wanted, tmp_path):
    (tmp_path / "a.svg").write_bytes(svg())
    assert wanted in markdown.from_notebook(notebook(new_markdown_cell(source)), tmp_path).text


def test_figures_tables_equations_and_citations_are_numbered_and_referred_to():
    text = "As @fig-one, @tbl-one, @eq-one and @sec-end show [@he2015].\n\n$$x = y$$ {#eq-one}\n\n## End {#sec-end}"
    pdf, _ = ReportPDFExporter().from_notebook_node(notebook(new_markdown_cell(text), figure_cell(), table_cell()))
    found = words(pdf)
    assert "As Figure 1, Table 1, Equation 1 and Section 1 show [1]" in found
    assert "Figure 1: What to see" in found
    assert "Table 1: A table." in found
    assert "Deep Residual Learning" in found


def test_the_pdf_is_tagged_archivable_and_the_same_each_time():
    one = notebook(figure_cell())
    first, _ = ReportPDFExporter().from_notebook_node(one)
    second, _ = ReportPDFExporter().from_notebook_node(one)
    assert first == second
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
        ("as [@nobody2020] says", "@nobody2020 is not in the bibliography"),
        ("## A {#sec-a}\n\n## B {#sec-a}", "label sec-a is defined 2 times"),
        (r"$\undefinedmacro{x}$", "pandoc"),
        (r"\vspace{1em} text", "TeX that cannot be typeset"),
        ("a <blink>tag</blink>", "HTML that cannot be typeset: <blink>"),
    ],
)
def test_what_cannot_be_typeset_is_one_line(text, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        ReportPDFExporter().from_notebook_node(notebook(new_markdown_cell(text)))
    assert "\n" not in str(error.value)


def test_merged_notebooks_share_numbers_and_keep_their_names_apart(tmp_path):
    prose = "Note[^1], [text][site].\n\n[^1]: A note.\n\n[site]: https://example.org"
    one = notebook(new_markdown_cell(prose), figure_cell("fig-a"))
    prose = "Another[^1]; see @fig-a and @fig-b.\n\n[^1]: Other note."
    two = notebook(new_markdown_cell(prose), figure_cell("fig-b"))
    merged = merge([(tmp_path / "01.ipynb", one), (tmp_path / "02.ipynb", two)], ["# Last"], {"x": 1})
    nbformat.validate(merged)
    assert len({cell.id for cell in merged.cells}) == len(merged.cells) == 7
    text = markdown.from_notebook(merged, tmp_path).text
    assert "[^n1-1]" in text
    assert "[^n2-1]" in text
    assert "[text][n1-site]" in text
    pdf = to_pdf(markdown.Document(text, {"fig-a.svg": svg(), "fig-b.svg": svg()}), META)
    found = words(pdf)
    assert "see Figure 1 and Figure 2" in found


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
