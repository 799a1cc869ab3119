"""An executed notebook as Markdown, cell by cell, and its pictures, for pandoc to read.

Cell options are the comments that Quarto knows: ``#| label: fig-overfit``, ``#| echo: true`` (code is hidden unless
the text discusses it), ``#| fig-cap:``, ``#| tbl-cap:``, ``#| fig-alt:``. A caption that code displayed comes first.
"""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pypandoc

from .references import CODE, Part, options_of

# A label in a comment does not show where the notebook is read as it is.
HIDDEN_LABEL = re.compile(r"<!--\s*(\{#[\w-]+\})\s*-->")
EQUATION = re.compile(r"\$\$(?P<math>.+?)\$\$\s*\{#(?P<label>eq-[\w-]+)\}", re.DOTALL)
MATH = re.compile(r"\$\$.+?\$\$|(?<![\\$])\$(?![\s$])[^$]*?(?<![\s\\])\$(?!\d)", re.DOTALL)
PICTURE = re.compile(r'!\[(?P<alt>[^\]]*)\]\((?P<path>[^)\s]+)(?:\s+"[^"]*")?\)')
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
CITATION = re.compile(r"\s*\[[^\]]*@[^\]]*\]")
# The HTML that people write in Markdown, as the Markdown it means.
HTML: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"<!--.*?-->", re.DOTALL), ""),
    (re.compile(r"<table\b.*?</table>", re.DOTALL), lambda match: _table(match[0])),
    (re.compile(r"<(b|strong)>(.*?)</\1>", re.DOTALL), r"**\2**"),
    (re.compile(r"<(i|em)>(.*?)</\1>", re.DOTALL), r"*\2*"),
    (re.compile(r"<sub>(.*?)</sub>", re.DOTALL), r"~\1~"),
    (re.compile(r"<sup>(.*?)</sup>", re.DOTALL), r"^\1^"),
    (re.compile(r"<code>(.*?)</code>", re.DOTALL), r"`\1`"),
    (re.compile(r'<a\s[^>]*?href="([^"]+)"[^>]*>(.*?)</a>', re.DOTALL), r"[\2](\1)"),
    (re.compile(r"<br\s*/?>"), "\\\n"),
    (re.compile(r"<img\s([^>]*)>"), lambda match: _img(match[1])),
)
TAG = re.compile(r"</?[a-zA-Z][^<>\n]*>")
ADDRESS = re.compile(r"<(https?://|mailto:)[^>]*>")
PICTURES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}
LONGEST = 90  # characters without a space that fit on a line of printed output


@dataclass
class Document:
    """Markdown in parts, and the picture files that it names."""

    parts: list[Part] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return "\n\n".join(part.text for part in self.parts) + "\n"


def from_notebook(notebook: Any, folder: Path, name: str = "notebook") -> Document:
    """Return the Markdown of an executed notebook whose relative paths start in ``folder``.

    Raises ValueError that names the cell: a failed cell, HTML that is not understood, a picture that is not there.
    """
    document = Document()
    for number, cell in enumerate(notebook.cells):
        origin = cell.metadata.get("nnlib", {})  # where `merge` found the cell
        place = f"{origin.get('notebook', name)}, cell {origin.get('cell', cell.get('id', number))}"
        if cell.cell_type == "markdown":
            texts = [_prose(cell, document, Path(origin.get("folder", folder)), place)]
        else:
            texts = _code(cell, document, place) if cell.cell_type == "code" else []
        document.parts += [Part(place, text) for text in texts if text.strip()]
    return document


def outside(pattern: re.Pattern[str], text: str, change: Callable[[str], str]) -> str:
    """Return ``text`` changed, but for what ``pattern`` (code, say) matches."""
    kept: list[str] = []
    mark = "\0" if "\0" not in text else "\1"  # the second where code is kept already and formulas come next

    def keep(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"{mark}{len(kept) - 1}{mark}"

    return re.sub(rf"{mark}(\d+){mark}", lambda match: kept[int(match[1])], change(pattern.sub(keep, text)))


def plain(text: str) -> str:
    """Return Markdown without its markup, on one line: for titles, summaries and alternative texts."""
    text = LINK.sub(r"\1", CITATION.sub("", text))
    return " ".join(re.sub(r"[*`$\\\[\]{}]", "", text).replace('"', "'").split())


def _prose(cell: Any, document: Document, folder: Path, place: str) -> str:
    def without_html(text: str) -> str:
        for pattern, replacement in HTML:
            text = pattern.sub(replacement, text)
        if tag := TAG.search(ADDRESS.sub("", text)):
            raise ValueError(f"{place}: HTML that cannot be typeset: {tag[0]}; write Markdown instead")
        return PICTURE.sub(lambda m: f"![{m['alt']}]({_picture(m['path'], cell, document, folder, place)})", text)

    def outside_code(text: str) -> str:
        text = HIDDEN_LABEL.sub(r"\1", text)
        text = EQUATION.sub(lambda m: f"[$${m['math'].strip()}$$]{{#{m['label']}}}", text)
        return outside(MATH, text, without_html)

    return outside(CODE, cell.source, outside_code)


def _table(html: str) -> str:
    # Inside paragraphs of Markdown, so with blank lines around.
    return f"\n\n{pypandoc.convert_text(html, 'markdown', format='html')}\n\n"


def _img(attributes: str) -> str:
    found = dict(re.findall(r'([\w-]+)\s*=\s*"([^"]*)"', attributes))
    width = f'{{width="{found["width"]}"}}' if "width" in found else ""
    return f"![{found.get('alt', '')}]({found.get('src', '')}){width}"


def _picture(path: str, cell: Any, document: Document, folder: Path, place: str) -> str:
    """Keep a picture that prose names, an attachment or a file, and return the name it is kept under."""
    name = f"{cell.get('id', 'cell')}-{len(document.pictures)}-{Path(path.removeprefix('attachment:')).name}"
    if path.startswith("attachment:"):
        data = cell.get("attachments", {}).get(path.removeprefix("attachment:"), {})
        content = next((base64.b64decode(value) for mime, value in data.items() if mime in PICTURES), None)
    else:
        content = (folder / path).read_bytes() if (folder / path).is_file() else None
    if content is None:
        raise ValueError(f"{place}: the picture {path} is not there")
    document.pictures[name] = content
    return name


def _code(cell: Any, document: Document, place: str) -> list[str]:
    options, source = options_of(cell.source)
    source = re.sub(r"\n{3,}", "\n\n", source)
    parts = [_fenced("python", source)] if options.get("echo") == "true" and source else []
    caption = next(
        (o.metadata["nnlib"]["caption"] for o in cell.outputs if _kind(o) == "caption"),
        options.get("fig-cap") or options.get("tbl-cap") or "",
    )
    label = options.get("label", "")
    for count, output in enumerate(o for o in cell.outputs if _kind(o) != "caption"):
        if output.output_type == "error":
            raise ValueError(f"{place}: the cell failed: {output.ename}: {output.evalue}")
        parts.append(_output(output, options, caption, label, f"{cell.get('id', 'cell')}-{count}", document))
    return parts


def _output(output: Any, options: dict[str, str], caption: str, label: str, name: str, document: Document) -> str:
    if output.output_type == "stream":
        return _verbatim(output.text) if output.name == "stdout" else ""
    data = output.data
    if "application/vnd.jupyter.widget-view+json" in data:  # a progress bar, say: nothing on paper
        return ""
    for mime, suffix in PICTURES.items():
        if mime in data:
            content = data[mime].encode() if suffix == "svg" else base64.b64decode(data[mime])
            file = f"{label or name}.{suffix}"
            document.pictures[file] = content
            alt = options.get("fig-alt") or output.metadata.get("nnlib", {}).get("alt") or caption or "figure"
            identifier = f"#{label} " if label else ""
            return f'![{caption}]({file}){{{identifier}alt="{plain(alt)}"}}'
    if "text/markdown" in data:
        if label.startswith("tbl-"):
            return f"::: {{#{label}}}\n{data['text/markdown']}\n\n{caption}\n:::"
        return str(data["text/markdown"])
    if "text/latex" in data:
        return str(data["text/latex"])
    return _verbatim(data.get("text/plain", ""))


def _kind(output: Any) -> str:
    return str(output.get("metadata", {}).get("nnlib", {}).get("kind", ""))


def _verbatim(text: str) -> str:
    """Return printed text as a block: no colours, of an overwritten line what stood there last, no endless words."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).replace("\r\n", "\n").rstrip()
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n")]
    text = re.sub(rf"(\S{{{LONGEST}}})(?=\S)", r"\1\n", "\n".join(lines))
    return _fenced("text", text) if text.strip() else ""


def _fenced(language: str, text: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
