"""Running a notebook in a fresh kernel of this interpreter, and removing from it what differs from run to run."""

import asyncio
import re
import signal
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
HOME = re.compile(r"/(?:home|Users|root|tmp)/[^\s\"']*")


class ThisInterpreter(AsyncKernelManager):
    """Starts `python3` as this interpreter, whatever kernel of that name the user has installed."""

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


def execute(path: Path) -> Any:
    """Return the notebook with the outputs of a run. Raises RuntimeError in one line, KeyboardInterrupt on Ctrl-C."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        kernel_manager_class=ThisInterpreter,
        extra_arguments=["--log-level=CRITICAL"],  # its farewell when it is shut down in mid-cell is no news
        on_notebook_start=_let_ctrl_c_through,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        failed = next(c for c in notebook.cells if any(o.output_type == "error" for o in c.get("outputs", [])))
        raise RuntimeError(f"{path.name}, cell {failed.id}: {_last_line(error)}") from error
    except DeadKernelError as error:
        raise RuntimeError(f"{path.name}: the kernel died (out of memory?)") from error
    return notebook


def cleaned(notebook: Any, name: str, root: Path) -> Any:
    """Return the notebook without what differs from run to run. Raises ValueError for a path of this machine in it."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            texts = [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if k.startswith("text/"))]
            found = next((text for text in texts if str(root) in text or HOME.search(text)), None)
            if found is not None:
                raise ValueError(f"{name}, cell {cell.id}: prints a path of this machine: {found.strip()[:80]!r}")
    return nbformat.from_dict(notebook)


def _let_ctrl_c_through(**_: Any) -> None:
    """Give Ctrl-C back its meaning: nbclient would end the kernel and then trip over its absence."""
    asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)


def _last_line(error: CellExecutionError) -> str:
    """Return the error's name and first words; for a bare assertion, which has none, the line that failed."""
    words = next((line.strip() for line in COLOUR.sub("", str(error.evalue)).splitlines() if line.strip()), "")
    if not words:
        lines = COLOUR.sub("", str(error.traceback)).splitlines()
        words = next((re.sub(r"^-+>\s*\d+\s*", "", line) for line in lines if re.match(r"-+>", line)), "")
    return f"{error.ename}: {words}"
