"""How a policy is opened: names on the hub, device and number type, 4-bit weights, attention, center crop."""

import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from grape.core.errors import DataError, PolicyError, SettingsError
from grape.core.images import center_crop
from grape.policies.opening import check_policy_name, parse_hub_name, resolve_policy
from grape.policies.openvla import load_policy, precision, save_policy
from grape.policies.openvla.adapters import MergedWeights
from grape.policies.openvla.decoding import decode_actions
from grape.policies.openvla.precision import choose_precision
from tests.hub.listing import list_on_hub


@pytest.fixture(scope="module")
def saved(nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("opening") / "nano"
    save_policy(nano, folder)
    return folder


class TestNames:
    @pytest.mark.parametrize(
        ("text", "repository", "revision"),
        [
            ("openvla/openvla-7b", "openvla/openvla-7b", None),
            (Path("openvla/openvla-7b"), "openvla/openvla-7b", None),
            ("openvla/openvla-7b@31f090d", "openvla/openvla-7b", "31f090d"),
            ("hf://openvla/openvla-7b", "openvla/openvla-7b", None),
            (Path("hf://a_b/c.d"), "a_b/c.d", None),
        ],
    )  # fmt: skip
    def test_names_of_the_hub(self, text, repository, revision):
        name = parse_hub_name(text)
        assert (name.repository, name.revision) == (repository, revision)

    @pytest.mark.parametrize(
        "text", ["policy", "/abs/policy", "./a/b", "../a/b", "a/b/c", "a/..", "a//b", "", "a/b c", "~/b", "a/"]
    )
    def test_paths_that_are_no_names(self, text):
        assert parse_hub_name(text) is None

    def test_a_folder_wins_and_a_slip_of_a_path_is_no_name(self, tmp_path, monkeypatch):
        (tmp_path / "runs/policy").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        assert parse_hub_name("runs/policy") is None
        assert resolve_policy("runs/policy") == Path("runs/policy")
        with pytest.raises(SettingsError, match=r"no such checkpoint folder(.|\n)*hf://runs/polciy"):
            check_policy_name("runs/polciy")
        (tmp_path / "file").write_text("")
        with pytest.raises(SettingsError, match="is a file"):
            check_policy_name("file")


class TestHub:
    def test_only_harmless_files_are_fetched(self, saved, monkeypatch):
        request = {}

        def snapshot_download(repository, **options):
            request.update(options, repository=repository)
            return str(saved)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        list_on_hub(monkeypatch, ["config.json", "model.safetensors"])
        assert load_policy("openvla/openvla-7b@v1").unnorm_key == "metaworld"
        assert (request["repository"], request["revision"]) == ("openvla/openvla-7b", "v1")
        assert request["ignore_patterns"] == ["*/*"]
        assert not [pattern for pattern in request["allow_patterns"] if pattern.endswith((".bin", ".pt", "*"))]
        assert [name for name in request["allow_patterns"] if name.endswith(".py")] == [
            f"{kind}_prismatic.py" for kind in ("configuration", "modeling", "processing")
        ]  # carried into exports, never run

    @pytest.mark.parametrize(
        ("error", "text"),
        [
            ("LocalEntryNotFoundError", "cannot be reached(.|\n)*hf download openvla/openvla-7b"),
            ("HFValidationError", "neither a folder here nor"),
            ("OfflineModeIsEnabled", "could not be downloaded"),
        ],
    )
    def test_what_the_hub_refuses_is_said(self, monkeypatch, error, text):
        import huggingface_hub.errors

        def refuse(*_args, **_options):
            raise getattr(huggingface_hub.errors, error)("no")

        monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
        with pytest.raises(SettingsError, match=text):
            resolve_policy("openvla/openvla-7b")

    def test_an_adapter_may_point_to_the_hub(self, adapter, saved, monkeypatch):
        monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repository, **_options: str(saved))
        list_on_hub(monkeypatch, ["config.json", "model.safetensors"])
        (adapter / "grape_adapter.json").write_text(json.dumps({"base": "somebody/nano"}))
        assert load_policy(adapter).adapter is not None

    def test_an_adapter_of_peft_alone_is_understood(self, adapter, saved):
        (adapter / "grape_adapter.json").unlink()
        config = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(saved)}))
        assert load_policy(adapter).adapter is not None
        (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
        with pytest.raises(DataError, match="does not say which policy"):
            load_policy(adapter)


@pytest.fixture
def adapter(saved, tmp_path):
    """A folder with a random adapter for the nano policy."""
    policy = load_policy(saved)
    wrapper = get_peft_model(
        policy.model, LoraConfig(r=2, target_modules=policy.lora_targets(), init_lora_weights=False)
    )
    wrapper.save_pretrained(str(tmp_path / "adapter"))
    (tmp_path / "adapter/grape_adapter.json").write_text(json.dumps({"base": str(saved)}))
    return tmp_path / "adapter"


class TestPrecision:
    def test_defaults(self, monkeypatch):
        assert choose_precision("cpu", "auto", "sdpa", False, "bfloat16").dtype == torch.float32
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        gpu = choose_precision("auto", "auto", "sdpa", False, "bfloat16")
        assert (gpu.device.type, gpu.dtype, gpu.attention) == ("cuda", torch.bfloat16, "sdpa")
        assert choose_precision("cuda:1", "auto", "sdpa", False, "float32").dtype == torch.float32
        with pytest.raises(SettingsError, match="no cuda:2: 2 CUDA devices"):
            choose_precision("cuda:2", "auto", "sdpa", False, "bfloat16")

    def test_adapters_stay_in_float32_beside_bfloat16_weights(self, adapter, observations):
        policy = load_policy(adapter, dtype="bfloat16")
        kinds = {name: parameter.dtype for name, parameter in policy.model.named_parameters()}
        assert {kind for name, kind in kinds.items() if ".lora_" in name} == {torch.float32}
        assert {kind for name, kind in kinds.items() if ".lora_" not in name} == {torch.bfloat16}
        assert policy.computation == "cpu bfloat16, sdpa"
        assert np.isfinite(policy.act(observations[:2]).logps).all()

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"device": "cuda"}, "No CUDA device"),
            ({"device": "quantum"}, "Unknown device"),
            ({"device": "meta"}, "not supported"),
            ({"dtype": "float16"}, "Unknown dtype"),
            ({"attention": "flash-attention"}, "Did you mean 'flash-attention-2'"),
            ({"attention": "flash-attention-2"}, "Flash attention needs a CUDA device"),
            ({"load_in_4bit": True}, "4-bit weights need a CUDA device"),
        ],
    )
    def test_what_this_machine_cannot_do_is_said_before_weights_are_read(self, saved, tmp_path, options, text):
        copy = shutil.copytree(saved, tmp_path / "copy")
        (copy / "model.safetensors").unlink()
        with pytest.raises(SettingsError, match=text):
            load_policy(copy, **options)

    def test_missing_packages_are_named(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(precision.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(SettingsError, match=r"bitsandbytes(.|\n)*4bit"):
            choose_precision("cuda", "auto", "sdpa", True, "bfloat16")
        with pytest.raises(SettingsError, match="flash_attn"):
            choose_precision("cuda", "auto", "flash-attention-2", False, "bfloat16")

    def test_attention_gives_the_same_in_every_form(self, saved, nano, observations):
        """Padded prompts need a mask, and each implementation reads another kind of one."""
        eager = load_policy(saved, attention="eager")
        inputs = nano.encode_images([o.image for o in observations], [o.instruction for o in observations])
        assert len({len(ids) for ids in inputs.prompt_ids}) > 1
        one, two = (decode_actions(policy.model, inputs, 7, 0.0, None) for policy in (nano, eager))
        assert torch.equal(one[0], two[0])
        torch.testing.assert_close(one[1], two[1], atol=1e-5, rtol=0)
        with torch.no_grad():
            forced = eager.model.action_logps(inputs, one[0])
        torch.testing.assert_close(forced, one[1], atol=1e-5, rtol=0)

    def test_flash_attention_gets_the_positions_that_are_not_padding(self, nano, observations):
        inputs = nano.encode_images([o.image for o in observations[:4]], [o.instruction for o in observations[:4]])
        prefix = nano.model.embed_prompts(inputs)
        mask = prefix.mask("flash_attention_2", first=3)
        assert mask.shape == prefix.embeds_BSH.shape[:2]
        assert (mask.sum(dim=1) == torch.tensor([len(ids) + 16 for ids in inputs.prompt_ids])).all()


class _Layer(torch.nn.Linear):
    """Stands in for bitsandbytes' layer: rounds its weight when it is moved."""

    def __init__(self, inputs, outputs, bias, compute_dtype, quant_type, device):
        super().__init__(inputs, outputs, bias=bias, device=device)
        assert (bias, quant_type) == (False, "nf4")
        self.compute_dtype = compute_dtype

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight.to(x.dtype))


def _stand_in():
    def params(tensor, requires_grad, quant_type, compress_statistics, module):
        assert compress_statistics
        return torch.nn.Parameter((tensor * 8).round() / 8, requires_grad=requires_grad)

    return types.SimpleNamespace(nn=types.SimpleNamespace(Linear4bit=_Layer, Params4bit=params))


class TestFourBits:
    @pytest.fixture
    def policy(self, saved, monkeypatch):
        monkeypatch.setitem(sys.modules, "bitsandbytes", _stand_in())
        monkeypatch.setattr(precision, "_need", lambda *_args: None)
        return load_policy(saved, load_in_4bit=True)

    def test_only_the_blocks_of_the_language_model_are_packed(self, policy, observations):
        packed = {name for name, module in policy.model.named_modules() if isinstance(module, _Layer)}
        assert packed == precision.quantized_names(3)
        assert len(packed) == 3 * 7
        assert policy.model.is_loaded_in_4bit  # PEFT asks
        assert policy.computation == "cpu bfloat16 with 4-bit weights, sdpa"
        assert np.isfinite(policy.act(observations[:2]).logps).all()

    def test_its_hash_is_its_own_and_it_cannot_be_saved(self, policy, nano, tmp_path):
        assert policy.spec.policy_hash != nano.spec.policy_hash
        assert policy.spec.preprocessing_hash == nano.spec.preprocessing_hash
        with pytest.raises(PolicyError, match="4 bits"):
            save_policy(policy, tmp_path / "copy")
        with pytest.raises(PolicyError, match="4 bits"):
            MergedWeights(policy.model)
        assert not list(tmp_path.iterdir())

    def test_an_adapter_stays_beside(self, adapter, policy, observations):
        held = load_policy(adapter, load_in_4bit=True)
        assert held.adapter is not None
        assert np.isfinite(held.act(observations[:2]).logps).all()
        with pytest.raises(SettingsError, match="cannot be merged"):
            load_policy(adapter, load_in_4bit=True, merge=True)
        with pytest.raises(SettingsError, match="not float32"):
            load_policy(adapter, load_in_4bit=True, dtype="float32")


class TestCenterCrop:
    def test_pixels_are_those_of_the_cropped_image(self, saved, nano, observations):
        cropped = load_policy(saved, center_crop=True)
        image = observations[0].image
        ours = cropped.processor.pixels([image])
        assert torch.equal(ours, nano.processor.pixels([center_crop(image)]))
        assert not torch.equal(ours, nano.processor.pixels([image]))

    def test_it_is_cropped_after_the_resize(self, saved, nano):
        cropped = load_policy(saved, center_crop=True)
        large = np.random.default_rng(0).integers(0, 256, (100, 90, 3), dtype=np.uint8)
        expected = nano.processor.pixels([center_crop(nano.processor.resize(large))])
        assert torch.equal(cropped.processor.pixels([large]), expected)

    def test_it_is_part_of_the_pre_processing_and_of_the_checkpoint(self, saved, nano, tmp_path):
        plain, cropped = load_policy(saved), load_policy(saved, center_crop=True)
        assert plain.spec == nano.spec
        assert "center_crop" not in plain.processor.facts()  # recordings made before stay comparable
        assert cropped.processor.facts()["center_crop"] == 0.9
        assert cropped.spec.preprocessing_hash != plain.spec.preprocessing_hash
        save_policy(cropped, tmp_path / "cropped")
        again = load_policy(tmp_path / "cropped")
        assert again.spec == cropped.spec
        assert not load_policy(tmp_path / "cropped", center_crop=False).config.center_crop

    def test_an_adapter_says_it_itself(self, adapter, saved):
        (adapter / "grape_adapter.json").write_text(json.dumps({"base": str(saved), "center_crop": True}))
        assert load_policy(adapter).config.center_crop
        assert not load_policy(adapter, center_crop=False).config.center_crop

    def test_other_values_are_refused(self, saved, tmp_path):
        copy = shutil.copytree(saved, tmp_path / "copy")
        config = json.loads((copy / "config.json").read_text())
        config["grape"]["center_crop"] = "yes"
        (copy / "config.json").write_text(json.dumps(config))
        with pytest.raises(DataError, match="center_crop"):
            load_policy(copy)


def test_a_frozen_policy_hashes_once(saved, monkeypatch):
    policy = load_policy(saved)
    assert policy.freeze() is policy
    before = policy.spec
    assert not any(parameter.requires_grad for parameter in policy.model.parameters())
    monkeypatch.setattr("grape.policies.openvla.policy.hash_weights", None)
    assert policy.spec == before


def test_a_prompt_longer_than_the_network_reads_is_refused(nano, observations):
    with pytest.raises(PolicyError, match="tokens"):
        nano.encode_images([observations[0].image], ["xyz " * 900])
    with pytest.raises(DataError, match="24,000 characters"):
        nano.encode_images([observations[0].image], ["xyz " * 6000])
