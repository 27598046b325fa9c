import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from grape.core.files import read_json, read_jsonl
from grape.core.settings import save_settings
from grape.training import SftSettings, run_sft
from tests.training.recordings import write_policy
from tests.training.test_sft import demonstrate


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    settings = SftSettings(
        data=(demonstrate(tmp_path / "store", episodes=4, steps=5),),
        out=tmp_path / "one",
        policy=write_policy(tmp_path / "policy"),
        augment="openvla",
        max_updates=3,
        batch_size=7,
        micro_batch=2,
        holdout=0.25,
        lr=1e-2,
        device="cpu",
    )
    alone = run_sft(settings)
    save_settings(tmp_path / "two.yaml", replace(settings, out=tmp_path / "two"))
    shared = {
        **os.environ,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "grape", "sft", "--config", str(tmp_path / "two.yaml")]
    children = [
        subprocess.Popen(command, env={**shared, "RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    for child in children:
        _, said = child.communicate(timeout=1800)
        assert child.returncode == 0, said
    together = read_json(tmp_path / "two" / "done.json")
    assert together["holdout"] == pytest.approx(alone["holdout"], rel=1e-5)
    for one, two in zip(*(read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("one", "two")), strict=True):
        assert one == pytest.approx(two, rel=1e-4)
    weights = [load_file(tmp_path / name / "policy" / "model.safetensors") for name in ("one", "two")]
    for name, value in weights[0].items():
        # Adam divides small sums by themselves, so the order of a sum can show in the last digits.
        assert float((value - weights[1][name]).abs().max()) < 2e-5, name
