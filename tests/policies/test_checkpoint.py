"""Checkpoint folders: round trips, and every way a folder can be wrong."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from grape.core.atomic_folders import atomic_folder
from grape.core.errors import DataError, GrapeError, SettingsError
from grape.policies import tensor_files
from grape.policies.openvla import load_policy, save_policy
from grape.policies.openvla.config import OpenVLAConfig


@pytest.fixture(scope="module")
def saved(nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies") / "nano"
    save_policy(nano, folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def _edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_round_trip_is_exact(nano, saved, observations):
    loaded = load_policy(str(saved))
    assert loaded.spec == nano.spec
    assert not loaded.model.training
    ours, theirs = (p.act(observations, temperature=0.9, seeds=range(20)) for p in (nano, loaded))
    np.testing.assert_array_equal(ours.logps, theirs.logps)
    np.testing.assert_array_equal(ours.actions, theirs.actions)
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())


def test_saving_twice_gives_the_same_bytes(nano, saved, tmp_path):
    save_policy(load_policy(saved), tmp_path / "again")
    names = sorted(path.name for path in saved.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in names:
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_published_names(saved):
    names = set(load_file(saved / "model.safetensors"))
    for name in (
        "vision_backbone.featurizer.blocks.1.attn.qkv.weight",
        "projector.fc2.bias",
        "language_model.model.layers.2.mlp.down_proj.weight",
        "language_model.lm_head.weight",
    ):
        assert name in names
    config = json.loads((saved / "config.json").read_text())
    assert config["model_type"] == "openvla"
    assert config["n_action_bins"] == 32
    assert json.loads((saved / "dataset_statistics.json").read_text()) == config["norm_stats"]


def test_weights_and_statistics_change_the_hashes(saved, copy):
    before = load_policy(saved).spec
    tensors = load_file(copy / "model.safetensors")
    tensors["projector.fc1.bias"][0] += 1e-3
    save_file(tensors, copy / "model.safetensors")
    after = load_policy(copy).spec
    assert after.policy_hash != before.policy_hash
    assert after.preprocessing_hash == before.preprocessing_hash
    for name in ("config.json", "dataset_statistics.json"):
        _edit(copy / name, lambda d: d.get("norm_stats", d)["metaworld"]["action"]["q99"].__setitem__(0, 0.5))
    assert load_policy(copy).spec.preprocessing_hash != before.preprocessing_hash


def test_several_shards(nano, saved, tmp_path):
    save_policy(nano, tmp_path / "sharded", shard_bytes=1_000_000)
    index = json.loads((tmp_path / "sharded/model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) >= 3
    assert index["metadata"]["total_size"] == sum(
        t.numel() * 4 for t in load_file(saved / "model.safetensors").values()
    )
    assert load_policy(tmp_path / "sharded").spec == nano.spec
    lost = sorted((tmp_path / "sharded").glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(DataError, match=lost.stem):
        load_policy(tmp_path / "sharded")


def test_an_index_cannot_point_outside(copy):
    (copy / "model.safetensors").rename(copy / "x.safetensors")
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    with pytest.raises(DataError, match="no usable shards"):
        load_policy(copy)


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(SettingsError, match="no such checkpoint folder"):
        load_policy(tmp_path / "nowhere")


def test_folder_that_is_no_checkpoint(tmp_path, saved):
    with pytest.raises(SettingsError, match=r"no config\.json"):
        load_policy(tmp_path)
    with pytest.raises(SettingsError, match=r"Did you mean .*nano"):  # one level too high is the common slip
        load_policy(saved.parent)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda d: d.update(model_type="llava"), SettingsError, "'llava', not 'openvla'"),
        (lambda d: d.pop("model_type"), SettingsError, "not 'openvla'"),
        (lambda d: d.pop("text_config"), DataError, "text_config"),
        (lambda d: d["text_config"].update(model_type="mistral"), SettingsError, "mistral"),
        (lambda d: d["text_config"].update(rope_scaling={"factor": 2}), SettingsError, "rope_scaling"),
        (lambda d: d.update(image_resize_strategy="letterbox"), SettingsError, "letterbox"),
        (lambda d: d.update(n_action_bins=1), DataError, "n_action_bins"),
        (lambda d: d.update(torch_dtype="float61"), SettingsError, "float61"),
        (lambda d: d.update(pad_token_id=10**6), DataError, "pad_token_id"),
        (lambda d: d.update(use_fused_vision_backbone=True), DataError, "vision towers"),
        (lambda d: d["grape"].pop("towers"), SettingsError, "grape_nano_vit"),
        (lambda d: d["grape"]["towers"][0].update(widht=3), SettingsError, "Did you mean 'width'"),
        (lambda d: d["text_config"].update(hidden_size=128), DataError, "do not fit"),
        (lambda d: d["text_config"].update(num_hidden_layers=4), DataError, "missing language_model.model.layers.3"),
        (lambda d: d["text_config"].update(num_hidden_layers=2), DataError, "unexpected language_model.model.layers.2"),
        (lambda d: d.update(norm_stats=[1]), DataError, "not a complete"),
    ],
)
def test_configurations_that_do_not_fit(copy, change, error, text):
    _edit(copy / "config.json", change)
    with pytest.raises(error, match=text):
        load_policy(copy)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_broken_json_files(copy, name, content):
    (copy / name).write_text(content)
    with pytest.raises(GrapeError) as caught:
        load_policy(copy)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"metaworld": {}}', '{"metaworld": []}', '{"metaworld": 3}'])
def test_broken_statistics(copy, content):
    (copy / "dataset_statistics.json").write_text(content)
    with pytest.raises(DataError):
        load_policy(copy)


@pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer.json", "model.safetensors"])
def test_missing_files(copy, name):
    (copy / name).unlink()
    with pytest.raises(DataError, match=name):
        load_policy(copy)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_truncated_weights(copy, keep):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[:keep])
    with pytest.raises(DataError, match=r"model\.safetensors is truncated"):
        load_policy(copy)


def test_missing_and_unexpected_weights_are_listed(copy):
    tensors = load_file(copy / "model.safetensors")
    tensors["projector.fc9.bias"] = tensors.pop("projector.fc1.bias")
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(DataError, match=r"missing projector\.fc1\.bias; unexpected projector\.fc9\.bias"):
        load_policy(copy)


def test_pickled_weights_are_not_read(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(DataError, match="pickles"):
        load_policy(copy)


def test_unknown_statistics(saved):
    with pytest.raises(SettingsError, match="Did you mean 'metaworld'"):
        load_policy(saved, unnorm_key="metawrld")


def test_unknown_device(saved):
    with pytest.raises(SettingsError, match="device"):
        load_policy(saved, device="quantum")


def test_replacing_a_folder_is_all_or_nothing(nano, saved, tmp_path, monkeypatch):
    target = tmp_path / "policy"
    save_policy(nano, target)
    (target / "stale.txt").write_text("from an older layout")

    def full_disk(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tensor_files, "save_file", full_disk)
        with pytest.raises(GrapeError, match="No space left"):
            save_policy(nano, target)
    assert (target / "stale.txt").exists()
    assert load_policy(target).spec == nano.spec
    (tmp_path / ".policy.1.ab.tmp").mkdir()  # of a process that was killed
    save_policy(nano, target)
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    assert not (target / "stale.txt").exists()


def test_bfloat16_computation(saved, observations):
    policy = load_policy(saved, dtype="bfloat16")
    assert policy.model.dtype == torch.bfloat16
    batch = policy.act(observations[:2])
    assert batch.logps.dtype == np.float32


def test_published_defaults_of_the_language_model(nano):
    config = OpenVLAConfig.from_json(nano.config.to_json())
    assert config.text["rms_norm_eps"] == 1e-6
    assert nano.model.language_model.config.rms_norm_eps == 1e-6
    assert nano.model.language_model.config._attn_implementation == "sdpa"
    assert config == nano.config


def _write(folder, text):
    with atomic_folder(folder) as temporary:
        (temporary / "file").write_text(text)


def test_a_failed_replacement_keeps_the_old_folder(tmp_path, monkeypatch):
    _write(tmp_path / "policy", "old")
    rename = Path.rename

    def fail_once(self, target):
        if self.name.endswith(".tmp"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(GrapeError, match="Could not write"):
        _write(tmp_path / "policy", "new")
    assert (tmp_path / "policy" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


def test_an_old_folder_comes_back_after_a_kill_between_the_renames(tmp_path):
    _write(tmp_path / "policy", "old")
    (tmp_path / "policy").rename(tmp_path / ".policy.1.abcd.old")  # where a killed process would have left it
    (tmp_path / ".policy.1.abcd.tmp").mkdir()
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "policy"):
        raise RuntimeError
    assert (tmp_path / "policy" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    _write(tmp_path / "policy", "new")
    assert (tmp_path / "policy" / "file").read_text() == "new"
