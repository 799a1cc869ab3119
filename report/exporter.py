"""`jupyter nbconvert --to report-pdf`: a notebook as a typeset PDF, through pandoc and Typst.

Markdown goes through pandoc with a filter of our own into Typst, which writes PDF/A-2a and PDF/UA-1. The same notebook
gives the same bytes.
"""

import json
import re
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar

import pypandoc
import typst
from nbconvert.exporters.exporter import Exporter

from . import markdown, references
from .references import Part

HERE = Path(__file__).parent
BIBLIOGRAPHY = HERE / "references.bib"
TITLE = re.compile(r"^# (.+?)[ \t]*(?:\{#([\w-]+)\})?$", re.MULTILINE)


class ReportPDFExporter(Exporter):
    """Exports an executed notebook, or several merged into one, as PDF."""

    export_from_notebook = "Report (PDF)"
    output_mimetype = "application/pdf"
    # What a single notebook lacks; `merge` writes the report's own into the metadata. PDF/A wants a date: a fixed one.
    defaults: ClassVar[dict[str, Any]] = {
        "full": False, "title": "", "authors": [], "abstract": "", "profile": "", "data": "", "version": "",
        "after": "", "date": "2000-01-01",
    }  # fmt: skip

    def _file_extension_default(self) -> str:
        return ".pdf"

    def from_notebook_node(self, nb: Any, resources: Any = None, **kw: Any) -> tuple[bytes, Any]:  # type: ignore[override]
        """Return ``(pdf, resources)``. Raises ValueError in one line for what cannot be typeset."""
        nb, resources = super().from_notebook_node(nb, resources, **kw)
        found = resources.get("metadata", {})
        folder, name = Path(found.get("path") or "."), f"{found.get('name') or 'notebook'}.ipynb"
        meta = {**self.defaults, **nb.metadata.get("report", {})}
        document = markdown.from_notebook(nb, folder, name)
        if not meta["full"]:
            title, label = _take_title(document)
            meta["title"] = meta["title"] or title
            siblings = sorted(path for path in folder.glob("*.ipynb") if path.name != name)
            document.parts = references.name_elsewhere(document.parts, siblings, label)
        return to_pdf(document, meta), resources


def to_pdf(document: markdown.Document, meta: dict[str, Any]) -> bytes:
    """Return the PDF of a document. Raises ValueError in one line for what cannot be typeset."""
    keys = set(re.findall(r"^@\w+\{([^,\s]+),", BIBLIOGRAPHY.read_text(), re.MULTILINE))
    front = [Part(f"the {name}", meta[name]) for name in ("title", "abstract", "profile", "data", "after")]
    cites = references.check([*front, *document.parts], keys)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for file, content in document.pictures.items():
            (root / file).write_bytes(content)
        (root / "references.bib").write_bytes(BIBLIOGRAPHY.read_bytes())
        (root / "template.typ").write_bytes((HERE / "template.typ").read_bytes())
        main = root / "main.typ"
        # A single notebook's heading became the title, so its sections move up.
        main.write_text(_main(_body(document.parts, 0 if meta["full"] else -1), meta, cites))
        return _compile(main, root, meta["date"])


def to_typst(text: str, *, shift: int = 0) -> str:
    """Return the Typst markup of Markdown text, heading levels shifted. Raises ValueError for what pandoc refuses."""
    arguments = ["--fail-if-warnings", f"--lua-filter={HERE / 'filter.lua'}", f"--shift-heading-level-by={shift}"]
    try:
        return pypandoc.convert_text(text, "typst", format="markdown-raw_html", extra_args=arguments)
    except RuntimeError as error:
        raise ValueError(_pandoc_problem(" ".join(str(error).split()))) from error


def _take_title(document: markdown.Document) -> tuple[str, list[str]]:
    """Take the first heading out of the document; return its text and its label, if it has one, in a list."""
    for number, part in enumerate(document.parts):
        if match := TITLE.search(part.text):
            document.parts[number] = part._replace(text=part.text.replace(match[0], "", 1))
            return match[1], [match[2]] if match[2] else []
    return "Notebook", []


def _body(parts: list[Part], shift: int) -> str:
    """Return all parts as Typst, each after a comment that says where it stands."""
    text = "\n\n".join(f"```{{=typst}}\n// {part.place}\n```\n\n{part.text}" for part in parts)
    try:
        return to_typst(text, shift=shift)
    except ValueError:
        for part in parts:  # which one?
            try:
                to_typst(part.text, shift=shift)
            except ValueError as error:
                raise ValueError(f"{part.place}: {error}") from error
        raise


def _main(body: str, meta: dict[str, Any], cites: bool) -> str:
    day = date.fromisoformat(meta["date"])
    values = {
        "full": str(meta["full"]).lower(),
        "cites": str(cites).lower(),
        "authors": "(" + "".join(f"{_quoted(author)}, " for author in meta["authors"]) + ")",
        "date": f"datetime(year: {day.year}, month: {day.month}, day: {day.day})",
        "name": _quoted(markdown.plain(meta["title"])),
        "summary": _quoted(markdown.plain(meta["abstract"] or meta["title"])),
        "version": _quoted(meta["version"]),
    }
    for key in ("title", "abstract", "profile", "data", "after"):
        values[key] = f"[{to_typst(meta[key]).strip() if meta[key] else ''}]"
    lines = "".join(f"  {key}: {value},\n" for key, value in values.items())
    return f'#import "template.typ": horizontalrule, report\n#show: body => report((\n{lines}), body)\n{body}'


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _compile(main: Path, root: Path, day: str) -> bytes:
    stamp = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
    try:
        pdf, warnings = typst.compile_with_warnings(
            str(main),
            root=str(root),
            format="pdf",
            ignore_system_fonts=True,
            pdf_standards=["a-2a", "ua-1"],  # archivable, and accessible
            timestamp=stamp,
        )
    except typst.TypstError as error:
        raise ValueError(_typst_problem(error, main.read_text())) from error
    if warnings:
        raise ValueError("; ".join(_typst_problem(warning, main.read_text()) for warning in warnings))
    return bytes(pdf)


def _pandoc_problem(message: str) -> str:
    if formula := re.search(r"Could not convert TeX math (.*?), rendering as TeX", message):
        return f"formula that cannot be typeset: {formula[1]}"
    if ours := re.search(r"Error running filter [^:]*: (.*?)(?: stack traceback|$)", message):
        return ours[1]
    return f"pandoc: {message}"


def _typst_problem(error: Any, source: str) -> str:
    """Return what Typst says, and the cell it says it of."""
    hints = "; ".join(getattr(error, "hints", None) or [])
    shown = str(getattr(error, "diagnostic", "") or "")
    line = re.search(r"main\.typ:(\d+)", shown[max(shown.find("error:"), 0) :])
    before = source.splitlines()[: int(line[1])] if line else []
    places = [text[3:] for text in before if text.startswith("// ")]
    message = " ".join(f"{error.message} {hints}".split())
    return f"{places[-1]}: typst: {message}" if places else f"typst: {message}"
