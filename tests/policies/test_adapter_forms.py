"""What PEFT can write: every form is either applied exactly, merged and beside the weights, or refused by its name."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from grape.core.errors import DataError, GrapeError, PolicyError, SettingsError
from grape.policies.openvla import load_policy, loading, save_policy
from grape.policies.openvla.adapter_config import DEFAULTS, read_adapter_config
from grape.policies.openvla.adapter_pointer import read_pointer
from grape.policies.openvla.adapters import MergedWeights, check_adapter
from grape.policies.openvla.checkpoint import empty_model
from grape.policies.openvla.exporting import export_adapter, export_merged

LANGUAGE = ["q_proj", "v_proj", "down_proj"]
FIRST = "language_model.model.layers.0.self_attn.q_proj"

APPLIED = {
    "plain": {"target_modules": LANGUAGE},
    "other defaults": {"target_modules": LANGUAGE, "lora_alpha": 3, "lora_dropout": 0.1, "fan_in_fan_out": True},
    "rank-stabilized": {"target_modules": LANGUAGE, "use_rslora": True},
    "all linear layers": {"target_modules": "all-linear"},
    "one layer by its whole name": {"target_modules": "projector.fc1"},
    "the last layer": {"target_modules": ["lm_head", "fc2"]},
    "convolutions": {"target_modules": ["convs.1", "qkv"]},
    "some blocks": {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    "one block of any list": {"target_modules": ["q_proj", "qkv"], "layers_to_transform": 1},
    "blocks of two lists": {
        "target_modules": ["qkv", "o_proj"],
        "layers_to_transform": [0, 2],
        "layers_pattern": ["blocks", "layers"],
    },
    "without some": {"target_modules": LANGUAGE, "exclude_modules": ["layers.1.self_attn.v_proj", "mlp.down_proj"]},
    "without one": {"target_modules": LANGUAGE, "exclude_modules": FIRST},
    "ranks by layer": {"target_modules": LANGUAGE, "rank_pattern": {"down_proj": 2, r"layers\.1\.self_attn.q_proj": 7}},
    "scales by layer": {
        "target_modules": LANGUAGE,
        "alpha_pattern": {f"^{FIRST}$": 1, "1.self_attn.q_proj": 64, "v_proj": 2.5, "nowhere": 3},
        "rank_pattern": {"v_proj$": 5},
        "use_rslora": True,
    },
    "drawn from a normal distribution": {"target_modules": LANGUAGE, "init_lora_weights": "gaussian"},
    "orthogonal": {"target_modules": LANGUAGE, "init_lora_weights": "orthogonal"},
}

REFUSED = {
    "lora_bias": {"lora_bias": True, "target_modules": ["fc1"]},
    "bias 'all'": {"bias": "all"},
    "bias 'lora_only'": {"bias": "lora_only", "target_modules": ["qkv"]},
    "use_dora": {"use_dora": True},
    "modules_to_save": {"modules_to_save": ["lm_head"]},
    "trainable_token_indices": {"trainable_token_indices": {"embed_tokens": [1, 2]}},
    "embed_tokens, which is no linear layer": {"target_modules": ["embed_tokens", "q_proj"]},
    "target_parameters": {"target_parameters": ["lm_head.weight"]},
    "init_lora_weights 'pissa'": {"init_lora_weights": "pissa"},
    "init_lora_weights 'pissa_niter_4'": {"init_lora_weights": "pissa_niter_4"},
    "init_lora_weights 'olora'": {"init_lora_weights": "olora"},
    "regular expression": {"target_modules": r".*\.layers\.[01]\.self_attn\.q_proj"},
    "exclude_modules holds the regular expression": {"exclude_modules": ".*v_proj"},
    "rank_pattern holds the regular expression": {"rank_pattern": {".*v_proj": 2}},
    "alpha_pattern gives several values": {"alpha_pattern": {"self_attn.q_proj": 64, "q_proj": 1}},
    "layers_pattern holds the regular expression": {"layers_to_transform": [1], "layers_pattern": "lay.*"},
}


@pytest.fixture(scope="module")
def base(nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms") / "base"
    save_policy(nano, folder)
    return folder


def written_by_peft(base, folder, **settings):
    """An adapter that PEFT saved after its values were drawn; the policy that carries it."""
    policy = load_policy(base)
    wrapper = get_peft_model(policy.model, LoraConfig(**({"r": 4, "lora_alpha": 8} | settings)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(0.0, 0.1, generator=generator)
    wrapper.eval().save_pretrained(str(folder))
    point_to(base, folder)
    return policy


def point_to(base, folder):
    (folder / "grape_adapter.json").write_text(json.dumps({"base": str(base)}))


@pytest.mark.parametrize("settings", APPLIED.values(), ids=APPLIED)
def test_a_supported_form_acts_as_peft_does_beside_and_merged(base, observations, tmp_path, settings):
    expected = written_by_peft(base, tmp_path / "adapter", **settings).act(observations).logps
    np.testing.assert_array_equal(load_policy(tmp_path / "adapter").act(observations).logps, expected)
    merged = load_policy(tmp_path / "adapter", merge=True)
    np.testing.assert_allclose(merged.act(observations).logps, expected, atol=1e-4)
    (tmp_path / "merged").mkdir()
    export_merged(tmp_path / "adapter", 10**9).write(tmp_path / "merged")
    np.testing.assert_array_equal(
        load_policy(tmp_path / "merged").act(observations).logps, merged.act(observations).logps
    )
    assert np.abs(load_policy(base).act(observations).logps - expected).max() > 1e-3


@pytest.mark.parametrize("name", ["without some", "orthogonal", "all linear layers", "some blocks"])
def test_an_exported_adapter_means_the_same_to_a_release_that_knows_fewer_settings(base, observations, tmp_path, name):
    written_by_peft(base, tmp_path / "adapter", **APPLIED[name])
    (tmp_path / "exported").mkdir()
    export = export_adapter(tmp_path / "adapter")
    export.write(tmp_path / "exported")
    tensors = load_file(tmp_path / "exported" / "adapter_model.safetensors")
    assert len(export.layers) == len(tensors) // 2
    data = json.loads((tmp_path / "exported" / "adapter_config.json").read_text())
    assert "exclude_modules" not in data
    assert data["init_lora_weights"] is True
    expected = load_policy(tmp_path / "adapter").act(observations).logps
    np.testing.assert_array_equal(load_policy(tmp_path / "exported").act(observations).logps, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name_before_weights_are_read(base, tmp_path, name, monkeypatch):
    written_by_peft(base, tmp_path, **({"target_modules": LANGUAGE} | REFUSED[name]))
    monkeypatch.setattr(loading, "load_weights", None)
    with pytest.raises(SettingsError, match=name):
        load_policy(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        peft.IA3Config(target_modules=["down_proj"], feedforward_modules=["down_proj"]),
        peft.AdaLoraConfig(target_modules=LANGUAGE, total_step=10, tinit=1, tfinal=1),
        peft.LoHaConfig(target_modules=LANGUAGE),
        peft.VeraConfig(target_modules=["q_proj"]),
        peft.OFTConfig(target_modules=["q_proj"]),
        peft.PromptTuningConfig(num_virtual_tokens=4),
        peft.LNTuningConfig(target_modules=["norm"]),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_adapters_of_other_kinds_are_refused_by_name(base, tmp_path, config):
    config.save_pretrained(str(tmp_path))
    point_to(base, tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(SettingsError, match=f"of type '{config.peft_type.value}'"):
        load_policy(tmp_path)


def test_every_setting_that_peft_has_is_known(tmp_path):
    """What a release of PEFT adds to its configuration must be looked at: understood, or off by default."""
    LoraConfig(target_modules=LANGUAGE).save_pretrained(str(tmp_path))
    read_adapter_config(tmp_path)
    defaults = LoraConfig().to_dict()
    assert [key for key, values in DEFAULTS.items() if key in defaults and defaults[key] not in values] == []


def test_a_setting_of_releases_to_come_is_refused_where_it_is_on(tmp_path):
    LoraConfig(target_modules=LANGUAGE).save_pretrained(str(tmp_path))
    path = tmp_path / "adapter_config.json"
    data = json.loads(path.read_text())
    for value in (None, False, {}, []):
        path.write_text(json.dumps(data | {"use_new_idea": value}))
        read_adapter_config(tmp_path)
    for value in (True, 0, 1, "x", {"a": 1}):
        path.write_text(json.dumps(data | {"use_new_idea": value}))
        with pytest.raises(SettingsError, match="use_new_idea"):
            read_adapter_config(tmp_path)


def test_weights_other_than_the_configuration_says_are_named(base, tmp_path):
    written_by_peft(base, tmp_path, target_modules=LANGUAGE)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    first = next(name for name in sorted(tensors) if name.endswith("q_proj.lora_A.weight"))
    extra = "base_model.model.language_model.lm_head.weight"
    for changed, message in (
        ({extra: torch.zeros(2)}, "has no language_model.lm_head.weight"),
        ({first.replace("q_proj", "k_proj"): tensors[first].clone()}, "k_proj.lora_A.weight"),
        ({first: tensors[first][:3].clone()}, "lora_A.weight is F32 .3, .*not .4, "),
        ({first: tensors[first].to(torch.int8)}, "lora_A.weight is I8"),
        ({first: tensors[first] * float("nan")}, "lora_A.weight is not finite"),
    ):
        save_file(tensors | changed, path)
        with pytest.raises(DataError, match=message):
            load_policy(tmp_path)
    save_file({name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}, path)
    with pytest.raises(DataError, match="does not fit"):
        load_policy(tmp_path)


def test_what_is_put_beside_the_weights_by_other_means_is_never_merged_away(fresh_nano):
    get_peft_model(fresh_nano.model, LoraConfig(target_modules=["fc1"], lora_bias=True))
    with pytest.raises(PolicyError, match=r"lora_B\.default\.bias"):
        MergedWeights(fresh_nano.model)


def test_the_revision_that_peft_notes_is_that_of_the_base(tmp_path, monkeypatch):
    from grape.policies.openvla import adapter_pointer

    names, base = [], tmp_path / "base"
    monkeypatch.setattr(adapter_pointer, "resolve_policy", lambda name, **options: names.append(name) or base)
    LoraConfig(target_modules=LANGUAGE, base_model_name_or_path="openvla/openvla-7b", revision="v1").save_pretrained(
        str(tmp_path)
    )
    read_pointer(tmp_path)
    assert names == ["openvla/openvla-7b@v1"]


SLOW = "(a+)+$"
HOSTILE = {
    "target_modules": [
        SLOW, "(.*)*x", "(", "[", "a" * 10_000, "", [], [1], [None], [[]], [""], ["a" * 1000], ["q_proj"] * 5000, {},
        {"q_proj": 1}, 5, True, None, ["self_attn"], ["layers.0"], ["embed_tokens"], ["norm"], ["language_model"],
        ["nowhere"], "nowhere", ".*", ["\0"],
    ],
    "exclude_modules": [SLOW, 5, {"a": 1}, [1], ["q_proj", "v_proj"], True],
    "rank_pattern": [
        {SLOW: 4}, {"(" * 50: 4}, {"q_proj": 0}, {"q_proj": -1}, {"q_proj": "4"}, {"q_proj": None}, {"q_proj": 2.5},
        {"q_proj": 2**40}, {"q_proj": True}, [], ["q_proj"], "q_proj", 3, {str(i): 4 for i in range(5000)}, {"": 4},
        {"q_proj": 5},
    ],
    "alpha_pattern": [{SLOW: 4}, {"q_proj": "4"}, {"q_proj": None}, {"q_proj": 1e300}, {"q_proj": []}, [1], "x", 7],
    "layers_to_transform": ["1", [1.5], [-1], ["1"], {}, True, [True], list(range(5000)), 2**62, [99]],
    "layers_pattern": [SLOW, ["(x+x+)+y"], 5, {}, [1], "layers"],
    "r": [0, -1, "8", None, 2.0, 2**62, True, [], 5, 10**9],
    "lora_alpha": ["8", None, 1e300, [], True, {}],
    "use_rslora": ["yes", 1, None],
    "init_lora_weights": ["pissa", "corda", "loftq", "olora", "lora_ga", "mica", "x", 1, None, []],
    "bias": ["all", "lora_only", None, 0, []],
    "lora_bias": [True, "false"],
    "use_dora": [True, 1, "false"],
    "modules_to_save": [["lm_head"], "lm_head", 1],
    "trainable_token_indices": [[1], {"embed_tokens": [1]}, 10**9],
    "megatron_config": [{"x": 1}, "x"],
    "megatron_core": ["os", "a.b"],
    "arrow_config": [{"top_k": 3}, "x"],
    "layer_replication": [[[0, 2], [1, 3]], [[0, 10**9]]],
    "alora_invocation_tokens": [[1, 2], []],
    "use_qalora": [True], "qalora_group_size": [0, "16"],
    "runtime_config": [{"ephemeral_gpu_offload": True}, []],
    "loftq_config": [{"loftq_bits": 4}],
    "corda_config": [{"cache_file": "/etc/passwd"}],
    "target_parameters": [["lm_head.weight"], "x"],
    "peft_type": ["ADALORA", "IA3", "PROMPT_TUNING", None, 3, [], {}, "lora", "LORA\0"],
    "\u001b[31mred": [True], "auto_mapping_2": [{"a": {"b": 1}}],
}  # fmt: skip


def test_hostile_configurations_end_in_a_sentence_within_seconds(base, nano, tmp_path):
    written_by_peft(base, tmp_path / "sound", target_modules=["q_proj", "v_proj"])
    network = empty_model(nano.config)
    sound = json.loads((tmp_path / "sound/adapter_config.json").read_text())
    check_adapter(tmp_path / "sound", network)
    texts = [json.dumps(sound | {key: value}) for key, values in HOSTILE.items() for value in values]
    texts += ["", "[]", "null", '"LORA"', "{", "NaN", "[" * 100_000, json.dumps(sound)[:-1] + ', "r": 4}']
    texts += [json.dumps(sound).replace('"r": 4', '"r": ' + digits) for digits in ("1e999", "9" * 5000, "NaN", "0x4")]
    assert len(texts) > 150
    folder = tmp_path / "hostile"
    shutil.copytree(tmp_path / "sound", folder)
    accepted, refused = [], []
    began = time.process_time()
    for text in texts:
        (folder / "adapter_config.json").write_text(text)
        try:
            check_adapter(folder, network)
        except (SettingsError, DataError) as error:
            refused.append(error)
        else:
            accepted.append(text)
    assert time.process_time() - began < 30
    assert [error for error in refused if not error.hint or len(error.message) > 1200] == []
    assert accepted == []


@pytest.mark.parametrize(
    "name",
    [
        "a\0b",
        "https://example.org/openvla/openvla-7b",
        "x" * 5000,
        "../../..",
        "/",
        ".",
        "",
        5,
        None,
        ["x"],
        "~",
        "a\nb",
    ],
)
def test_odd_names_of_the_base_are_sentences(base, tmp_path, name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    written_by_peft(base, tmp_path, target_modules=["q_proj"])
    path = tmp_path / "adapter_config.json"
    data = json.loads(path.read_text())
    for key, file in (("base_model_name_or_path", path), ("base", tmp_path / "grape_adapter.json")):
        file.write_text(json.dumps(data | {key: name} if file == path else {key: name}))
        if file == path:
            (tmp_path / "grape_adapter.json").unlink()
        with pytest.raises(GrapeError) as caught:
            load_policy(tmp_path)
        assert isinstance(caught.value, SettingsError | DataError)
        assert "\0" not in str(caught.value)


def test_weights_that_are_no_regular_file_are_refused(base, tmp_path):
    written_by_peft(base, tmp_path, target_modules=["q_proj"])
    path: Path = tmp_path / "adapter_model.safetensors"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="lacks adapter_model"):
        load_policy(tmp_path)
