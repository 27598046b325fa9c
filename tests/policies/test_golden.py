"""The published implementation's own numbers: pixels, features, logits, log-probabilities, decoded actions."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from grape.core.trajectories import Observation
from grape.policies.openvla import ActionTokenizer, load_policy, save_policy
from grape.policies.openvla.action_tokens import ActionNorm
from grape.policies.openvla.decoding import decode_actions


@pytest.fixture(scope="module")
def policy(golden):
    return load_policy(golden / "ckpt", unnorm_key="bridge_orig")


@pytest.fixture(scope="module")
def images(golden):
    return [np.asarray(Image.open(golden / f"images/img{i}.png").convert("RGB")) for i in range(4)]


@pytest.fixture(scope="module")
def vision(golden):
    return load_file(golden / "vision.safetensors")


@pytest.fixture(scope="module")
def supervised(golden):
    return json.loads((golden / "supervised.json").read_text())["examples"]


@pytest.fixture(scope="module")
def greedy(golden):
    return json.loads((golden / "predict_action.json").read_text())


def test_pixels_are_exact(policy, images, vision):
    pixels = policy.processor.pixels(images)
    assert torch.equal(pixels[0], vision["pixel_values_0"])
    assert torch.equal(pixels[:, :, ::16, ::16], vision["pixel_values_sub"])


def test_features_of_both_towers_and_projector(policy, images, vision):
    backbone = policy.model.vision_backbone
    pixels = policy.processor.pixels(images)
    with torch.no_grad():
        torch.testing.assert_close(backbone.featurizer(pixels[:, :3]), vision["dino_features"], atol=1e-5, rtol=0)
        torch.testing.assert_close(
            backbone.fused_featurizer(pixels[:, 3:]), vision["siglip_features"], atol=1e-5, rtol=0
        )
        torch.testing.assert_close(policy.model.projector(backbone(pixels)), vision["projected"], atol=1e-5, rtol=0)


def test_prompt_ids_of_every_case(policy, supervised, greedy):
    for example in supervised:
        ids = list(policy.processor.prompt_ids(example["instruction"]))
        assert ids == example["input_ids"][: len(ids)]
        assert ids[-1] == 29871
    for case in greedy:  # recorded before the published code appends its empty token
        assert policy.prompt(case["instruction"]) == case["prompt"]
        assert list(policy.processor.prompt_ids(case["instruction"])) == [*case["input_ids"], 29871]


def test_log_probabilities_of_labels(policy, images, supervised):
    for example in supervised:
        labels = torch.tensor([[*example["action_ids"], 2]])  # end of sequence was scored there too
        inputs = policy.encode_images([images[example["image"]]], [example["instruction"]])
        with torch.no_grad():
            logps = policy.model.action_logps(inputs, labels)[0]
        np.testing.assert_allclose(logps.numpy(), example["token_logps"], atol=5e-4)


def test_log_probabilities_in_one_padded_batch(policy, images, supervised):
    labels = torch.tensor([[*example["action_ids"], 2] for example in supervised])
    inputs = policy.encode_images(
        [images[example["image"]] for example in supervised], [example["instruction"] for example in supervised]
    )
    assert len({len(ids) for ids in inputs.prompt_ids}) > 1
    with torch.no_grad():
        logps = policy.model.action_logps(inputs, labels)
    np.testing.assert_allclose(logps.numpy(), [example["token_logps"] for example in supervised], atol=5e-4)


def test_logits_over_the_whole_vocabulary(golden, policy, images, supervised):
    golden_logits = load_file(golden / "logits.safetensors")
    example = supervised[0]
    labels = torch.tensor([[*example["action_ids"], 2]])
    with torch.no_grad():
        logits = policy.model.action_logits(policy.encode_images([images[0]], [example["instruction"]]), labels)[0]
    # The recorded rows are the last nine positions: eight predictions and one after the end.
    torch.testing.assert_close(logits, golden_logits["logits_last9_0"][:8], atol=5e-4, rtol=0)
    torch.testing.assert_close(logits.logsumexp(-1), golden_logits["lse_0"][-9:-1], atol=5e-4, rtol=0)


def test_labels_become_the_published_tokens(supervised):
    bins = ActionTokenizer(32000, 256)
    for example in supervised:
        assert bins.encode(np.asarray(example["action"])).tolist() == example["action_ids"]


def test_greedy_actions_of_all_cases(golden, images, greedy):
    assert len(greedy) == 20
    for key in sorted({case["unnorm_key"] for case in greedy}):
        policy = load_policy(golden / "ckpt", unnorm_key=key)
        cases = [case for case in greedy if case["unnorm_key"] == key]
        batch = policy.act([_observation(images, case) for case in cases])
        assert batch.tokens[:, 0].tolist() == [case["generated"] for case in cases]
        np.testing.assert_allclose(batch.logps[:, 0], [case["token_logp"] for case in cases], atol=5e-4)
        np.testing.assert_allclose(batch.actions[:, 0], [case["action"] for case in cases], atol=1e-12, rtol=0)
        np.testing.assert_array_equal(policy.decode_tokens(batch.tokens), batch.actions.astype(np.float32))


def test_greedy_tokens_in_one_left_padded_batch(policy, images, greedy):
    inputs = policy.encode_images([images[case["image"]] for case in greedy], [case["instruction"] for case in greedy])
    tokens, logps = decode_actions(policy.model, inputs, 7, 0.0, None)
    assert tokens.tolist() == [case["generated"] for case in greedy]
    np.testing.assert_allclose(logps.numpy(), [case["token_logp"] for case in greedy], atol=5e-4)


def test_ids_outside_the_action_range_clip(golden):
    data = json.loads((golden / "decode_out_of_range.json").read_text())
    decoded = ActionTokenizer(32000, 256).decode(np.asarray(data["ids"]))
    np.testing.assert_allclose(decoded, data["normalized"], atol=1e-15, rtol=0)


def test_every_bin_edge_in_both_precisions(golden):
    bins = ActionTokenizer(32000, 256)
    wide = np.load(golden / "action_tokenizer.npz")
    np.testing.assert_array_equal(bins.encode(wide["values"]), wide["token_ids"])
    np.testing.assert_array_equal(bins.decode(wide["token_ids"]), wide["decoded"])
    np.testing.assert_array_equal(bins.decode(wide["all_ids"]), wide["all_decoded"])
    np.testing.assert_array_equal(bins.edges, wide["bins"])
    np.testing.assert_array_equal(bins.centers, wide["bin_centers"])
    narrow = np.load(golden / "action_tokenizer_f32.npz")
    assert narrow["values"].dtype == np.float32
    np.testing.assert_array_equal(bins.encode(narrow["values"]), narrow["token_ids"])


def test_statistics_without_a_mask_map_every_dimension(policy):
    norm = ActionNorm.from_stats(policy.config.norm_stats["nomask_dataset"], "nomask_dataset")
    assert norm.mask.all()
    assert not ActionNorm.from_stats(policy.config.norm_stats["bridge_orig"], "bridge_orig").mask[-1]


def test_saving_keeps_layout_names_and_bits(golden, policy, tmp_path):
    save_policy(policy, tmp_path / "copy")
    source, copy = load_file(golden / "ckpt/model.safetensors"), load_file(tmp_path / "copy/model.safetensors")
    assert source.keys() == copy.keys()
    assert all(torch.equal(source[name], copy[name]) and copy[name].dtype == torch.bfloat16 for name in source)
    assert json.loads((tmp_path / "copy/config.json").read_text()) == json.loads(
        (golden / "ckpt/config.json").read_text()
    )
    for name in ("preprocessor_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (golden / "ckpt" / name).read_bytes()
    statistics = json.loads((tmp_path / "copy/dataset_statistics.json").read_text())
    assert statistics == json.loads((golden / "ckpt/dataset_statistics.json").read_text())


def _observation(images, case):
    return Observation(images[case["image"]], np.zeros(1, np.float32), case["instruction"])
