"""``examples/tpo_in_one_file.py`` is short, and two of its updates are two of the trainer's."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import grape
from grape.core.files import read_jsonl
from grape.policies.openvla_oft.saving import save_oft_policy
from grape.training import TrainSettings, run_train
from tests.openvla_oft.conftest import make_nano
from tests.training.recordings import record, record_chunks, write_pairs, write_policy

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "tpo_in_one_file.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("tpo_in_one_file", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_short():
    code = [line for line in EXAMPLE.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(code) < 100


def compare(example, store, pairs, policy, out):
    losses = example.main(pairs, policy, out / "example")
    settings = TrainSettings(pairs=pairs, policy=policy, out=out / "trainer", epochs=2, lr=example.LR, micro_batch=8)
    run_train(settings)
    rows = read_jsonl(settings.out / "metrics.jsonl")
    assert len(rows) == 2
    assert losses == pytest.approx([row["loss"] for row in rows], rel=1e-5)
    names = ("example", "trainer/policy")
    weights = [load_file(out / name / "model.safetensors") for name in names]
    start, first, second = (
        torch.cat([some[name].flatten() for name in sorted(some)])
        for some in (load_file(policy / "model.safetensors"), *weights)
    )
    # Biases of attention keys have no gradient but rounding noise, in whose direction AdamW goes at full length.
    same = torch.isclose(first - start, second - start, rtol=1e-2, atol=1e-6)
    assert same.double().mean() > 0.99
    assert ((first - start).abs() > 0.5 * example.LR).double().mean() > 0.5
    episode = store.read("toy-1")
    actions, before = [], example.decision_logps(grape.load_policy(policy), episode, torch.arange(episode.decisions))
    for name in names:
        actions.append(example.decision_logps(grape.load_policy(out / name), episode, torch.arange(episode.decisions)))
    assert actions[0] == pytest.approx(actions[1], abs=1e-3)
    assert float((actions[0] - before).abs().max()) > 1e-2


def test_two_updates_are_the_trainers(example, tmp_path):
    policy = write_policy(tmp_path / "policy")
    store = record(tmp_path / "store", policy)
    pairs = write_pairs(tmp_path / "pairs", store, ((0, 1), (2, 3), (1, 5), (4, 5)))
    compare(example, store, pairs, policy, tmp_path)


def test_decisions_on_several_actions_are_too(example, tmp_path):
    (tmp_path / "policy").mkdir()
    save_oft_policy(make_nano(cameras=("agentview", "wrist"), proprio_dim=4), tmp_path / "policy")
    store = record_chunks(tmp_path / "store", grape.load_policy(tmp_path / "policy"))
    compare(example, store, write_pairs(tmp_path / "pairs", store), tmp_path / "policy", tmp_path)
