import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from grape.core.settings import save_settings
from grape.training.settings import SftSettings, TrainSettings
from tests.training.recordings import record, write_pairs, write_policy
from tests.training.test_sft import demonstrate

ROOT = Path(__file__).resolve().parents[2]


def settings_of(verb, folder):
    policy = write_policy(folder / "policy")
    unused = folder / "unused"
    if verb == "sft":
        data = (demonstrate(folder / "store"),)
        return SftSettings(
            data=data, out=unused, policy=policy, epochs=6, batch_size=8, checkpoint_every=3, holdout=0.2
        )
    store = record(folder / "store", policy)
    return TrainSettings(
        pairs=write_pairs(folder / "pairs", store),
        policy=policy,
        out=unused,
        pairs_per_update=1,
        epochs=4,
        checkpoint_every=2,
        lora_rank=2 if verb == "train-lora" else 0,
        reference="recomputed" if verb == "train-lora" else "recorded",
    )


@pytest.mark.slow
def test_killing_at_any_moment_changes_no_byte(tmp_path):
    cases = {name: tmp_path / name for name in ("train", "train-lora", "sft")}
    for name, folder in cases.items():
        folder.mkdir()
        save_settings(folder / f"{name.partition('-')[0]}.yaml", settings_of(name, folder))
    process = subprocess.run(
        [sys.executable, "-m", "tests.training.killing", "2", *map(str, cases.values())],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    results = json.loads(process.stdout)
    assert {folder: result["differing"] for folder, result in results.items()} == {folder: [] for folder in results}
    assert all(result["files"] > 8 for result in results.values())
    assert {result["hits"] for result in results.values()} == {6}  # three in each of two trials
