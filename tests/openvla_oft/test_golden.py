"""The public stacks' own numbers: reference, SimpleVLA-RL, RLinf, and the causal variant that looks like them."""

import hashlib

import numpy as np
import pytest
import torch

from tests.openvla_oft.conftest import LIBERO, TWIN

HIDDEN = {"atol": 3e-4, "rtol": 0}
LOGPS = {"atol": 5e-4, "rtol": 0}
PROJECTOR = {LIBERO: "libero/proprio_projector--1_checkpoint.pt", TWIN: "twin/proprio_projector--1_checkpoint.pt"}
HEAD = "libero/action_head--1_checkpoint.pt"


def close(actual, expected, **tolerance):
    np.testing.assert_allclose(
        np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64), **tolerance
    )


def hidden_and_logits(policy, inputs):
    """Hidden states and logits over the whole vocabulary at temperature 1, (B, T, ...)."""
    with torch.no_grad():
        hidden = policy.model.hidden_rows(inputs)
        return hidden, policy.model.language_model.lm_head(hidden)


def logps(policy, inputs, tokens):
    with torch.no_grad():
        shape = (len(inputs), policy.layout.chunk, policy.layout.action_dim)
        return policy.model.token_logps(inputs, torch.as_tensor(tokens).reshape(shape)).flatten(1)


def entropy(policy, inputs):
    with torch.no_grad():
        logs = policy.model.chunk_logits(inputs).log_softmax(-1)
    return -(logs.exp() * logs).sum(-1)


def check_rows(policy, inputs, recorded, rows, prefix=""):
    """Hidden states and log-sum-exps of some cases, together in one padded batch and alone."""
    alone = [hidden_and_logits(policy, inputs.slice(row, row + 1)) for row in range(len(inputs))]
    together = hidden_and_logits(policy, inputs)
    for hidden, logits in (together, tuple(map(torch.cat, zip(*alone, strict=True)))):
        close(hidden, recorded[f"{prefix}hidden"][rows], **HIDDEN)
        close(logits.logsumexp(-1), recorded[f"{prefix}lse_full"][rows], **LOGPS)
        close(logits[..., 31744:32000].logsumexp(-1), recorded[f"{prefix}lse_window"][rows], **LOGPS)
    return together[1]


def test_pixels_prompts_and_what_the_language_model_reads(golden):
    policy, recorded = golden.policy(), golden.json("cases")
    for number, image in enumerate(golden.images):
        pixels = policy.encode_images([[image]], ["go"]).pixel_values_BCHW[0]
        assert hashlib.sha256(pixels.numpy().tobytes()).hexdigest() == recorded["pixel_values_sha256"][number]
    for case in recorded["cases"]:
        assert list(policy.processor.prompt_ids(case["instruction"])) == case["input_ids"]
        assert policy.prompt(case["instruction"]) == case["prompt"]
    fed = {}
    hook = policy.model.language_model.model.register_forward_pre_hook(
        lambda module, args, kwargs: fed.update(kwargs), with_kwargs=True
    )
    hidden_and_logits(policy, golden.case_inputs(policy, [1]))
    hook.remove()
    close(fed["inputs_embeds"][0], golden.tensors("reference")["inputs_embeds_1"], **HIDDEN)


def test_ids_of_the_training_and_generation_batches(golden):
    policy, tokens = golden.policy(), golden.tensors("reference")["given_tokens"]
    instructions = golden.json("cases")["instructions"]
    trained, generated = golden.json("supervised")["batch4"], golden.json("simplevla")["generation_batch_picture_0"]
    for row, instruction in enumerate(instructions):
        ids = list(policy.processor.prompt_ids(instruction))
        whole = [*ids, *tokens[row].tolist(), 2]
        assert trained["input_ids"][row][: len(whole)] == whole
        assert sum(trained["attention_mask"][row]) == len(whole)
        assert trained["labels"][row][len(ids) : len(whole)] == whole[len(ids) :]
        valid = zip(generated["input_ids"][row], generated["attention_mask"][row], strict=True)
        assert [number for number, counts in valid if counts] == ids


def test_parts_hold_what_was_recorded(golden):
    recorded = golden.tensors("heads/heads")
    head = golden.policy("", HEAD).model.action_head
    assert {name for name in recorded if name.startswith("action_head")} == {
        f"action_head.{name}" for name in head.state_dict()
    }
    for name, weight in head.state_dict().items():
        assert torch.equal(weight, recorded[f"action_head.{name}"].float())
    for key, size in ((LIBERO, 8), (TWIN, 14)):
        projector = golden.policy("openvla-oft", PROJECTOR[key], key=key).model.proprio_projector
        for name, weight in projector.state_dict().items():
            assert torch.equal(weight, recorded[f"proprio_projector_{size}.{name}"].float())


@pytest.mark.parametrize("start", [0, 4, 8, 12])
def test_reference_cases_alone_and_padded(golden, start):
    policy, recorded = golden.policy(), golden.tensors("reference")
    rows = list(range(start, start + 4))
    inputs = golden.case_inputs(policy, rows)
    assert len({len(ids) for ids in inputs.prompt_ids}) == 4
    logits = check_rows(policy, inputs, recorded, rows)
    close(logits[start // 4, :, 31744:32000], recorded["window_logits_0_5_10_15"][start // 4], **LOGPS)
    for name in ("given", "greedy_window"):
        close(logps(policy, inputs, recorded[f"{name}_tokens"][rows]), recorded[f"{name}_logps_full"][rows], **LOGPS)
    batch = policy.decide(inputs)
    for row, case in enumerate(golden.json("cases")["cases"][start : start + 4]):
        assert batch.tokens[row].ravel().tolist() == case["greedy_tokens_full_vocabulary"]
        close(batch.normalized[row], case["normalised"], atol=1e-15)
        close(batch.actions[row], case["actions"], atol=1e-12)
    assert (batch.support, batch.temperature) == ("vocabulary", 1.0)
    window = golden.policy("simplevla-rl").decide(inputs)
    assert window.tokens.reshape(4, -1).tolist() == [
        case["greedy_tokens_window"] for case in golden.json("cases")["cases"][start : start + 4]
    ]


def test_actions_under_two_statistics_and_their_tokens(golden):
    for key, actions in golden.json("cases")["unnorm_keys_for_case_9"].items():
        policy = golden.policy(key=key)
        close(policy.decide(golden.case_inputs(policy, [9])).actions[0], actions, atol=1e-12)
    recorded = golden.tensors("reference")
    bins = golden.policy()._bins
    assert bins.encode(recorded["given_actions"].numpy()).reshape(16, -1).tolist() == recorded["given_tokens"].tolist()


def supervised_loss(policy, inputs, tokens):
    """Mean cross-entropy over 57 labels a row: the action tokens, and the stop token read from the last placeholder."""
    logits = policy.model.language_model.lm_head(policy.model.hidden_rows(inputs, extra=1))
    labels = torch.cat([tokens, torch.full((len(tokens), 1), 2)], dim=1)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def test_training_losses_of_the_reference(golden):
    policy, recorded = golden.policy(), golden.json("supervised")
    tokens = golden.tensors("reference")["given_tokens"]
    inputs = golden.case_inputs(policy, range(16))
    with torch.no_grad():
        alone = [supervised_loss(policy, inputs.slice(i, i + 1), tokens[i : i + 1]).item() for i in range(16)]
        close(alone, recorded["loss_single"], atol=1e-5)
        close(supervised_loss(policy, inputs.slice(0, 4), tokens[:4]), recorded["loss_batch4"], atol=1e-5)
        close(supervised_loss(policy, inputs, tokens), recorded["loss_batch16"], atol=1e-5)


def test_causal_attention(golden):
    policy, recorded = golden.policy(changes=("attention=causal",)), golden.tensors("causal")
    cases = [0, 5, 10, 15]
    inputs = golden.case_inputs(policy, cases)
    logits = check_rows(policy, inputs, recorded, range(4))
    close(logits[0, :, 31744:32000], recorded["window_logits_first"], **LOGPS)
    given = golden.tensors("reference")["given_tokens"][cases]
    close(logps(policy, inputs, given), recorded["given_logps_full"], **LOGPS)
    batch = policy.decide(inputs)
    for row, case in enumerate(golden.json("causal")["cases"]):
        assert batch.tokens[row].ravel().tolist() == case["greedy_tokens_full_vocabulary"]
        close(batch.actions[row], case["actions"], atol=1e-12)


def test_two_cameras(golden):
    policy, recorded = golden.policy(cameras=2), golden.tensors("two_images")
    cases = golden.json("two_images")["cases"]
    images = [[golden.images[case["image"]], golden.images[case["wrist_image"]]] for case in cases]
    inputs = policy.encode_images(images, [case["instruction"] for case in cases])
    logits = check_rows(policy, inputs, recorded, range(4))
    close(logits[0, :, 31744:32000], recorded["window_logits_first"], **LOGPS)
    close(logps(policy, inputs, recorded["given_tokens"]), recorded["given_logps_full"], **LOGPS)
    batch = policy.decide(inputs)
    for row, case in enumerate(cases):
        assert batch.tokens[row].ravel().tolist() == case["greedy_tokens_full_vocabulary"]
        close(batch.actions[row], case["actions"], atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 1.6])
def test_simplevla_rl_scores_entropy_and_executed_steps(golden, temperature):
    policy, recorded = (
        golden.policy("simplevla-rl", changes=(f"temperature={temperature}",)),
        golden.tensors("simplevla"),
    )
    finish = torch.tensor(golden.json("simplevla")["finish_step"])
    inputs = golden.case_inputs(policy, range(16))
    order = [picture * 4 + instruction for instruction in range(4) for picture in range(4)]
    played = (finish[:, None] - 8 * torch.arange(4)).clamp(0, 8)
    for name in ("given", "greedy", "sampled"):
        tokens = recorded[f"{name}_tokens"]
        every = logps(policy, inputs, tokens)[order].reshape(4, 4, 56)
        close(every, recorded[f"logps_all_{name}_T{temperature}"], **LOGPS)
        with torch.no_grad():
            sums = policy.decision_logps(
                inputs.select(order), tokens[order].reshape(16, 8, 7).contiguous(), played.flatten()
            )
        expected = recorded[f"logps_{name}_T{temperature}"]
        close(sums.reshape(4, 4), expected.sum(-1), atol=56 * 5e-4, rtol=0)
        mask = (torch.arange(8) < played[..., None]).repeat_interleave(7, dim=-1)
        close(every * mask, expected, **LOGPS)
    close(entropy(policy, inputs)[order].reshape(4, 4, 56) * mask, recorded[f"entropy_given_T{temperature}"], **LOGPS)


def test_simplevla_rl_greedy_decoding(golden):
    policy, recorded = golden.policy("simplevla-rl"), golden.json("simplevla")
    batch = policy.decide(golden.case_inputs(policy, range(16)))
    for row, case in enumerate(recorded["greedy"]):
        assert batch.tokens[row].ravel().tolist() == case["tokens"]
        close(batch.normalized[row], case["normalised"], atol=1e-15)
        close(batch.actions[row], case["actions"], atol=1e-12)
    assert (batch.support, batch.temperature) == ("window", 1.6)


def test_simplevla_rl_two_images(golden):
    policy = golden.policy("simplevla-rl", cameras=2)
    for case in golden.json("simplevla")["two_images"]:
        images = [[golden.images[case["image"]], golden.images[case["wrist_image"]]]]
        inputs = policy.encode_images(images, [case["instruction"]])
        batch = policy.decide(inputs)
        assert batch.tokens.ravel().tolist() == case["greedy_tokens"]
        close(batch.actions[0], case["actions"], atol=1e-12)
        played = torch.arange(56) < 7 * case["finish_step"]
        close(logps(policy, inputs, [case["given_tokens"]])[0] * played, case["logps_T1.6"], **LOGPS)


@pytest.mark.parametrize("temperature", [1.0, 1.6])
def test_rlinf_scores_and_entropy(golden, temperature):
    policy, recorded = golden.policy("rlinf", changes=(f"temperature={temperature}",)), golden.tensors("rlinf")
    inputs = golden.case_inputs(policy, range(16))
    tokens = {
        "given": golden.tensors("reference")["given_tokens"],
        "greedy": recorded["greedy_tokens"],
        "sampled": golden.tensors("simplevla")["sampled_tokens"],
    }
    for name, ids in tokens.items():
        close(logps(policy, inputs, ids), recorded[f"logps_{name}_T{temperature}"], **LOGPS)
    close(entropy(policy, inputs), recorded[f"entropy_given_T{temperature}"], **LOGPS)
    _, logits = hidden_and_logits(policy, inputs.slice(5, 6))
    close(logits[0, :, 31744:32000], recorded["window_logits_5"], **LOGPS)
    assert policy.decide(inputs).tokens.reshape(16, -1).tolist() == recorded["greedy_tokens"].tolist()


def test_rlinf_environment_batch_and_two_images(golden):
    policy = golden.policy("rlinf", changes=("temperature=1",))
    recorded = golden.json("rlinf")
    expected = recorded["environment_batch"]
    inputs = policy.encode_images([[golden.images[2]]] * 4, expected["instructions"])
    for ids, row, valid in zip(inputs.prompt_ids, expected["input_ids"], expected["attention_mask"], strict=True):
        assert list(ids) == [number for number, counts in zip(row, valid, strict=True) if counts]
    batch = policy.decide(inputs)
    assert batch.tokens.reshape(4, -1).tolist() == np.asarray(expected["greedy_tokens"]).reshape(4, -1).tolist()
    close(batch.actions, np.asarray(expected["actions"]).reshape(batch.actions.shape), atol=1e-12)
    close(batch.logps.reshape(4, -1), np.asarray(expected["prev_logprobs_T1"]).reshape(4, -1), **LOGPS)
    wide = golden.policy("rlinf", cameras=2)
    for case in recorded["two_images"]:
        images = [[golden.images[case["image"]], golden.images[case["wrist_image"]]]]
        inputs = wide.encode_images(images, [case["instruction"]])
        batch = wide.decide(inputs)
        assert batch.tokens.ravel().tolist() == case["greedy_tokens"]
        close(batch.actions[0], case["actions"], atol=1e-12)
        given = golden.tensors("reference")["given_tokens"][5 * case["image"]]
        close(logps(wide, inputs, given[None])[0], case["logps_given_T1.6"], **LOGPS)


def twin_inputs(golden, policy, case, proprio=True):
    state = np.asarray([case["proprio"]]) if proprio else None
    return policy.encode_images([[golden.images[i] for i in case["images"]]], [case["instruction"]], state)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_two_arms_with_robot_state(golden, number):
    case, recorded = golden.json("twin")["cases"][number], golden.tensors("twin")
    count = len(case["images"])
    policy = golden.policy("openvla-oft", PROJECTOR[TWIN], key=TWIN, cameras=count)
    assert (policy.layout.chunk, policy.layout.action_dim, policy.layout.bounds) == (25, 14, "min-max")
    inputs = twin_inputs(golden, policy, case)
    close(inputs.proprio_BP[0], case["proprio_normalised"], atol=1e-6)
    logits = check_rows(
        policy,
        inputs,
        {name: recorded[f"{name}_case_{number}"][None] for name in ("hidden", "lse_full", "lse_window")},
        [0],
    )
    given = recorded[f"given_tokens_case_{number}"][None]
    close(logps(policy, inputs, given)[0], recorded[f"given_logps_full_case_{number}"], **LOGPS)
    batch = policy.decide(inputs)
    assert batch.tokens.ravel().tolist() == case["greedy_tokens_full_vocabulary"]
    close(batch.normalized[0], case["normalised"], atol=1e-15)
    close(batch.actions[0], case["actions"], atol=1e-12)
    if number == 0:
        close(logits[0, :42, 31744:32000], recorded["window_logits_case_0_first_42"], **LOGPS)
        fed = policy.model.embed_prompts(inputs)
        close(fed.embeds_BSH[0, 256:260].detach(), recorded["inputs_embeds_case_0_rows_256_260"], **HIDDEN)
    if number == 1:
        blind = golden.policy("openvla-oft", key=TWIN)
        hidden, _ = hidden_and_logits(blind, twin_inputs(golden, blind, case, proprio=False))
        close(hidden[0], recorded["hidden_case_1_without_proprio"], **HIDDEN)


def test_two_arms_loss_of_a_padded_batch(golden):
    policy = golden.policy("openvla-oft", PROJECTOR[TWIN], key=TWIN)
    cases, recorded = golden.json("twin")["cases"][:2], golden.tensors("twin")
    parts = [twin_inputs(golden, policy, case) for case in cases]
    tokens = torch.stack([recorded["given_tokens_case_0"], recorded["given_tokens_case_1"]])
    with torch.no_grad():
        loss = supervised_loss(policy, type(parts[0]).cat(parts), tokens)
    close(loss, golden.json("twin")["loss_of_padded_batch_of_case_0_and_1"], atol=1e-5)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_two_arms_of_simplevla_rl(golden, number):
    case, recorded = golden.json("simplevla_twin")["cases"][number], golden.tensors("simplevla_twin")
    described = golden.json("twin")["cases"][number]
    policy = golden.policy("simplevla-rl", PROJECTOR[TWIN], key=TWIN, cameras=len(case["images"]))
    inputs = twin_inputs(golden, policy, described)
    batch = policy.decide(inputs)
    assert batch.tokens.ravel().tolist() == recorded[f"greedy_tokens_case_{number}"].tolist()
    close(batch.actions[0], case["actions"], atol=1e-12)
    given = golden.tensors("twin")[f"given_tokens_case_{number}"][None]
    played = torch.arange(350) < 14 * case["finish_step"]
    close(logps(policy, inputs, given)[0] * played, recorded[f"logps_T1.6_case_{number}"], **LOGPS)
    with torch.no_grad():
        total = policy.decision_logps(inputs, given.reshape(1, 25, 14), torch.tensor([case["finish_step"]]))
    close(total[0], case["sum_logps_T1.6"], atol=0.05, rtol=0)
    cold = golden.policy(
        "simplevla-rl", PROJECTOR[TWIN], key=TWIN, cameras=len(case["images"]), changes=("temperature=1",)
    )
    close(logps(cold, inputs, given)[0], recorded[f"logps_all_T1.0_case_{number}"], **LOGPS)


@pytest.mark.parametrize("number", range(8))
def test_l1_regression_head(golden, number):
    case = golden.json("l1")["cases"][number]
    wrist = [case["wrist_image"]] if "wrist_image" in case else []
    parts = (HEAD, PROJECTOR[LIBERO]) if "proprio" in case else (HEAD,)
    policy = golden.policy("", *parts, cameras=1 + len(wrist))
    assert not policy.has_logps
    state = np.asarray([case["proprio"]]) if "proprio" in case else None
    inputs = policy.encode_images([[golden.images[i] for i in [case["image"], *wrist]]], [case["instruction"]], state)
    assert list(inputs.prompt_ids[0]) == case["input_ids"]
    if state is not None:
        close(inputs.proprio_BP[0], case["proprio_normalised"], atol=1e-6)
    with torch.no_grad():
        close(policy.model.hidden_rows(inputs)[0], golden.tensors("l1")[f"hidden_{case['name']}"], **HIDDEN)
    batch = policy.decide(inputs)
    close(batch.normalized[0], case["normalised"], atol=1e-4)
    close(batch.actions[0], case["actions"], atol=1e-4)
    assert batch.tokens is None
    assert batch.logps is None


def check_gradients(model, norms, without):
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert {name for name, gradient in gradients.items() if gradient is None} == set(without)
    for name, norm in norms.items():
        assert gradients[name].norm().item() == pytest.approx(norm, rel=2e-4, abs=1e-7), name
    return gradients


SLICES = {
    "dino_block0_ls1": ("vision_backbone.featurizer.blocks.0.ls1.scale_factor", slice(None)),
    "dino_block1_qkv_first_8": ("vision_backbone.featurizer.blocks.1.attn.qkv.weight", slice(8)),
    "embed_rows_1_2_29871_32000": ("language_model.model.embed_tokens.weight", [1, 2, 29871, 32000]),
    "final_norm": ("language_model.model.norm.weight", slice(None)),
    "layer0_input_layernorm": ("language_model.model.layers.0.input_layernorm.weight", slice(None)),
    "layer0_o_proj_first_8": ("language_model.model.layers.0.self_attn.o_proj.weight", slice(8)),
    "layer1_q_proj": ("language_model.model.layers.1.self_attn.q_proj.weight", slice(None)),
    "lm_head_rows_100_104": ("language_model.lm_head.weight", slice(100, 104)),
    "lm_head_rows_31744_31999": ("language_model.lm_head.weight", slice(31744, 32000)),
    "projector_fc1_first_16": ("projector.fc1.weight", slice(16)),
    "projector_fc3_bias": ("projector.fc3.bias", slice(None)),
    "siglip_block0_fc1_first_8": ("vision_backbone.fused_featurizer.blocks.0.mlp.fc1.weight", slice(8)),
    "siglip_pos_embed_first_4": ("vision_backbone.fused_featurizer.pos_embed", (0, slice(4))),
}


def test_gradients_of_executed_tokens_and_of_the_training_loss(golden):
    policy, recorded = golden.policy(), golden.json("gradients")
    cases = recorded["cases"]
    inputs = golden.case_inputs(policy, cases)
    tokens = golden.tensors("reference")["given_tokens"][cases]
    policy.model.zero_grad(set_to_none=True)
    try:
        executed = torch.tensor(recorded["executed_steps"])
        total = policy.decision_logps(inputs, tokens.reshape(2, 8, 7), executed).sum()
        close(total.item(), recorded["executed"]["value"], rtol=1e-5)
        total.backward()
        gradients = check_gradients(policy.model, recorded["executed"]["norms"], recorded["executed"]["none"])
        embedding = gradients["language_model.model.embed_tokens.weight"]
        rows = embedding.abs().sum(-1).nonzero().flatten().tolist()
        assert rows == recorded["rows_of_embed_tokens_with_gradient"]
        for name, expected in golden.tensors("gradients").items():
            parameter, index = SLICES[name]
            scale = max(float(gradients[parameter].norm()), 1e-12)
            assert float((gradients[parameter][index] - expected).norm()) <= 2e-4 * scale, name
        policy.model.zero_grad(set_to_none=True)
        loss = supervised_loss(policy, inputs, tokens)
        close(loss.item(), recorded["loss"]["value"], atol=1e-5)
        loss.backward()
        check_gradients(policy.model, recorded["loss"]["norms"], recorded["loss"]["none"])
    finally:
        policy.model.zero_grad(set_to_none=True)


def test_gradient_of_simplevla_rl(golden):
    policy, recorded = golden.policy("simplevla-rl"), golden.json("simplevla")["gradient"]
    cases = [picture * 4 + 1 for picture in range(4)]
    inputs = golden.case_inputs(policy, cases)
    tokens = golden.tensors("simplevla")["given_tokens"][cases].reshape(4, 8, 7)
    policy.model.zero_grad(set_to_none=True)
    try:
        total = policy.decision_logps(inputs, tokens, (13 - 8 * torch.arange(4)).clamp(0, 8)).sum()
        close(total.item(), recorded["sum"], rtol=1e-5)
        total.backward()
        gradients = check_gradients(policy.model, recorded["norms"], recorded["none"])
        lm_head = gradients["language_model.lm_head.weight"]
        outside = torch.cat([lm_head[:31744], lm_head[32000:]])
        assert float(outside.abs().max()) == recorded["lm_head_rows_outside_window_max"] == 0.0
        slices = {
            "grad_dino_block1_qkv_first_4": ("vision_backbone.featurizer.blocks.1.attn.qkv.weight", slice(4)),
            "grad_layer1_q_proj_first_8": ("language_model.model.layers.1.self_attn.q_proj.weight", slice(8)),
            "grad_lm_head_31900_31910": ("language_model.lm_head.weight", slice(31900, 31910)),
            "grad_projector_fc1_first_4": ("projector.fc1.weight", slice(4)),
        }
        for name, (parameter, index) in slices.items():
            expected = golden.tensors("simplevla")[name]
            assert float((gradients[parameter][index] - expected).norm()) <= 2e-4 * float(
                gradients[parameter].norm()
            ), name
    finally:
        policy.model.zero_grad(set_to_none=True)
