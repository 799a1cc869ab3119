"""Formulas through pandoc and Typst: those of the coursework, and what pandoc alone would lose or break."""

import pytest
from report_samples import pdf_of

from nnlib_report.exporter import to_typst

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
\left\lVert \frac{a}{b} \right\rVert_2 + \big\lVert c \big\rVert, \quad \mathrm{ReLU}(x)
\left.\frac{\mathrm{d}y}{\mathrm{d}x}\right|_{x = 0} = 1{,}000\,\%, \qquad \left(\frac{1}{2}\right)^k
\lvert x \rvert \ll \infty, \quad A \subseteq B \cup C, \quad x \notin \emptyset
""".strip().splitlines()


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
        (r"$\left\lVert x \right\rVert_2$", 'class("normal", norm(x))_2'),
        (r"$\mathrm{ReLU}(x)$", 'upright("ReLU")'),
        (r"$\operatorname{Var}[y]$", r'op("Var")\[ y \]'),
        (r"$\operatorname{Var}\left(y\right)$", 'op("Var")/**/(y)'),
        (r"$\begin{cases} 1 & x > 0 \\ 0 & x \le 0 \end{cases}$", "1 & quad x > 0"),
        (r"$|a|$", 'class("opening", bar.v) a class("closing", bar.v)'),
        (r"$P(a|b)$", 'a class("normal", bar.v) b'),
        (r"$\bigl| a \bigr|$", 'class("normal", lr(size: #1.2em, bar.v)) a'),
        (r"$\text{if } x > 0$", 'upright("if") x'),
        (r"$1{,}000$", '1upright(",")000'),
        (r"$$a = b \label{eq-one} \nonumber$$", "<eq-one>"),
        (r"$\bigl[ a \bigr]$", r"lr(size: #1.2em, \[)"),
        ("\\begin{align}\na &= b\n\\end{align}", "block: true"),
        (r"see \eqref{eq-one} and \ref{fig-two}", "#ref(<eq-one>) and #ref(<fig-two>)"),
        (r"as in \cite{he2015, glorot2010}", "#cite(<he2015>)#cite(<glorot2010>)"),
        ("see @fig-x and @sec-y", "#ref(<fig-x>) and #ref(<sec-y>)"),
        ("known [@he2015]", "#cite(<he2015>)"),
        ("known [see @he2015, p. 3; @guo2017]", "see #cite(<he2015>, supplement: [p.~3])#cite(<guo2017>)"),
        ("@he2015 say", '#cite(<he2015>, form: "prose") say'),
        ('![c](p.svg){#fig-p alt="What is seen"}', 'alt: "What is seen"'),
        ("words ![a](p.svg){width=50%} around", '#box(image("p.svg", alt: "a", width: 50%))'),
        ("| a |\n|---|\n| b |\n\n: C {#tbl-c}", "<tbl-c>"),
        (r"$\alpha$", 'alt: "\\\\alpha"'),
    ],
)
def test_what_pandoc_loses_is_mended(source, wanted):
    assert wanted in to_typst(source)
