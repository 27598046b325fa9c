"""A policy of another distribution trains through the seam alone: its own network, no adapters, no estimate."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from grape.core.errors import CompatibilityError, PolicyError, SettingsError
from grape.core.files import content_hash
from grape.policies import registry
from grape.policies.base import ActionBatch, PolicySpec, TrainablePolicy
from grape.policies.types import PolicyType
from grape.training.settings import TrainSettings
from grape.training.tpo import run_train
from tests.training.recordings import record_chunks, write_pairs

BINS, CHUNK, DIM, SIDE = 5, 2, 7, 8


class TinyPolicy(TrainablePolicy):
    """One linear layer from an image's pixels to the bins of two actions."""

    def __init__(self, dtype=torch.float32):
        generator = torch.Generator().manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(SIDE * SIDE * 3, CHUNK * DIM * BINS), torch.nn.Dropout(0.5))
        for parameter in self.net.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 20
        self.net.to(dtype)

    @property
    def module(self):
        return self.net

    @property
    def spec(self):
        weights = {name: value.tolist() for name, value in self.net.state_dict().items()}
        return PolicySpec(
            DIM, SIDE, "", "", content_hash(weights), "tiny", chunk=CHUNK, support="window", logp_temperature=1.0
        )

    def encode(self, observations, *, features=None):
        return torch.stack([torch.from_numpy(seen.image / 255.0).float().flatten() for seen in observations])

    def _logps(self, inputs):
        return self.net(inputs).reshape(-1, CHUNK, DIM, BINS).log_softmax(-1)

    def token_logps(self, inputs, tokens):
        return self._logps(inputs).gather(-1, tokens[..., None])[..., 0]

    def act(self, observations, *, temperature=0.0, seeds=None):
        self.net.eval()
        with torch.no_grad():
            logps = self._logps(self.encode(observations))
        tokens = torch.stack(
            [torch.from_numpy(np.random.default_rng(seed).integers(0, BINS, (CHUNK, DIM))) for seed in seeds]
        )
        values = logps.gather(-1, tokens[..., None])[..., 0].numpy()
        return ActionBatch(tokens.numpy() / BINS, tokens.numpy().astype(np.int32), values, "window", 1.0)

    def save(self, folder: Path):
        save_file(self.net.state_dict(), folder / "tiny.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "tiny"}))


class TinyType(PolicyType):
    dtype = torch.float32

    def recognizes(self, config, names):
        return config.get("model_type") == "tiny"

    def open(self, path, options):
        policy = TinyPolicy()
        policy.net.load_state_dict(load_file(Path(path) / "tiny.safetensors"))
        policy.net.to(self.dtype)
        return policy


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setitem(registry._BUILTIN, "tiny", (__name__, "TinyType"))
    policy = TinyPolicy()
    (tmp_path / "policy").mkdir()
    policy.save(tmp_path / "policy")
    store = record_chunks(tmp_path / "store", policy, ((2, 2, 1), (2, 2, 2, 1), (1, 2), (2,), (2, 1), (2, 2)))
    pairs = write_pairs(tmp_path / "pairs", store)
    place = Path(f"tiny:{tmp_path / 'policy'}")
    return TrainSettings(pairs=pairs, policy=place, out=tmp_path / "run", epochs=2, lr=1e-2)


def test_it_learns_preferences_without_dropout(world):
    summary = run_train(world)
    assert summary["parity"]["mean_abs"] < 1e-6  # with dropout it would be far off
    assert summary["metrics"]["rewards/margins"] > 0
    before, after = (
        load_file(place / "tiny.safetensors") for place in (world.out.parent / "policy", world.out / "policy")
    )
    assert not torch.equal(before["0.weight"], after["0.weight"])
    trained = registry.open_policy(f"tiny:{world.out / 'policy'}")
    assert trained.spec.policy_hash == summary["policy_hash"] != summary["start_policy_hash"]


def test_a_plan_says_that_it_has_no_estimate(world):
    plan = run_train(replace(world, dry_run=True))
    assert (plan["steps"], plan["decisions"], plan["chunk"]) == (24, 14, CHUNK)
    assert "cannot be profiled" in plan["estimate"]
    assert "peak_memory_gb" not in plan


def test_what_it_cannot_do_is_refused_before_the_first_update(world, monkeypatch):
    for changes, flag in (({"lora_rank": 4}, "--lora-rank"), ({"activation_checkpointing": True}, "--activation")):
        with pytest.raises(SettingsError) as caught:
            run_train(replace(world, out=world.out / flag, **changes))
        assert flag in caught.value.hint
    monkeypatch.setattr(TinyType, "dtype", torch.bfloat16)
    with pytest.raises(PolicyError, match=r"opened with weights in torch\.bfloat16"):
        run_train(world)
    monkeypatch.setattr(TinyType, "open", lambda self, path, options: SimpleNamespace(spec=TinyPolicy().spec))
    with pytest.raises(CompatibilityError, match="cannot be trained"):
        run_train(world)


def test_adapters_of_a_type_that_keeps_none_are_merged_in_the_end(world, monkeypatch):
    monkeypatch.setattr(TinyPolicy, "lora_targets", lambda self, which="all": ["0"], raising=False)
    summary = run_train(replace(world, lora_rank=2))
    before, after = (
        load_file(place / "tiny.safetensors") for place in (world.out.parent / "policy", world.out / "policy")
    )
    assert before.keys() == after.keys()
    change = after["0.weight"] - before["0.weight"]
    assert torch.linalg.matrix_rank(change.double(), rtol=1e-4) == 2
    torch.testing.assert_close(after["0.bias"], before["0.bias"])
    assert registry.open_policy(f"tiny:{world.out / 'policy'}").spec.policy_hash == summary["policy_hash"]
