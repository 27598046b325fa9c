import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from grape.core.errors import SettingsError
from grape.core.files import read_json, read_jsonl
from grape.core.settings import save_settings
from grape.policies.openvla_oft.loading import load_oft_policy
from grape.policies.openvla_oft.saving import save_oft_policy
from grape.training import SftSettings, TrainSettings, run_sft, run_train
from grape.training.distributed import ProcessGroup
from grape.training.process_group import free_port
from tests.openvla_oft.conftest import make_nano
from tests.training.recordings import record, record_chunks, snapshot, write_pairs, write_policy, write_scores
from tests.training.test_sft import demonstrate
from tests.training.two_processes import CASES, CHUNK_CASES, settings_of

ROOT = Path(__file__).resolve().parents[2]


@given(weights=st.lists(st.integers(0, 400), max_size=30), size=st.integers(1, 9))
def test_every_item_is_taken_once_and_work_is_even(weights, size):
    shares = [ProcessGroup(rank, size, "cpu").share(weights) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == list(range(len(weights)))
    loads = [sum(weights[item] for item in share) for share in shares]
    assert max(loads) - min(loads) <= max(weights, default=0)


def test_one_gpu_cannot_be_named_for_several_processes(tmp_path, monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    policy = write_policy(tmp_path / "policy")
    pairs = write_pairs(tmp_path / "pairs", record(tmp_path / "store", policy))
    with pytest.raises(SettingsError, match="one GPU for several processes"):
        run_train(TrainSettings(pairs=pairs, policy=policy, out=tmp_path / "run", device="cuda:1"))


def run_in_two_processes(folder: Path) -> None:
    """Train what ``folder`` holds with ``tests.training.two_processes``."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.run(
        [*command, "-m", "tests.training.two_processes", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]


@pytest.mark.slow
def test_two_processes_end_with_the_weights_of_one(tmp_path):
    policy = write_policy(tmp_path / "policy")
    store = record(tmp_path / "store", policy)
    write_scores(tmp_path / "scores", store, (3.0, 0.5, 2.0, 0.5, 2.5, 1.0))
    settings = TrainSettings(
        pairs=write_pairs(tmp_path / "pairs", store),
        policy=policy,
        out=tmp_path / "unused",
        pairs_per_update=3,
        epochs=4,
        lr=1e-3,
        micro_batch=4,
        device="cpu",
    )
    save_settings(tmp_path / "train.yaml", settings)
    run_in_two_processes(tmp_path)
    assert [(tmp_path / f"told-{rank}").read_text() for rank in range(2)] == ["Because.", "Because."]
    for name, changes in CASES.items():
        alone, together = tmp_path / "one" / name, tmp_path / "two" / name
        run_train(replace(settings_of(settings, tmp_path, name), out=alone))
        file = "adapter_model.safetensors" if "lora_rank" in changes else "model.safetensors"
        one, two = load_file(alone / "policy" / file), load_file(together / "policy" / file)
        for key, value in one.items():
            # The bias of attention's keys has no effect: its gradient is rounding noise, which AdamW blows up.
            if not key.endswith("qkv.bias"):
                # One process adds the terms' gradients, FSDP their weights: AdamW sees another rounding.
                limit = 1e-5 if name == "sharded" else 1e-6
                assert float((value - two[key]).abs().max()) <= limit, (name, key)
        for a, b in zip(read_jsonl(alone / "metrics.jsonl"), read_jsonl(together / "metrics.jsonl"), strict=True):
            if name == "sharded":  # which has no norms of the terms
                a = {key: value for key, value in a.items() if not key.startswith("grad_norm/")}
            assert b == pytest.approx(a, rel=1e-4, abs=1e-5)
        assert read_json(together / "done.json")["updates"] == read_json(alone / "done.json")["updates"]
    whole, again = snapshot(tmp_path / "two" / "sharded"), snapshot(tmp_path / "two" / "sharded-again")
    assert whole["policy/model.safetensors"] == again["policy/model.safetensors"]
    assert whole["metrics.jsonl"] == again["metrics.jsonl"]


@pytest.mark.slow
def test_two_processes_train_a_policy_that_decides_in_chunks_as_one_does(tmp_path):
    policy = make_nano(cameras=("agentview", "wrist"), proprio_dim=4)
    save_oft_policy(policy, tmp_path / "policy")
    store = record_chunks(tmp_path / "store", load_oft_policy(tmp_path / "policy").freeze())
    settings = TrainSettings(
        pairs=write_pairs(tmp_path / "pairs", store),
        policy=tmp_path / "policy",
        out=tmp_path / "unused",
        pairs_per_update=3,
        epochs=3,
        lr=1e-3,
        micro_batch=4,
        device="cpu",
    )
    save_settings(tmp_path / "train.yaml", settings)
    (tmp_path / "chunks").touch()
    run_in_two_processes(tmp_path)
    for name, changes in CHUNK_CASES.items():
        alone, together = tmp_path / "one" / name, tmp_path / "two" / name
        run_train(replace(settings, **{**changes, "sharding": "none"}, out=alone))
        one, two = (list(load_oft_policy(folder / "policy").module.parameters()) for folder in (alone, together))
        difference = torch.cat([(a - b).detach().abs().flatten() for a, b in zip(one, two, strict=True)])
        # AdamW moves what has a gradient of rounding noise alone anywhere within the learning rate.
        assert float(difference.quantile(0.99)) < 1e-5, name
        assert float(difference.max()) < 9e-3, name
        for a, b in zip(read_jsonl(alone / "metrics.jsonl"), read_jsonl(together / "metrics.jsonl"), strict=True):
            assert a["frames"] == b["frames"]
            for key in ("loss", "loss/nll", "logps/chosen", "grad_norm"):  # the first margins are rounding noise alone
                assert b[key] == pytest.approx(a[key], rel=1e-3, abs=1e-4), (name, key)


@pytest.mark.slow
def test_two_tasks_of_slurm_fine_tune_as_one_process_does(tmp_path):
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
    shared = {  # what srun sets for its tasks
        **os.environ,
        "SLURM_JOB_ID": "12",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURM_STEP_NODELIST": "localhost",
        "MASTER_PORT": str(free_port("127.0.0.1")),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "grape", "sft", "--config", str(tmp_path / "two.yaml")]
    children = [
        subprocess.Popen(
            command, env={**shared, "SLURM_PROCID": task, "SLURM_LOCALID": task}, stderr=subprocess.PIPE, text=True
        )
        for task in ("0", "1")
    ]
    for child in children:
        _, stderr = child.communicate(timeout=1800)
        assert child.returncode == 0, stderr
    together = read_json(tmp_path / "two" / "done.json")
    assert together["holdout"] == pytest.approx(alone["holdout"], rel=1e-5)
    for one, two in zip(*(read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("one", "two")), strict=True):
        assert one == pytest.approx(two, rel=1e-4)
    weights = [load_file(tmp_path / name / "policy" / "model.safetensors") for name in ("one", "two")]
    for name, value in weights[0].items():
        # Adam divides small sums by themselves, so the order of a sum can show in the last digits.
        assert float((value - weights[1][name]).abs().max()) < 2e-5, name
