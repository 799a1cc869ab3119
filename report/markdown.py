"""An executed notebook as one Markdown text and its pictures, for pandoc to read.

Cell options are the comments that Quarto knows: ``#| label: fig-overfit``, ``#| echo: true`` (code is hidden unless
the text discusses it), ``#| fig-cap:``, ``#| tbl-cap:``, ``#| fig-alt:``. A caption that code displayed comes first.
"""

import base64
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OPTION = re.compile(r"^#\|\s*([\w-]+)\s*:\s*(.*?)\s*$")
LABEL = re.compile(r"\{#((?:fig|tbl|eq|sec)-[\w-]+)")
CITED = re.compile(r"(?<![\w.])@([A-Za-z][\w-]*)")
EQUATION = re.compile(r"\$\$(?P<math>.+?)\$\$\s*\{#(?P<label>eq-[\w-]+)\}", re.DOTALL)
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
PICTURE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<path>[^)\s]+)\)")
# The HTML that people write in Markdown, as the Markdown it means.
HTML = (
    (re.compile(r"<(b|strong)>(.*?)</\1>", re.DOTALL), r"**\2**"),
    (re.compile(r"<(i|em)>(.*?)</\1>", re.DOTALL), r"*\2*"),
    (re.compile(r"<sub>(.*?)</sub>", re.DOTALL), r"~\1~"),
    (re.compile(r"<sup>(.*?)</sup>", re.DOTALL), r"^\1^"),
    (re.compile(r"<code>(.*?)</code>", re.DOTALL), r"`\1`"),
    (re.compile(r"<br\s*/?>"), "\\\n"),
    (re.compile(r'<img\s[^>]*?src="([^"]+)"[^>]*?alt="([^"]*)"[^>]*>'), r"![\2](\1)"),
    (re.compile(r'<img\s[^>]*?src="([^"]+)"[^>]*>'), r"![](\1)"),
)
TAG = re.compile(r"</?[a-zA-Z][^<>\n]*>")
PICTURES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}


@dataclass
class Document:
    """Markdown and the picture files it names."""

    text: str = ""
    pictures: dict[str, bytes] = field(default_factory=dict)


def from_notebook(notebook: Any, folder: Path) -> Document:
    """Return the Markdown of an executed notebook whose relative paths start in ``folder``.

    Raises ValueError that names the cell: a failed cell, HTML that is not understood, a picture that is not there.
    """
    document, parts = Document(), []
    for number, cell in enumerate(notebook.cells):
        place = f"{cell.metadata.get('nnlib_notebook', 'notebook')}, cell {cell.get('id', number)}"
        home = Path(cell.metadata.get("nnlib_folder", folder))
        if cell.cell_type == "markdown":
            parts.append(_prose(cell, document, home, place))
        elif cell.cell_type == "code":
            parts += _code(cell, document, place)
    document.text = "\n\n".join(part for part in parts if part) + "\n"
    return document


def check_references(text: str, keys: set[str]) -> bool:
    """Return whether ``text`` cites a work; ``keys`` are those of the bibliography.

    Raises ValueError that lists labels defined twice, and references and citations to what is not there.
    """
    plain = CODE.sub("", text)
    labels = LABEL.findall(plain)
    times = {name: labels.count(name) for name in labels}
    problems = [f"label {name} is defined {count} times" for name, count in times.items() if count > 1]
    cites = False
    for name in dict.fromkeys(CITED.findall(plain)):
        is_label = name.startswith(("fig-", "tbl-", "eq-", "sec-"))
        if is_label and name not in labels:
            problems.append(f"@{name} refers to a label that is nowhere defined (was its cell run?)")
        elif not is_label and name not in keys:
            problems.append(f"@{name} is not in the bibliography")
        cites |= not is_label
    if problems:
        raise ValueError("; ".join(problems))
    return cites


def options_of(source: str) -> tuple[dict[str, str], str]:
    """Return a code cell's options and its source without them."""
    lines = source.splitlines()
    options = {}
    while lines and (match := OPTION.match(lines[0])):
        options[match[1]] = match[2].strip("\"'")
        lines.pop(0)
    return options, "\n".join(lines).strip("\n")


def _prose(cell: Any, document: Document, folder: Path, place: str) -> str:
    def outside_code(text: str) -> str:
        for pattern, replacement in HTML:
            text = pattern.sub(replacement, text)
        if tag := TAG.search(re.sub(r"<https?://[^>]*>", "", re.sub(r"\$.*?\$", "", text, flags=re.DOTALL))):
            raise ValueError(f"{place}: HTML that cannot be typeset: {tag[0]}; write Markdown instead")
        text = EQUATION.sub(lambda m: f"[$${m['math'].strip()}$$]{{#{m['label']}}}", text)
        return PICTURE.sub(lambda m: f"![{m['alt']}]({_picture(m['path'], cell, document, folder, place)})", text)

    pieces = CODE.split(cell.source)
    return "".join(piece if CODE.fullmatch(piece) else outside_code(piece) for piece in pieces)


def _picture(path: str, cell: Any, document: Document, folder: Path, place: str) -> str:
    """Keep a picture that prose names, an attachment or a file, and return the name it is kept under."""
    name = f"{cell.get('id', 'cell')}-{Path(path.removeprefix('attachment:')).name}"
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
    parts = [f"```python\n{source}\n```"] if options.get("echo") == "true" and source else []
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
            return f'![{caption}]({file}){{{identifier}alt="{_attribute(alt)}"}}'
    if "text/markdown" in data:
        if label.startswith("tbl-"):
            return f"::: {{#{label}}}\n{data['text/markdown']}\n\n{caption}\n:::"
        return str(data["text/markdown"])
    if "text/latex" in data:
        return str(data["text/latex"])
    return _verbatim(data.get("text/plain", ""))


def _kind(output: Any) -> str:
    return str(output.get("metadata", {}).get("nnlib", {}).get("kind", ""))


def _attribute(text: str) -> str:
    """Return text as it may stand in an attribute: no markup, no quotes."""
    return re.sub(r"[*`$\\\[\]{}]", "", text).replace('"', "'").replace("\n", " ")


def _verbatim(text: str) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip()
    return f"```text\n{text}\n```" if text else ""
