"""The 7 B benchmark at a tiny size: it takes a real step, and refuses where memory is short."""

import json
import subprocess
import sys

import pytest

from tests.architecture.allowed_imports import ROOT

SCRIPT = ROOT / "benchmarks" / "openvla_7b_shape.py"


def run(*options):
    return subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, timeout=1800)


def test_a_tiny_step_has_the_estimated_size(tmp_path):
    done = run("--shape", "tiny", "--threads", "1", "--frames", "2", "--micro-batch", "2", "--out", str(tmp_path / "r"))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((tmp_path / "r").read_text())
    assert result["trajectories"] == [2, 2]
    assert result["parameters"] > 4_000_000 > result["trainable_parameters"] > 100_000
    assert result["gradient_norm"] > 0
    assert result["peak_memory_gb"] == pytest.approx(result["estimated_peak_memory_gb"], abs=0.15)
    assert set(result["seconds"]) == {"build", "adapters", "forward_backward", "step"}


def test_too_little_memory_is_said_before_anything_is_built():
    done = run("--shape", "tiny", "--needs-gib", "1e6")
    assert done.returncode != 0
    assert "needs 1000000.0 GiB of memory" in done.stderr
    assert "Traceback" not in done.stderr
    assert "build" not in done.stderr
