"""The report as people open it: the committed one, and under CI the one built in a fresh clone."""

import os
import re
from pathlib import Path

import pytest
from pypdf import PdfReader

ROOT = Path(__file__).parents[1]
NOTEBOOKS = list((ROOT / "notebooks").glob("*.ipynb"))
BUILT = os.environ.get("NNLIB_BUILT_REPORT")
PATHS = [ROOT / "report" / "report.pdf", *([Path(BUILT)] if BUILT else [])]


@pytest.fixture(scope="module", params=PATHS, ids=lambda path: path.parent.name)
def reader(request):
    return PdfReader(request.param)


@pytest.fixture(scope="module")
def pages(reader):
    return [" ".join(page.extract_text().split()) for page in reader.pages]


@pytest.mark.slow
def test_every_chapter_is_there_and_no_page_is_empty(reader, pages):
    assert len(pages) > 30
    assert all(len(text) > 40 for text in pages)
    chapters = [entry.title for entry in reader.outline if not isinstance(entry, list)]
    assert len(chapters) == len(NOTEBOOKS) + 2  # how to run the code, references
    assert chapters[-1].endswith("References")


@pytest.mark.slow
def test_figures_tables_and_equations_are_numbered_throughout(pages):
    text = " ".join(pages)
    for kind in ("Figure", "Table"):
        numbers = sorted({int(number) for number in re.findall(rf"{kind} (\d+):", text)})
        assert numbers == list(range(1, len(numbers) + 1)), kind
        assert len(numbers) >= 6
        assert max(int(number) for number in re.findall(rf"{kind} (\d+)", text)) <= len(numbers)


@pytest.mark.slow
def test_no_reference_citation_or_glyph_is_missing(pages):
    text = " ".join(pages)
    assert not re.search(r"\?\?|@(fig|tbl|eq|sec)-|\[@", text)
    assert "�" not in text


@pytest.mark.slow
def test_fonts_are_embedded_and_the_file_is_tagged(reader):
    catalog = reader.trailer["/Root"]
    assert catalog["/MarkInfo"]["/Marked"]
    assert catalog["/Lang"].startswith("en")
    for page in reader.pages:
        for font in page["/Resources"].get("/Font", {}).values():
            descendants = font.get_object().get("/DescendantFonts", [font])
            descriptor = descendants[0].get_object()["/FontDescriptor"].get_object()
            assert any(name.startswith("/FontFile") for name in descriptor)


@pytest.mark.slow
def test_the_title_page_names_profile_data_and_source(pages):
    for word in ("Abstract", "Profile", "Data", "version", "Kontogouris"):
        assert word in pages[0]
