"""The second environment of the tests (``.venv-sim``: an old Python with numpy 1.26), and interpreters made of it."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

__all__ = ["OTHER_PYTHON", "needs_other_python", "with_packages"]

OTHER_PYTHON = Path(__file__).parents[2] / ".venv-sim" / "bin" / "python"

needs_other_python = pytest.mark.skipif(
    not OTHER_PYTHON.exists(),
    reason=f"{OTHER_PYTHON} is missing; `bash scripts/install_simulator_python.sh` makes it, with a Python 3.9 to 3.12 "
    "and a package index that pip reaches",
)


def with_packages(folder: Path, packages: Path, python: Path = OTHER_PYTHON) -> Path:
    """A program in ``folder`` that is ``python`` with further packages."""
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{python}" "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def say(python: Path, code: str) -> str:
    """What the other interpreter prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([str(python), "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
