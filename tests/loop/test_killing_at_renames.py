import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_verb_killed_at_a_rename_and_run_again_leaves_what_one_never_killed_does(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "tests.loop.killing_at_renames", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    results = json.loads(process.stdout)
    assert {verb: differing for verb, (_, differing) in results.items()} == {verb: [] for verb in results}
    assert all(kills for kills, _ in results.values())
