"""Checkpoints as other programs leave them: read as transformers reads them, or refused for what they are."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig

from grape.core.errors import DataError, SettingsError
from grape.core.trajectories import Observation
from grape.policies.opening import resolve_policy
from grape.policies.openvla import load_policy
from grape.policies.openvla.config import OpenVLAConfig
from grape.policies.openvla.loading import read_policy
from tests.hub.listing import list_on_hub

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


@pytest.fixture
def copy(golden, tmp_path):
    shutil.copytree(golden / "ckpt", tmp_path / "copy")
    for path in [tmp_path / "copy", *(tmp_path / "copy").iterdir()]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path / "copy"


def logps(folder):
    policy = load_policy(folder, unnorm_key="bridge_orig", dtype="float32")
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    return policy.act([Observation(image, np.zeros(0, np.float32), "put the carrot on the plate")]).logps


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shard(folder, parts=2):
    """Divide the weights over files with an index; the whole file stays."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    files = {
        name: f"model-{1 + i * parts // len(names):05d}-of-{parts:05d}.safetensors" for i, name in enumerate(names)
    }
    for file in set(files.values()):
        save_file({n: weights[n] for n in names if files[n] == file}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return files


def test_one_file_of_weights_wins_over_an_index_beside_it(copy):
    before = logps(copy)
    shard(copy)
    weights = load_file(copy / "model.safetensors")
    changed = {name: tensor * 1.5 if tensor.ndim > 1 else tensor for name, tensor in weights.items()}
    save_file(changed, copy / "model.safetensors", metadata={"format": "pt"})
    merged = logps(copy)
    assert np.abs(merged - before).max() > 1e-3
    (copy / "model.safetensors").unlink()
    np.testing.assert_array_equal(logps(copy), before)


@pytest.mark.parametrize("change", ["swapped", "twice", "lost"])
def test_an_index_that_disagrees_with_its_shards_is_refused(copy, change):
    files = shard(copy)
    (copy / "model.safetensors").unlink()
    first, last = min(files), max(files)
    if change == "swapped":
        files = files | {first: files[last]}
    else:
        file = copy / files[first if change == "lost" else last]
        tensors = load_file(file)
        if change == "lost":
            del tensors[first]
        else:
            tensors[first] = load_file(copy / files[first])[first]
        save_file(tensors, file, metadata={"format": "pt"})
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    with pytest.raises(DataError, match=r"the index says|where the index says|stored twice"):
        load_policy(copy, unnorm_key="bridge_orig")


@pytest.mark.parametrize("state", ["padding", "truncation", "no post-processor", "another post-processor"])
def test_what_a_trainer_left_in_the_tokenizer_changes_no_prompt(copy, state):
    policy = read_policy(copy, unnorm_key="bridge_orig")
    expected = policy.processor.prompt_ids("put the carrot on the plate")
    assert expected[0] == 1
    path = copy / "tokenizer.json"
    if state in ("padding", "truncation"):
        tokenizer = Tokenizer.from_file(str(path))
        if state == "padding":
            tokenizer.enable_padding(pad_id=32000, pad_token="<PAD>", length=48)
        else:
            tokenizer.enable_truncation(max_length=12)
        tokenizer.save(str(path))
    else:
        data = json.loads(path.read_text())
        data["post_processor"] = None if state == "no post-processor" else BYTE_LEVEL
        path.write_text(json.dumps(data))
    assert read_policy(copy, unnorm_key="bridge_orig").processor.prompt_ids("put the carrot on the plate") == expected


def test_a_tokenizer_that_adds_no_begin_token_says_so_in_its_configuration(copy):
    expected = read_policy(copy, unnorm_key="bridge_orig").processor.prompt_ids("go")
    change_json(copy / "tokenizer_config.json", add_bos_token=False)
    assert read_policy(copy, unnorm_key="bridge_orig").processor.prompt_ids("go") == expected[1:]


@pytest.mark.parametrize(
    "name",
    [
        "action_head--150000_checkpoint.pt",
        "proprio_projector--1_checkpoint.pt",
        "vision_backbone--latest_checkpoint.pt",
    ],
)
def test_a_checkpoint_with_parts_in_files_of_their_own_is_refused_for_what_it_is(copy, name):
    (copy / name).write_bytes(b"never read")
    with pytest.raises(SettingsError, match=r"OpenVLA-OFT, not of OpenVLA.*(.|\n)*" + name.replace(".", r"\.")):
        load_policy(copy, unnorm_key="bridge_orig")


def test_parts_are_recognized_on_the_hub_before_weights_are_downloaded(copy, monkeypatch):
    patterns = []

    def snapshot_download(repository, **options):
        patterns.append(options["allow_patterns"])
        return str(copy)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    list_on_hub(monkeypatch, ["config.json", "x/action_head--5_checkpoint.pt"])
    with pytest.raises(SettingsError, match="OpenVLA-OFT"):
        load_policy("somebody/policy", unnorm_key="bridge_orig")
    assert len(patterns) == 1
    assert not [pattern for pattern in patterns[0] if "safetensors" in pattern]


def test_configuration_alone_is_fetched_where_nothing_more_is_needed(copy, monkeypatch):
    patterns = []

    def snapshot_download(repository, **options):
        patterns.extend(options["allow_patterns"])
        return str(copy)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    (copy / "model.safetensors").unlink()
    assert read_policy("somebody/policy", unnorm_key="bridge_orig").unnorm_key == "bridge_orig"
    assert not [pattern for pattern in patterns if "safetensors" in pattern]


def test_a_cached_snapshot_without_files_that_nothing_needs_is_used(copy, monkeypatch, tmp_path):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def incomplete(*args, **options):
        raise LocalEntryNotFoundError("a file of the snapshot is missing")

    monkeypatch.setattr("huggingface_hub.snapshot_download", incomplete)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **options: str(copy / args[1]))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", incomplete)
    (copy / "generation_config.json").unlink(missing_ok=True)
    assert resolve_policy("somebody/policy") == copy
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **options: None)
    with pytest.raises(SettingsError, match="not in the cache"):
        resolve_policy("somebody/policy")


@pytest.mark.parametrize("whole", [True, False])
def test_a_configuration_written_by_a_current_transformers_is_read(copy, whole):
    before = logps(copy)
    data = json.loads((copy / "config.json").read_text())
    text = json.loads(LlamaConfig(**data["text_config"]).to_json_string(use_diff=not whole))
    data |= {"text_config": text | {"_attn_implementation_autoset": True}, "dtype": data.pop("torch_dtype")}
    (copy / "config.json").write_text(json.dumps(data))
    np.testing.assert_array_equal(logps(copy), before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"head_dim": 7}, "head_dim = 7"),
        ({"mlp_bias": True}, "mlp_bias = True"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}, "rope_theta": 10000.0}, "rope_theta"),
        ({"sliding_window": 128}, "sliding_window = 128"),
    ],
)
def test_a_setting_that_would_change_the_network_is_refused_by_name(copy, change, words):
    data = json.loads((copy / "config.json").read_text())
    data["text_config"] |= change
    with pytest.raises((SettingsError, DataError), match=words):
        OpenVLAConfig.from_json(data)


def test_a_float16_checkpoint_is_read_and_kept(copy, tmp_path):
    before = logps(copy)
    weights = load_file(copy / "model.safetensors")
    save_file(
        {n: t.to(torch.float16) for n, t in weights.items()}, copy / "model.safetensors", metadata={"format": "pt"}
    )
    change_json(copy / "config.json", torch_dtype="float16")
    np.testing.assert_allclose(logps(copy), before, atol=2e-3)
    change_json(copy / "config.json", torch_dtype="int8")
    with pytest.raises(SettingsError, match=r"'int8' are not supported"):
        logps(copy)
