"""The page of the laboratory tells what its committed cells do."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_holds_the_tables_of_the_committed_cells() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "laboratory.py"), "--check"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
