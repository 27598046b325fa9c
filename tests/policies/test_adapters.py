"""LoRA adapters: attached, switched off, merged, saved, and refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from grape.core.errors import DataError, SettingsError
from grape.policies.openvla import load_policy, save_policy


@pytest.fixture(scope="module")
def adapter_home(nano, tmp_path_factory):
    """A base policy and a trained adapter beside it."""
    folder = tmp_path_factory.mktemp("adapters")
    save_policy(nano, folder / "base")
    policy = load_policy(folder / "base")
    config = LoraConfig(r=4, lora_alpha=8, target_modules=policy.lora_targets())
    wrapper = get_peft_model(policy.model, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(0.0, 0.1, generator=generator)
    wrapper.save_pretrained(str(folder / "adapter"))
    (folder / "adapter/grape_adapter.json").write_text(json.dumps({"base": "../base"}))
    return folder


def test_every_named_layer_is_wrapped(nano, adapter_home):
    targets = nano.lora_targets()
    modules = dict(nano.model.named_modules())
    assert all(isinstance(modules[name], torch.nn.Linear) for name in targets)
    assert len(targets) == 3 * 7 + 2
    saved = load_file(adapter_home / "adapter/adapter_model.safetensors")
    assert len(saved) == 2 * len(targets)


def test_attached_equals_merged_equals_saved(adapter_home, observations, tmp_path):
    attached = load_policy(adapter_home / "adapter")
    merged = load_policy(adapter_home / "adapter", merge=True)
    base = load_policy(adapter_home / "base")
    assert attached.adapter is not None
    assert merged.adapter is None
    one, two, plain = (policy.act(observations).logps for policy in (attached, merged, base))
    np.testing.assert_allclose(one, two, atol=1e-4)
    assert np.abs(one - plain).max() > 1e-2
    save_policy(attached, tmp_path / "full")
    full = load_policy(tmp_path / "full")
    np.testing.assert_array_equal(full.act(observations).logps, two)
    assert full.spec.policy_hash == merged.spec.policy_hash == attached.spec.policy_hash
    assert full.spec.policy_hash != base.spec.policy_hash
    np.testing.assert_array_equal(attached.act(observations).logps, one)  # saving changed nothing


def test_missing_halves_and_layers_are_named(adapter_home, tmp_path):
    for count in (1, 20):
        folder = tmp_path / str(count)
        shutil.copytree(adapter_home / "adapter", folder)
        (folder / "grape_adapter.json").write_text(json.dumps({"base": str(adapter_home / "base")}))
        tensors = load_file(folder / "adapter_model.safetensors")
        kept = dict(sorted(tensors.items())[count:])
        save_file(kept, folder / "adapter_model.safetensors")
        with pytest.raises(DataError, match=r"lacks weights of language_model\.model\.layers"):
            load_policy(folder)


def test_switched_off_is_the_base(adapter_home, observations):
    attached, base = load_policy(adapter_home / "adapter"), load_policy(adapter_home / "base")
    with attached.adapter.disable_adapter():
        np.testing.assert_array_equal(attached.act(observations).logps, base.act(observations).logps)
        assert attached.spec.policy_hash == base.spec.policy_hash


def test_a_merged_policy_can_be_trained_on(adapter_home):
    merged = load_policy(adapter_home / "adapter", merge=True)
    assert all(parameter.requires_grad for parameter in merged.model.parameters())


def _broken(adapter_home, tmp_path, **files):
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in (adapter_home / "adapter").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "grape_adapter.json").write_text(json.dumps({"base": str(adapter_home / "base")}))
    for name, content in files.items():
        path = folder / {"pointer": "grape_adapter.json", "config": "adapter_config.json"}[name]
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("files", "error", "text"),
    [
        ({"pointer": {"base": "elsewhere"}}, DataError, "is not at"),
        ({"pointer": {}}, DataError, "does not say which policy"),
        ({"config": {"peft_type": "PREFIX_TUNING"}}, SettingsError, "PREFIX_TUNING"),
        ({"config": {"peft_type": "LORA", "use_dora": True}}, SettingsError, "use_dora"),
        ({"config": "{"}, DataError, "JSON"),
    ],
)
def test_adapters_that_are_refused(adapter_home, tmp_path, files, error, text):
    with pytest.raises(error, match=text):
        load_policy(_broken(adapter_home, tmp_path, **files))


def test_foreign_truncated_and_missing_adapter_weights(adapter_home, tmp_path):
    folder = _broken(adapter_home, tmp_path)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name.replace("layers.0", "layers.9"): tensor for name, tensor in tensors.items()}, path)
    with pytest.raises(DataError, match=r"layers\.9"):
        load_policy(folder)
    save_file({name: tensor[:2].clone() for name, tensor in tensors.items()}, path)
    with pytest.raises(DataError, match="does not fit"):
        load_policy(folder)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="truncated"):
        load_policy(folder)
    path.unlink()
    with pytest.raises(DataError, match="lacks"):
        load_policy(folder)
