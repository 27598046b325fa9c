"""The verb export merged for policies that decide in chunks: published files to the byte, conventions beside them."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from grape.checkpoints import ExportAdapterSettings, ExportMergedSettings, run_export_adapter, run_export_merged
from grape.cli.main import main
from grape.core.errors import CompatibilityError, SettingsError
from grape.policies.openvla_oft.loading import OFTChoices, load_oft_policy
from grape.policies.openvla_oft.saving import save_oft_policy
from grape.training.lora import save_result
from tests.openvla_oft.conftest import LIBERO, make_nano, nano_inputs, observations, with_adapter
from tests.reporters import Hearing

PARTS = ("libero/action_head--1_checkpoint.pt", "libero/proprio_projector--1_checkpoint.pt")


@pytest.mark.parametrize("parts", [(), PARTS])
def test_a_published_checkpoint_comes_back_with_a_statement(golden, tmp_path, capsys, parts):
    source, out = golden.checkpoint(*parts), tmp_path / "out"
    words = ["export", "merged", "--policy", str(source), "--out", str(out), "--unnorm-key", LIBERO, "--cameras", "2"]
    words += ["--preset", "simplevla-rl", "--convention", "temperature=0.6"]
    assert main([*words, "--json"]) == 0
    assert not json.loads(capsys.readouterr().out)["adapter_merged"]
    names = {path.name for path in out.iterdir()}
    assert names == {path.name for path in source.iterdir()} | {"README.md", "grape.json"}
    for name in names - {"README.md", "grape.json"}:
        assert (out / name).read_bytes() == (source / name).read_bytes(), name
    card = (out / "README.md").read_text()
    assert "support window, temperature 0.6" in card
    assert f"--preset simplevla-rl --unnorm-key {LIBERO} --cameras 2 --convention temperature=0.6" in card
    policy = load_oft_policy(out)
    assert (policy.conventions.temperature, policy.conventions.support) == (0.6, "window")
    assert (policy.layout.cameras, policy.unnorm_key) == (("agentview", "wrist"), LIBERO)
    assert policy.has_logps == (not parts)
    before = (out / "README.md").stat().st_mtime_ns
    assert main(words) == 0  # the work is done
    assert (out / "README.md").stat().st_mtime_ns == before
    with pytest.raises(CompatibilityError, match="another export"):
        run_export_merged(ExportMergedSettings(str(source), out, preset="rlinf", unnorm_key=LIBERO))
    # what was exported needs no preset and comes out again as it is
    run_export_merged(ExportMergedSettings(str(out), tmp_path / "again"))
    again = load_oft_policy(tmp_path / "again")
    assert again.spec == policy.spec
    images, state = [golden.images[:2]], np.zeros((1, 8)) if parts else None
    decisions = [one.decide(one.encode_images(images, ["go"], state)).actions for one in (policy, again)]
    assert np.array_equal(*decisions)


def test_what_is_not_said_is_asked_for_before_weights_are_hashed(golden, tmp_path, monkeypatch):
    def never(*args, **options):
        raise AssertionError("files were hashed")

    monkeypatch.setattr("grape.policies.openvla.exporting._hash", never)
    with pytest.raises(SettingsError, match="Choose a --preset"):
        run_export_merged(ExportMergedSettings(str(golden.checkpoint(PARTS[1])), tmp_path / "out", unnorm_key=LIBERO))
    with pytest.raises(SettingsError, match="choose one"):
        run_export_merged(ExportMergedSettings(str(golden.checkpoint()), tmp_path / "out", preset="rlinf"))
    assert not (tmp_path / "out").exists()


def test_plain_checkpoints_take_no_settings_of_chunks(golden, tmp_path):
    with pytest.raises(SettingsError, match=r"plain OpenVLA.*--unnorm-key, --chunk cannot be used"):
        run_export_merged(ExportMergedSettings(str(golden.checkpoint()), tmp_path / "out", chunk=8, unnorm_key=LIBERO))


def adapter_on(golden, out, *parts, targets="language+projector"):
    """An adapter on a published checkpoint, which states nothing, in ``out/policy``; and the base."""
    base, preset = golden.checkpoint(*parts), "" if PARTS[0] in parts else "simplevla-rl"
    choices = OFTChoices(preset, unnorm_key=LIBERO, center_crop=False)
    save_result(with_adapter(load_oft_policy(base, choices), targets), out, base)
    return out / "policy", base


@pytest.mark.parametrize("parts", [(), PARTS[1:], PARTS])
def test_a_merged_adapter_keeps_the_published_layout(golden, tmp_path, parts):
    adapter, base = adapter_on(golden, tmp_path / "run", *parts)
    out = tmp_path / "out"
    summary = run_export_merged(ExportMergedSettings(str(adapter), out))
    assert summary["adapter_merged"] is True
    assert {path.name for path in out.iterdir()} == {path.name for path in base.iterdir()} | {"README.md", "grape.json"}
    targets = set(load_oft_policy(adapter).lora_targets())
    projector = {"proprio_projector--1_checkpoint.pt"} if parts else set()
    for name in {path.name for path in base.iterdir()} - projector - {"model.safetensors"}:
        assert (out / name).read_bytes() == (base / name).read_bytes(), name  # config.json, statistics, action head too
    with safe_open(out / "model.safetensors", framework="pt") as handle:
        assert handle.metadata() == {"format": "pt"}
    before, after = load_file(base / "model.safetensors"), load_file(out / "model.safetensors")
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in before.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in after.items()
    }
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{name}.weight" for name in targets if not name.startswith("proprio_projector")}
    for name in projector:
        stored, written = (torch.load(folder / name, weights_only=True) for folder in (base, out))
        stored = {key.removeprefix("module."): value for key, value in stored.items()}
        assert stored.keys() == written.keys()
        assert all(written[key].dtype == stored[key].dtype for key in stored)
        assert [key for key in stored if not torch.equal(stored[key], written[key])] == ["fc1.weight", "fc2.weight"]
    facts = json.loads((out / "grape.json").read_text())
    pointer = json.loads((adapter / "grape_adapter.json").read_text())
    assert facts == {name: pointer[name] for name in ("oft", "unnorm_key")}
    # weights are rounded to bfloat16 once, the projector is not
    merged, exported = load_oft_policy(adapter, merge=True), load_oft_policy(out)
    for name, weight in merged.model.state_dict().items():
        rounded = weight if name.startswith("proprio_projector") else weight.bfloat16().float()
        torch.testing.assert_close(exported.model.state_dict()[name], rounded, atol=1e-7, rtol=0)
    assert (exported.conventions, exported.layout, exported.unnorm_key) == (merged.conventions, merged.layout, LIBERO)
    assert exported.preprocessing_hash == merged.preprocessing_hash
    seen = observations(golden, 8)
    assert exported.act(seen).actions.shape == (4, 8, 7)
    run_export_merged(ExportMergedSettings(str(out), tmp_path / "again"))
    for path in out.iterdir():
        if path.name != "README.md":
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("targets", ["language", "language+projector"])
def test_an_exported_adapter_is_in_the_layout_of_peft(golden, tmp_path, targets):
    adapter, base = adapter_on(golden, tmp_path / "run", PARTS[1], targets=targets)
    messages, out = Hearing(), tmp_path / "out"
    summary = run_export_adapter(ExportAdapterSettings(str(adapter), out), messages)
    assert summary["base"] == str(base.resolve())
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "grape_adapter.json",
    }
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8.0)
    assert "exclude_modules" not in config  # PEFT 0.11 would refuse keys it does not know
    assert config["base_model_name_or_path"] == str(base.resolve())
    tensors = load_file(out / "adapter_model.safetensors")
    layers = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in tensors}
    assert layers == set(load_oft_policy(adapter).lora_targets(targets))
    exported, beside = load_oft_policy(out), load_oft_policy(adapter)
    seen = observations(golden, 8)
    np.testing.assert_array_equal(exported.act(seen).logps, beside.act(seen).logps)
    # PEFT puts an adapter around model.safetensors alone, as public code loads it
    separate = "changes proprio_projector, which OpenVLA-OFT's own code loads apart"
    assert [separate in text for text in messages.warnings] == [True] * (targets != "language")
    card = (out / "README.md").read_text()
    assert (separate in card) == (targets != "language")
    assert "support window" in card
    with pytest.raises(SettingsError, match="whole checkpoint"):
        run_export_adapter(ExportAdapterSettings(str(golden.checkpoint(PARTS[1])), tmp_path / "none"))


@pytest.mark.parametrize("placeholders", ["zeros", "per-action"])
def test_a_nano_adapter_comes_out_as_it_acts(tmp_path, placeholders):
    save_oft_policy(make_nano(proprio_dim=4, placeholders=placeholders), tmp_path / "base")
    save_result(with_adapter(load_oft_policy(tmp_path / "base")), tmp_path / "run", tmp_path / "base")
    run_export_merged(ExportMergedSettings(str(tmp_path / "run/policy"), tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        path.name for path in (tmp_path / "base").iterdir()
    } | {"README.md"}
    assert "no other program loads it" in (tmp_path / "out/README.md").read_text()
    exported, beside = load_oft_policy(tmp_path / "out"), load_oft_policy(tmp_path / "run/policy")
    merged = load_oft_policy(tmp_path / "run/policy", merge=True)
    assert exported.spec.policy_hash == beside.spec.policy_hash
    inputs = nano_inputs(beside, ["open the drawer"])
    logps = [one.decide(inputs).logps for one in (exported, merged, beside)]
    np.testing.assert_array_equal(logps[0], logps[1])
    np.testing.assert_allclose(logps[0], logps[2], atol=1e-4)
