"""`python -m nnlib_report.build`: run the notebooks in a profile and typeset the report.

Quick: executed copies and the PDF go to build/, the notebooks stay as they are. Full: the outputs are written back into
notebooks/, the figures into figures/, the PDF into report/.
"""

import argparse
import contextlib
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat

import nnlib
from nnlib import checkpoint, experiments

from . import markdown, readme
from .execute import cleaned, execute
from .exporter import ReportPDFExporter
from .merge import merge

HERE = Path(__file__).parent
ROOT = HERE.parent
TITLE = "Neural networks from scratch, in NumPy"
AFTER = (
    "*CBC: Neural Networks*, a coursework report by D. Kontogouris and M. Tarasiou, "
    "Imperial College London, 2 March 2018, whose chapters this report follows [@kontogouris2018]."
)


def main() -> int:
    """Build the report and return the exit status; an error is one line."""
    parser = argparse.ArgumentParser(prog="nnlib_report.build", description=__doc__)
    parser.add_argument("--profile", choices=experiments.PROFILES, default="quick")
    parser.add_argument("--retrain", action="store_true", help="ignore the training records")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    try:
        build(options.profile, retrain=options.retrain)
    except KeyboardInterrupt:
        print("report: interrupted; the same command continues where it was", file=sys.stderr)
        return 1
    except Exception as error:
        if options.debug:
            raise
        print(f"report: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def build(profile: experiments.Profile, *, retrain: bool = False, root: Path = ROOT) -> Path:
    """Execute the notebooks of the checkout at ``root``, write them and their figures, and return the PDF's path."""
    os.environ.update(environment(profile, root, retrain=retrain))
    paths = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"expected notebooks/NN_name.ipynb in {root}, found none")
    full = profile == "full"
    target = root / "notebooks" if full else root / "build" / "notebooks"
    executed = []
    for path in paths:
        started = time.perf_counter()
        print(f"{path.name} ...", end=" ", flush=True)
        try:
            notebook = cleaned(execute(path), path.name, root)
        except BaseException:
            print("stopped", flush=True)
            raise
        checkpoint.write_bytes(target / path.name, (nbformat.writes(notebook) + "\n").encode())
        executed.append((path, notebook))
        print(f"{time.perf_counter() - started:.0f} s", flush=True)
    with contextlib.chdir(root):  # where the records are looked for
        merged = merge(executed, [("running.md", (HERE / "running.md").read_text())], metadata(profile))
        pdf, _ = ReportPDFExporter().from_notebook_node(merged)
        if full:
            write_figures(markdown.from_notebook(merged, root), root / "figures")
            readme.update(root / "README.md")
    pdf_path = root / ("report" if full else "build") / "report.pdf"
    checkpoint.write_bytes(pdf_path, pdf)
    print(f"{pdf_path.relative_to(root)} written, {len(pdf) / 1e6:.1f} MB")
    return pdf_path


def environment(profile: str, root: Path, *, retrain: bool) -> dict[str, str]:
    """Return what the kernels inherit: the profile, where data and runs are, and no progress bars in the outputs."""
    variables = {"NNLIB_PROFILE": profile, "TQDM_DISABLE": "1"}
    if retrain:
        variables["NNLIB_RETRAIN"] = str(time.time())  # once: what one notebook trains anew serves the next
    if "NNLIB_DATA" in os.environ or (root / "data").is_dir():
        variables["NNLIB_DATA"] = str(Path(os.environ.get("NNLIB_DATA") or root / "data").absolute())
    variables["NNLIB_RUNS"] = str(Path(os.environ.get("NNLIB_RUNS") or root / "runs").absolute())
    return variables


def write_figures(document: markdown.Document, folder: Path) -> None:
    """Write each labelled figure under its label, and remove those that no notebook draws any more."""
    figures = {name: content for name, content in document.pictures.items() if name.startswith("fig-")}
    for name, content in figures.items():
        checkpoint.write_bytes(folder / name, content)
    for old in folder.glob("fig-*"):
        if old.name not in figures:
            old.unlink()


def metadata(profile: experiments.Profile) -> dict[str, Any]:
    """Return what the title page says."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    day = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    found = [
        experiments.stored(name, profiles[profile], experiments.record_folder(profile))
        for name, profiles in experiments.EXPERIMENTS.items()
    ]
    sources = sorted({record.source for record in found if record is not None})
    meaning = {
        "quick": "quick: small networks on images that the library draws itself, trained while the report was built",
        "full": "full: real images, results from the stored training records",
    }
    return {
        "full": True, "title": TITLE, "authors": ["The nnlib project"], "date": day.date().isoformat(),
        "abstract": (HERE / "abstract.md").read_text(), "profile": meaning[profile], "after": AFTER,
        "data": "; ".join(sources), "version": nnlib.__version__,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
