"""The whole way of the data on the toy suite, uninterrupted and killed at random moments."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = Path(__file__).parent / "tiny.yaml"
KILLS = 20


def start(out: Path) -> subprocess.Popen[bytes]:
    """The loop, started where ``out`` has the same relative name in every run: some files hold paths."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "grape", "loop", "--config", str(TINY), "--out", out.name, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=out.parent,
    )


def artefacts(out: Path) -> dict[str, str]:
    """Hash of every file a verb wrote, but for logs (they hold times of day) and hidden files (caches, torn writes)."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "log.jsonl" and not any(p[0] == "." for p in path.relative_to(out).parts)
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object], float]:
    out = tmp_path_factory.mktemp("loop") / "run"
    began = time.monotonic()
    process = start(out)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr.decode()
    return out, json.loads(stdout), time.monotonic() - began


@pytest.mark.slow
def test_a_loop_leaves_policies_pairs_and_a_verdict(reference: tuple[Path, dict[str, object], float]) -> None:
    out, summary, _ = reference
    assert summary["policies"][0]["label"] == "SFT"  # type: ignore[index]
    assert (out / str(summary["policy"]) / "config.json").exists()
    assert (out / "iteration-1" / "pair" / "pairs.jsonl").read_text().strip()
    assert summary["comparison"]["sentence"]  # type: ignore[index]
    assert json.loads((out / "loop.json").read_text())["iterations"] == 2


@pytest.mark.slow
def test_cloning_has_the_same_start_rollouts_and_test_states(
    reference: tuple[Path, dict[str, object], float],
) -> None:
    out, summary, _ = reference
    arm = summary["arms"][0]  # type: ignore[index]
    done = {name: json.loads((out / name / "done.json").read_text()) for name in ("cloning/train", "iteration-1/train")}
    assert done["cloning/train"]["method"] == "filtered-bc"
    assert done["cloning/train"]["start_policy_hash"] == done["iteration-1/train"]["start_policy_hash"]
    own, clone = (json.loads((out / row["evaluation"] / "results.json").read_text()) for row in arm["test"])
    states = [[(row["task"], row["initial_state"]) for row in found["per_episode"]] for found in (own, clone)]
    assert states[0] == states[1]
    assert {state for _, state in states[0]} == {100_000, 100_001, 100_002, 100_003}
    assert own["policy_hash"] == done["iteration-1/train"]["policy_hash"]
    assert clone["policy_hash"] == done["cloning/train"]["policy_hash"]
    assert arm["comparison"]["pairs"] == len(states[0])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killing_it_anywhere_changes_no_byte(reference: tuple[Path, dict[str, object], float], tmp_path: Path) -> None:
    expected, _, seconds = reference
    out = tmp_path / "run"
    chance = random.Random(0)
    kills = 0
    while kills < KILLS:
        process = start(out)
        try:
            # Early moments repeat often enough by themselves: every restart passes them again.
            process.communicate(timeout=chance.uniform(0.25, 0.6) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
        else:
            assert process.returncode == 0
            seconds *= 0.8  # the machine is quicker now than it was for the reference
            if kills < KILLS:  # it got through: what was made is compared, then a new run is killed
                assert artefacts(out) == artefacts(expected)
                out = tmp_path / f"after-{kills}" / "run"
    process = start(out)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr.decode()
    assert artefacts(out) == artefacts(expected)
