"""The verb export for checkpoints: layout, round trips, and what is never overwritten."""

import json
import shutil
import stat

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from grape.checkpoints import ExportAdapterSettings, ExportMergedSettings, run_export_adapter, run_export_merged
from grape.core.errors import CompatibilityError, DataError, GrapeError, SettingsError
from grape.core.trajectories import Observation
from grape.policies import tensor_files
from grape.policies.openvla import load_policy
from tests.checkpoints.conftest import write_adapter


@pytest.fixture(scope="module")
def observations():
    rng = np.random.default_rng(1)
    texts = ["open the drawer", "put the xylophone behind the bowl"]
    return [
        Observation(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), np.zeros(1, np.float32), texts[i % 2])
        for i in range(4)
    ]


def _metadata(path):
    with safe_open(path, framework="pt") as handle:
        return handle.metadata()


def test_a_published_checkpoint_comes_back_as_it_was(golden, tmp_path):
    source, out = golden / "ckpt", tmp_path / "out"
    summary = run_export_merged(ExportMergedSettings(str(source), out))
    names = {path.name for path in out.iterdir()}
    assert names == {path.name for path in source.iterdir()} | {"README.md"}
    for name in names - {"README.md"}:  # to the byte, config.json and weights too: nothing was merged
        assert (out / name).read_bytes() == (source / name).read_bytes(), name
    assert summary["adapter_merged"] is False
    assert set(summary["files"]) == names


def test_a_merged_adapter_keeps_the_published_layout(golden, golden_adapter, tmp_path):
    source, out = golden / "ckpt", tmp_path / "out"
    run_export_merged(ExportMergedSettings(str(golden_adapter), out))
    assert {path.name for path in out.iterdir()} == {path.name for path in source.iterdir()} | {"README.md"}
    before, after = load_file(source / "model.safetensors"), load_file(out / "model.safetensors")
    assert len(after) == 130
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in before.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in after.items()
    }
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{name}.weight" for name in load_policy(source, unnorm_key="bridge_orig").lora_targets()}
    assert _metadata(out / "model.safetensors") == _metadata(source / "model.safetensors") == {"format": "pt"}
    for name in ("config.json", "dataset_statistics.json", "preprocessor_config.json", "tokenizer.model"):
        assert (out / name).read_bytes() == (source / name).read_bytes()
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o044 for path in out.iterdir())


def test_merged_round_trips(golden, golden_adapter, tmp_path, observations):
    out = tmp_path / "out"
    run_export_merged(ExportMergedSettings(str(golden_adapter), out))
    exported = load_policy(out, unnorm_key="bridge_orig")
    # Weights are rounded to bfloat16 once, by at most one part in 256; compared with the same sum, rounded alike:
    merged = load_policy(golden_adapter, unnorm_key="bridge_orig", merge=True)
    for name, weight in merged.model.state_dict().items():
        assert torch.equal(weight.bfloat16().float(), exported.model.state_dict()[name]), name
    # and an export of the export changes nothing more.
    run_export_merged(ExportMergedSettings(str(out), tmp_path / "again"))
    again = load_policy(tmp_path / "again", unnorm_key="bridge_orig")
    np.testing.assert_array_equal(again.act(observations).logps, exported.act(observations).logps)
    assert again.spec == exported.spec


def test_a_float32_policy_round_trips_closely(nano_adapter, tmp_path, observations):
    run_export_merged(ExportMergedSettings(str(nano_adapter), tmp_path / "out"))
    exported, beside = load_policy(tmp_path / "out"), load_policy(nano_adapter)
    merged = load_policy(nano_adapter, merge=True)
    np.testing.assert_array_equal(exported.act(observations).logps, merged.act(observations).logps)
    np.testing.assert_allclose(exported.act(observations).logps, beside.act(observations).logps, atol=1e-4)
    assert exported.spec.policy_hash == beside.spec.policy_hash


def test_shards(nano, tmp_path):
    run_export_merged(ExportMergedSettings(str(nano), tmp_path / "out", shard_gb=0.001))
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) >= 3
    assert load_policy(tmp_path / "out").spec == load_policy(nano).spec
    truncated = sorted((tmp_path / "out").glob("model-*.safetensors"))[1]
    truncated.write_bytes(truncated.read_bytes()[:-10])
    with pytest.raises(DataError, match=f"{truncated.stem}.*truncated"):
        load_policy(tmp_path / "out")
    with pytest.raises(SettingsError, match="--shard-gb"):
        run_export_merged(ExportMergedSettings(str(nano), tmp_path / "other", shard_gb=0))


def test_what_only_this_project_knows_stands_beside_the_published_configuration(golden, tmp_path):
    adapter = write_adapter(golden / "ckpt", tmp_path / "run", "bridge_orig")
    pointer = json.loads((adapter / "grape_adapter.json").read_text())
    (adapter / "grape_adapter.json").write_text(json.dumps({**pointer, "center_crop": True, "unnorm_key": "mine"}))
    statistics = json.loads((golden / "ckpt/dataset_statistics.json").read_text())["bridge_orig"]
    (adapter / "dataset_statistics.json").write_text(json.dumps({"mine": statistics}))
    (adapter / "provenance.json").write_text(json.dumps({"collected": {"toy": {"reach": "0-3"}}}))
    out = tmp_path / "out"
    run_export_merged(ExportMergedSettings(str(adapter), out))
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (golden / "ckpt", out))
    assert list(after) == list(before)  # even the order
    assert {**after, "norm_stats": None} == {**before, "norm_stats": None}
    assert set(after["norm_stats"]) == {*before["norm_stats"], "mine"}
    assert json.loads((out / "dataset_statistics.json").read_text()) == after["norm_stats"]
    assert json.loads((out / "grape.json").read_text()) == {"center_crop": True, "unnorm_key": "mine"}
    assert (out / "provenance.json").is_file()
    assert "cropped" in (out / "README.md").read_text()
    loaded = load_policy(out)
    assert loaded.config.center_crop
    assert loaded.unnorm_key == "mine"
    run_export_merged(ExportMergedSettings(str(out), tmp_path / "again"))
    assert (tmp_path / "again/config.json").read_bytes() == (out / "config.json").read_bytes()
    assert (tmp_path / "again/grape.json").read_bytes() == (out / "grape.json").read_bytes()


def test_an_adapter_in_the_layout_of_peft(nano, nano_adapter, tmp_path, observations):
    summary = run_export_adapter(ExportAdapterSettings(str(nano_adapter), tmp_path / "out"))
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == summary["base"] == str(nano.resolve())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 8.0, "LORA")
    assert "trainable_token_indices" not in config  # PEFT 0.11 would refuse keys it does not know
    exported, beside = load_policy(tmp_path / "out"), load_policy(nano_adapter)
    np.testing.assert_array_equal(exported.act(observations).logps, beside.act(observations).logps)
    named = run_export_adapter(ExportAdapterSettings(str(nano_adapter), tmp_path / "named", base="me/nano"))
    assert named["base"] == "me/nano"
    assert yaml.safe_load((tmp_path / "named/README.md").read_text().split("---")[1])["base_model"] == "me/nano"
    with pytest.raises(SettingsError, match="whole checkpoint"):
        run_export_adapter(ExportAdapterSettings(str(nano), tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_adapters_that_do_not_fit_are_refused(nano_adapter, tmp_path):
    for name, text in (("adapter_model.safetensors", "truncated"), ("adapter_config.json", "JSON")):
        broken = shutil.copytree(nano_adapter, tmp_path / name.split(".")[0])
        pointer = json.loads((broken / "grape_adapter.json").read_text())
        base = str((nano_adapter / pointer["base"]).resolve())
        (broken / "grape_adapter.json").write_text(json.dumps({"base": base}))
        (broken / name).write_bytes((broken / name).read_bytes()[:100])
        for run, kind in ((run_export_adapter, ExportAdapterSettings), (run_export_merged, ExportMergedSettings)):
            with pytest.raises(DataError, match=text):
                run(kind(str(broken), tmp_path / "out"))
        assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_done_work_is_not_repeated(nano, nano_adapter, tmp_path, monkeypatch):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("mine")
    with pytest.raises(CompatibilityError, match="something else"):
        run_export_merged(ExportMergedSettings(str(nano), tmp_path / "thesis"))
    assert (tmp_path / "thesis/chapter.txt").read_text() == "mine"
    with pytest.raises(SettingsError, match="is a file"):
        run_export_merged(ExportMergedSettings(str(nano), tmp_path / "thesis/chapter.txt"))
    with pytest.raises(CompatibilityError):  # onto itself
        run_export_merged(ExportMergedSettings(str(nano), nano))
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is nobody's
    first = run_export_merged(ExportMergedSettings(str(nano), out))
    with pytest.raises(CompatibilityError, match="another export"):
        run_export_merged(ExportMergedSettings(str(nano_adapter), out))
    with pytest.raises(CompatibilityError, match="another export"):
        run_export_merged(ExportMergedSettings(str(nano), out, shard_gb=1.0))
    monkeypatch.setattr(tensor_files, "save_file", None)
    assert run_export_merged(ExportMergedSettings(str(nano), out)) == first


def test_an_export_that_fails_leaves_nothing(nano, tmp_path, monkeypatch):
    def full_disk(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_files, "save_file", full_disk)
    with pytest.raises(GrapeError, match="No space left"):
        run_export_merged(ExportMergedSettings(str(nano), tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_equal_exports_have_equal_bytes(nano_adapter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        run_export_merged(
            ExportMergedSettings(str(nano_adapter), (tmp_path / place / "out").relative_to(tmp_path / place))
        )
    for path in (tmp_path / "a/out").iterdir():
        assert path.read_bytes() == (tmp_path / "b/out" / path.name).read_bytes(), path.name
