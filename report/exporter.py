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

from . import markdown

HERE = Path(__file__).parent
BIBLIOGRAPHY = HERE / "references.bib"


class ReportPDFExporter(Exporter):
    """Exports an executed notebook, or several merged into one, as PDF."""

    export_from_notebook = "Report (PDF)"
    output_mimetype = "application/pdf"
    # What a single notebook lacks; `merge` writes the report's own into the metadata.
    defaults: ClassVar[dict[str, Any]] = {
        "full": False, "title": "", "authors": [], "abstract": "", "profile": "", "data": "", "version": "",
        "after": "", "date": "2000-01-01",
    }  # fmt: skip

    def _file_extension_default(self) -> str:
        return ".pdf"

    def from_notebook_node(self, nb: Any, resources: Any = None, **kw: Any) -> tuple[bytes, Any]:  # type: ignore[override]
        """Return ``(pdf, resources)``. Raises ValueError in one line for what cannot be typeset."""
        nb, resources = super().from_notebook_node(nb, resources, **kw)
        folder = Path(resources.get("metadata", {}).get("path") or ".")
        meta = {**self.defaults, **nb.metadata.get("report", {})}
        document = markdown.from_notebook(nb, folder)
        if not meta["full"]:
            meta["title"] = meta["title"] or _first_heading(document)
        return to_pdf(document, meta), resources


def to_pdf(document: markdown.Document, meta: dict[str, Any]) -> bytes:
    """Return the PDF of a Markdown document. Raises ValueError in one line for what cannot be typeset."""
    keys = set(re.findall(r"^@\w+\{([^,\s]+),", BIBLIOGRAPHY.read_text(), re.MULTILINE))
    cites = markdown.check_references(document.text + meta["abstract"], keys)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for file, content in document.pictures.items():
            (root / file).write_bytes(content)
        (root / "references.bib").write_bytes(BIBLIOGRAPHY.read_bytes())
        (root / "template.typ").write_bytes((HERE / "template.typ").read_bytes())
        main = root / "main.typ"
        # A single notebook's heading became the title, so its sections move up.
        main.write_text(_main(to_typst(document.text, shift=0 if meta["full"] else -1), meta, cites))
        return _compile(main, root, meta["date"])


def to_typst(text: str, *, shift: int = 0) -> str:
    """Return the Typst markup of Markdown text, heading levels shifted. Raises ValueError for what pandoc refuses."""
    arguments = ["--fail-if-warnings", f"--lua-filter={HERE / 'filter.lua'}", f"--shift-heading-level-by={shift}"]
    try:
        return pypandoc.convert_text(text, "typst", format="markdown-raw_html", extra_args=arguments)
    except RuntimeError as error:
        raise ValueError(f"pandoc: {_one_line(str(error))}") from error


def _main(body: str, meta: dict[str, Any], cites: bool) -> str:
    day = date.fromisoformat(meta["date"])
    quoted = {key: json.dumps(meta[key], ensure_ascii=False) for key in ("title", "version")}
    blocks = {key: to_typst(meta[key]).strip() for key in ("abstract", "profile", "data", "after")}
    authors = "".join(f"{json.dumps(author, ensure_ascii=False)}, " for author in meta["authors"])
    plain = " ".join(re.sub(r"[*`$@\[\]]", "", meta["abstract"]).split())
    summary = json.dumps(plain or meta["title"], ensure_ascii=False)
    lines = [
        '#import "template.typ": report',
        "#show: body => report((",
        f"  full: {str(meta['full']).lower()}, cites: {str(cites).lower()}, authors: ({authors}), summary: {summary},",
        f"  date: datetime(year: {day.year}, month: {day.month}, day: {day.day}),",
        *(f"  {key}: {value}," for key, value in quoted.items()),
        *(f"  {key}: [{value}]," for key, value in blocks.items()),
        "), body)",
        "",
    ]
    return "\n".join(lines) + body


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
        hints = "; ".join(getattr(error, "hints", None) or [])
        raise ValueError(f"typst: {_one_line(f'{error.message} {hints}')}") from error
    if warnings:
        raise ValueError(f"typst: {_one_line('; '.join(str(warning) for warning in warnings))}")
    return bytes(pdf)


def _first_heading(document: markdown.Document) -> str:
    """Return the first heading's text and take it out: it becomes the title."""
    match = re.search(r"^# (.+?)\s*(\{#[\w-]+\})?$", document.text, re.MULTILINE)
    if match is None:
        return "Notebook"
    document.text = document.text.replace(match[0], "", 1)
    return match[1]


def _one_line(text: str) -> str:
    return " ".join(text.split())
