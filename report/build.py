"""`python -m nnlib_report.build`: run the notebooks in a profile and typeset the report.

Quick: executed copies and the PDF go to build/, the notebooks stay as they are. Full: the outputs are written back into
notebooks/, the figures into figures/, the PDF into report/.
"""

import argparse
import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import nnlib
from nnlib import checkpoint, experiments

from . import markdown, readme
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


def build(profile: experiments.Profile, *, retrain: bool = False) -> Path:
    """Execute the notebooks, write them and their figures, and return the path of the PDF."""
    prepare_environment(profile, retrain=retrain)
    paths = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise FileNotFoundError("expected notebooks/NN_name.ipynb, found none")
    target = ROOT / "notebooks" if profile == "full" else ROOT / "build" / "notebooks"
    executed = []
    for path in paths:
        started = time.perf_counter()
        print(f"{path.name} ...", end=" ", flush=True)
        notebook = cleaned(execute(path))
        checkpoint.write_bytes(target / path.name, (nbformat.writes(notebook) + "\n").encode())
        executed.append((path, notebook))
        print(f"{time.perf_counter() - started:.0f} s", flush=True)
    pdf_path = ROOT / "report" / "report.pdf" if profile == "full" else ROOT / "build" / "report.pdf"
    merged = merge(executed, [("running.md", (HERE / "running.md").read_text())], metadata(profile))
    if profile == "full":
        document = markdown.from_notebook(merged, ROOT)
        for name, content in document.pictures.items():
            checkpoint.write_bytes(ROOT / "figures" / name, content)
        readme.update(ROOT / "README.md")
    pdf, _ = ReportPDFExporter().from_notebook_node(merged)
    checkpoint.write_bytes(pdf_path, pdf)
    print(f"{pdf_path.relative_to(ROOT)} written, {len(pdf) / 1e6:.1f} MB")
    return pdf_path


def prepare_environment(profile: str, *, retrain: bool) -> None:
    """Set what the kernels inherit: the profile, where the data is, and no progress bars in the outputs."""
    os.environ["NNLIB_PROFILE"] = profile
    os.environ["TQDM_DISABLE"] = "1"
    if retrain:
        os.environ["NNLIB_RETRAIN"] = str(time.time())  # once: what one notebook trains anew serves the next
    for name, default in (("NNLIB_DATA", "data"), ("NNLIB_RUNS", "runs")):
        os.environ[name] = str(Path(os.environ.get(name) or ROOT / default).absolute())


def execute(path: Path) -> Any:
    """Return the notebook with the outputs of a run in a new kernel. Raises RuntimeError in one line."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    try:
        client.execute()
    except CellExecutionError as error:
        failed = next(c for c in notebook.cells if any(o.output_type == "error" for o in c.get("outputs", [])))
        raise RuntimeError(f"{path.name}, cell {failed.id}: {error.ename}: {error.evalue}") from error
    return notebook


def cleaned(notebook: Any) -> Any:
    """Return the notebook without what differs from run to run. Raises ValueError for a path of this machine in it."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            text = output.get("text", "") or str(output.get("data", {}).get("text/plain", ""))
            if str(ROOT) in text or re.search(r"/(home|Users|root)/", text):
                raise ValueError(f"cell {cell.id} prints a path of this machine: {text[:80]!r}")
    return nbformat.from_dict(notebook)


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
