"""The laboratory's page, and the README, tell what its committed cells hold."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest

ROOT = Path(__file__).resolve().parents[2]
ARMS = ("sft", "tpo", "anchor-only", "filtered-bc-constant", "bc-top-constant", "random-rejected")


def test_the_page_holds_the_tables_of_the_committed_cells() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "laboratory.py"), "--check"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    ("study", "row"),
    [("metaworld-middle", "Meta-World, "), ("libero-middle", "LIBERO-Goal, "), ("simpler-middle", "SimplerEnv, ")],
)
def test_means_of_the_readme_are_those_of_the_cells(study: str, row: str) -> None:
    rates: dict[str, list[float]] = {}
    for path in (ROOT / "docs/results/laboratory" / study).glob("*.json"):
        cell = json.loads(path.read_text())
        outcomes = cell["rounds"][-1]["outcomes"]
        rates.setdefault(cell["arm"], []).append(100 * fmean(outcome[3] for outcome in outcomes))
    means = "".join(f" {fmean(rates[arm]):.0f} % |" if arm in rates else " |" for arm in ARMS)
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| {row}")]
    assert [line.endswith(f" |{means}") for line in lines] == [True]
