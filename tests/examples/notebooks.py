"""The notebooks of examples/, and how a test runs one: from a copy, in a kernel that is this very interpreter."""

import os
import shutil
import sys
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

__all__ = ["FOLDER", "NOTEBOOKS", "run_notebook"]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "notebooks"
NOTEBOOKS = tuple(sorted(FOLDER.glob("*.ipynb")))


class ThisInterpreter(AsyncKernelManager):
    """Starts a kernel with the interpreter that runs the tests, whatever kernels the machine knows by name."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"],
            language="python",
        )


def run_notebook(path: Path, folder: Path, *, small: bool = True) -> nbformat.NotebookNode:
    """Run all cells of a copy in a new kernel, and return the copy with its outputs.

    Args:
        path: The notebook.
        folder: Where the copy lies and works.
        small: Whether a notebook that trains runs the small version of it.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raised; the message holds the cell and its traceback.
    """
    copy = Path(shutil.copy(path, folder))
    notebook = nbformat.read(copy, as_version=4)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(folder / "ipython"),  # nobody's own start-up files
        **({"GRAPE_NOTEBOOKS": "small"} if small else {}),
    }
    client = NotebookClient(
        notebook,
        kernel_manager_class=ThisInterpreter,
        timeout=None,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=environment)
    nbformat.write(notebook, copy)
    return notebook
