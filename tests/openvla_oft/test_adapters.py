"""LoRA adapters on policies that decide in chunks: opened beside or merged, their gradients, and what they state."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from grape.core.errors import DataError, SettingsError
from grape.policies.opening import read_checkpoint_kind
from grape.policies.openvla import load_policy
from grape.policies.openvla_oft.conventions import PRESETS
from grape.policies.openvla_oft.loading import (
    OFTChoices,
    load_oft_policy,
    read_oft_config,
    read_oft_policy,
)
from grape.policies.openvla_oft.saving import save_oft_policy
from grape.policies.registry import read_checkpoint_info
from grape.training.lora import save_result
from tests.openvla_oft.conftest import LIBERO, make_nano, nano_inputs, observations, with_adapter

LANGUAGE = "language_model.model.layers.0.self_attn.q_proj"
PROJECTOR = "libero/proprio_projector--1_checkpoint.pt"
HEAD = "libero/action_head--1_checkpoint.pt"


@pytest.fixture(scope="module")
def nano_runs(tmp_path_factory):
    """A nano policy with two cameras and the robot's state, and an adapter on it, in ``base`` and ``run/policy``."""
    folder = tmp_path_factory.mktemp("nano")
    save_oft_policy(make_nano(cameras=("agentview", "wrist"), proprio_dim=4), folder / "base")
    save_result(with_adapter(load_oft_policy(folder / "base")), folder / "run", folder / "base")
    return folder


@pytest.fixture(scope="module")
def golden_runs(golden, tmp_path_factory):
    """An adapter on a published checkpoint that states nothing, trained under SimpleVLA-RL's conventions."""
    folder = tmp_path_factory.mktemp("golden")
    choices = OFTChoices("simplevla-rl", unnorm_key=LIBERO, center_crop=False)
    policy = with_adapter(load_oft_policy(golden.checkpoint(), choices))
    save_result(policy, folder / "run", golden.checkpoint())
    return folder


def test_an_adapter_opens_beside_the_weights_or_merged(nano_runs):
    adapter, base = nano_runs / "run/policy", load_oft_policy(nano_runs / "base")
    assert read_checkpoint_kind(adapter) == read_checkpoint_kind(nano_runs / "base")
    beside, merged = load_oft_policy(adapter), load_oft_policy(adapter, merge=True)
    assert beside.adapter is not None
    assert merged.adapter is None
    inputs = nano_inputs(base, ["open the drawer", "turn on the faucet"])
    tokens = torch.from_numpy(base.decide(inputs).tokens)
    executed = torch.tensor([3, 2])
    with torch.no_grad():
        logps = [one.decision_logps(inputs, tokens, executed) for one in (base, beside, merged)]
        with beside.adapter.disable_adapter():
            off = beside.decision_logps(inputs, tokens, executed)
    assert torch.equal(off, logps[0])
    torch.testing.assert_close(logps[1], logps[2], atol=1e-4, rtol=0)
    assert float((logps[1] - logps[0]).abs().min()) > 1e-2
    specs = [one.freeze().spec for one in (base, beside, merged)]
    assert specs[0].preprocessing_hash == specs[1].preprocessing_hash == specs[2].preprocessing_hash
    assert specs[1].policy_hash == specs[2].policy_hash != specs[0].policy_hash


def test_saving_merges_into_the_weights_and_the_separate_projector(nano_runs, tmp_path):
    beside = load_oft_policy(nano_runs / "run/policy")
    save_oft_policy(beside, tmp_path / "saved")
    names = {path.name for path in (nano_runs / "base").iterdir()}
    assert {path.name for path in (tmp_path / "saved").iterdir()} == names
    before, after = (load_file(folder / "model.safetensors") for folder in (nano_runs / "base", tmp_path / "saved"))
    changed = {name.removesuffix(".weight") for name in before if not torch.equal(before[name], after[name])}
    targets = set(beside.lora_targets())
    assert changed == {name for name in targets if not name.startswith("proprio_projector")}
    states = [
        torch.load(folder / "proprio_projector--0_checkpoint.pt", weights_only=True)
        for folder in (nano_runs / "base", tmp_path / "saved")
    ]
    assert states[0].keys() == states[1].keys()
    assert {name for name in states[0] if not torch.equal(states[0][name], states[1][name])} == {
        "fc1.weight",
        "fc2.weight",
    }
    assert load_oft_policy(tmp_path / "saved").spec.policy_hash == beside.spec.policy_hash


def test_the_gradient_reaches_all_of_the_adapter_and_nothing_else(nano_runs):
    policy = load_oft_policy(nano_runs / "run/policy")
    for name, parameter in policy.model.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    inputs = nano_inputs(policy, ["open the drawer", "turn on the faucet"])
    tokens = torch.from_numpy(policy.decide(inputs).tokens)
    policy.decision_logps(inputs, tokens, torch.tensor([3, 1])).sum().backward()
    for name, parameter in policy.model.named_parameters():
        if ".lora_" in name:
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().max()) > 0, name
        else:
            assert parameter.grad is None, name


def test_lora_targets(nano):
    language, projector, everything = (set(nano.lora_targets(k)) for k in ("language", "language+projector", "all"))
    assert language < projector < everything
    assert {"proprio_projector.fc1", "proprio_projector.fc2"} <= projector - language
    modules = dict(nano.model.named_modules())
    assert all(isinstance(modules[name], torch.nn.Linear) for name in everything)
    without = set(make_nano().lora_targets("all"))
    assert not [name for name in without if name.startswith("proprio_projector")]


def test_what_an_adapter_changes_of_the_statement_stands_in_its_pointer(golden, golden_runs):
    adapter = golden_runs / "run/policy"
    pointer = json.loads((adapter / "grape_adapter.json").read_text())
    assert pointer.keys() == {"base", "oft", "unnorm_key"}
    assert pointer["unnorm_key"] == LIBERO
    assert read_checkpoint_kind(golden.checkpoint()).name == "openvla"  # the base says nothing
    kind = read_checkpoint_kind(adapter)
    assert (kind.name, kind.stated, kind.head) == ("openvla-oft", True, "tokens")
    policy = load_oft_policy(adapter)
    assert policy.unnorm_key == LIBERO
    assert policy.conventions.to_json() == {**PRESETS["simplevla-rl"].to_json(), "center_crop": False}
    assert read_oft_config(adapter)[1] == policy.conventions
    assert read_checkpoint_info(str(adapter)).center_crop is False
    assert load_oft_policy(adapter, OFTChoices("rlinf")).conventions == PRESETS["rlinf"]
    batch = policy.act(observations(golden))
    base = golden.policy("simplevla-rl").act(observations(golden))
    assert batch.tokens.shape == (4, 8, 7)
    assert not np.array_equal(batch.logps, base.logps)
    with pytest.raises(SettingsError, match=r"an adapter of OpenVLA-OFT, not of OpenVLA.*grape_adapter\.json"):
        load_policy(adapter)


def test_the_pointer_repeats_nothing_that_the_base_states(nano_runs):
    assert json.loads((nano_runs / "run/policy/grape_adapter.json").read_text()) == {"base": "../../base"}


def test_statistics_that_the_base_has_not_travel_with_the_adapter(golden, golden_runs, tmp_path):
    adapter = shutil.copytree(golden_runs / "run/policy", tmp_path / "adapter")
    pointer = json.loads((adapter / "grape_adapter.json").read_text())
    (adapter / "grape_adapter.json").write_text(
        json.dumps({**pointer, "base": str(golden.checkpoint()), "unnorm_key": "mine"})
    )
    statistics = json.loads((golden.checkpoint() / "dataset_statistics.json").read_text())[LIBERO]
    (adapter / "dataset_statistics.json").write_text(json.dumps({"mine": statistics}))
    policy = read_oft_policy(adapter)
    assert policy.unnorm_key == "mine"
    assert "mine" in read_checkpoint_info(str(adapter)).norm_keys


def test_an_adapter_on_an_l1_policy_acts_and_has_no_log_probabilities(golden, tmp_path):
    base = golden.checkpoint(HEAD, PROJECTOR)
    choices = OFTChoices(unnorm_key=LIBERO, center_crop=False)
    save_result(with_adapter(load_oft_policy(base, choices)), tmp_path / "run", base)
    beside, merged = (load_oft_policy(tmp_path / "run/policy", merge=merge) for merge in (False, True))
    assert not beside.has_logps
    actions = [one.act(observations(golden, 8)).actions for one in (load_oft_policy(base, choices), beside, merged)]
    np.testing.assert_allclose(actions[1], actions[2], atol=1e-3)
    assert np.abs(actions[1] - actions[0]).max() > 1e-2


def by_peft(base, folder, names, *, targets, scale=0.05):
    """An adapter folder as PEFT alone writes it around OpenVLA's published network, layers named by their ends."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, (rows, columns) in names.items():
        prefix = f"base_model.model.{name}"
        tensors[f"{prefix}.lora_A.weight"] = torch.randn(2, columns, generator=generator)
        tensors[f"{prefix}.lora_B.weight"] = scale * torch.randn(rows, 2, generator=generator)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    return folder


@pytest.mark.parametrize("parts", [(), (PROJECTOR,), (HEAD, PROJECTOR)])
def test_an_adapter_of_other_software_leaves_the_separate_parts_alone(golden, tmp_path, parts):
    """Ends of names such as ``fc1`` fit layers of the action head, too, which PEFT never saw."""
    base, ends = golden.checkpoint(*parts), ("fc1", "fc2", "q_proj")
    preset = "" if len(parts) == 2 else "simplevla-rl"
    choices = OFTChoices(preset, unnorm_key=LIBERO, center_crop=False)
    plain = load_oft_policy(base, choices)
    names = {
        name: tuple(module.weight.shape)
        for name, module in plain.model.named_modules()
        if name.rpartition(".")[2] in ends and name.partition(".")[0] not in ("action_head", "proprio_projector")
    }
    adapter = by_peft(base, tmp_path / "adapter", names, targets=list(ends))
    if not preset:
        assert read_checkpoint_kind(adapter).head == "l1"
    elif parts:
        assert read_oft_config(adapter)[1] is None
        with pytest.raises(SettingsError, match="Choose a --preset"):
            load_oft_policy(adapter, OFTChoices(unnorm_key=LIBERO))
    beside, merged = (load_oft_policy(adapter, choices, merge=merge) for merge in (False, True))
    seen = observations(golden, 8)
    actions = [one.act(seen).normalized for one in (beside, merged)]
    if preset:
        assert np.mean(actions[0] == actions[1]) > 0.9
    else:
        np.testing.assert_allclose(actions[0], actions[1], atol=1e-3)
    assert np.abs(actions[0] - plain.act(seen).normalized).max() > 1e-2


def test_adapters_that_belong_to_nothing_or_to_other_parts_are_refused(golden, golden_runs, nano_runs, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "adapter_config.json").write_text("{}")
    for read in (read_checkpoint_kind, load_oft_policy):
        with pytest.raises(DataError, match="does not say which policy"):
            read(empty)
    # OpenVLA-OFT's trainer writes run/lora_adapter beside run/action_head--STEPS_checkpoint.pt
    adapter = by_peft(golden.checkpoint(), tmp_path / "run/lora_adapter", {LANGUAGE: (64, 64)}, targets=["q_proj"])
    shutil.copyfile(golden.folder / "heads" / HEAD, tmp_path / "run/action_head--1_checkpoint.pt")
    for read in (read_checkpoint_kind, lambda folder: load_oft_policy(folder, OFTChoices("rlinf", unnorm_key=LIBERO))):
        with pytest.raises(SettingsError, match=r"together with action_head--1_checkpoint\.pt.*run"):
            read(adapter)
    nested = shutil.copytree(golden_runs / "run/policy", tmp_path / "nested")
    (nested / "grape_adapter.json").write_text(json.dumps({"base": str(golden_runs / "run/policy")}))
    with pytest.raises(DataError, match="an adapter itself"):
        load_oft_policy(nested, OFTChoices("rlinf", unnorm_key=LIBERO))
    foreign = shutil.copytree(nano_runs / "run/policy", tmp_path / "foreign")
    (foreign / "grape_adapter.json").write_text(json.dumps({"base": str(golden.checkpoint())}))
    with pytest.raises(DataError, match="does not fit"):
        load_oft_policy(foreign, OFTChoices("rlinf", unnorm_key=LIBERO))
    with pytest.raises(SettingsError, match="4-bit"):
        load_oft_policy(nano_runs / "run/policy", merge=True, load_in_4bit=True)


def test_what_does_not_fit_is_found_before_weights_are_read(golden, golden_runs, tmp_path):
    base = shutil.copytree(golden.checkpoint(), tmp_path / "base")
    (base / "model.safetensors").write_bytes(b"cut")
    adapter = shutil.copytree(golden_runs / "run/policy", tmp_path / "adapter")
    pointer = json.loads((adapter / "grape_adapter.json").read_text())
    (adapter / "grape_adapter.json").write_text(json.dumps({**pointer, "base": "../base"}))
    assert read_checkpoint_kind(adapter).stated
    assert read_oft_config(adapter)[0].unnorm_key == LIBERO
    assert read_oft_policy(adapter).layout.chunk == 8
    with pytest.raises(DataError, match=r"model\.safetensors is truncated"):
        load_oft_policy(adapter)
    (adapter / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"adapter_model\.safetensors is truncated"):
        load_oft_policy(adapter)
