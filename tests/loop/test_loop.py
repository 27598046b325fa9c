"""The whole way of the data on the toy suite, uninterrupted and killed at places spread over all its writes."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALLEST = Path(__file__).resolve().parent / "smallest.yaml"
KILLS = 20


@dataclass(frozen=True)
class Runs:
    out: Path  # of the run that nothing disturbed
    summary: dict[str, Any]
    killed: Path
    places: list[str]  # the files before or behind which the other was killed


def artifacts(out: Path) -> dict[str, str]:
    """Hash of every file a verb wrote, but for logs (they hold times of day) and hidden files (caches, truncated
    writes)."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "log.jsonl" and not any(p[0] == "." for p in path.relative_to(out).parts)
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("loop")
    command = [sys.executable, "-m", "tests.loop.killing", str(SMALLEST), str(folder), str(KILLS)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    summary = json.loads((folder / "whole" / "stdout").read_text())
    return Runs(folder / "whole" / "run", summary, folder / "killed" / "run", json.loads(process.stdout))


@pytest.mark.slow
def test_a_loop_leaves_policies_pairs_and_a_verdict(runs: Runs) -> None:
    out, summary = runs.out, runs.summary
    assert summary["policies"][0]["label"] == "SFT"
    assert (out.parent / str(summary["policy"]) / "config.json").exists()
    assert (out / "iteration-1" / "pair" / "pairs.jsonl").read_text().strip()
    assert summary["comparison"]["sentence"]
    collected = [json.loads((out / f"iteration-{k}" / "collect" / "done.json").read_text()) for k in (1, 2)]
    assert any(done["mixed"]["episodes"] for done in collected)
    assert json.loads((out / "loop.json").read_text())["iterations"] == 2


@pytest.mark.slow
def test_filtered_bc_has_the_same_start_rollouts_and_test_states(runs: Runs) -> None:
    out, summary = runs.out, runs.summary
    arm = summary["arms"][0]
    done = {name: json.loads((out / name / "done.json").read_text()) for name in ("cloning/train", "iteration-1/train")}
    assert done["cloning/train"]["method"] == "filtered-bc"
    assert done["cloning/train"]["start_policy_hash"] == done["iteration-1/train"]["start_policy_hash"]
    own, baseline = (json.loads((out.parent / row["evaluation"] / "results.json").read_text()) for row in arm["test"])
    states = [[(row["task"], row["initial_state"]) for row in results["per_episode"]] for results in (own, baseline)]
    assert states[0] == states[1]
    assert {state for _, state in states[0]} == {100_000, 100_001}
    assert own["policy_hash"] == done["iteration-1/train"]["policy_hash"]
    assert baseline["policy_hash"] == done["cloning/train"]["policy_hash"]
    assert arm["comparison"]["pairs"] == len(states[0])


@pytest.mark.slow
def test_killing_it_anywhere_changes_no_byte(runs: Runs) -> None:
    assert len(runs.places) == KILLS
    stages = {str(Path(place).parent).removeprefix("run/").rsplit("/store")[0] for place in runs.places}
    assert len(stages) >= 6, stages  # all over the loop
    assert artifacts(runs.killed) == artifacts(runs.out)
