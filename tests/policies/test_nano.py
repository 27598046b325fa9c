"""The nano preset: what it computes, alone and in batches, and how it decides."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grape.core.errors import PolicyError, SettingsError
from grape.core.trajectories import Observation
from grape.policies.openvla import PolicyInputs, decoding
from grape.policies.openvla.decoding import choose_tokens, decode_actions
from tests.policies.conftest import INSTRUCTIONS, make_nano


def _encode(policy, observations):
    return policy.encode_images([o.image for o in observations], [o.instruction for o in observations])


def _tokens(policy, actions, count):
    return torch.from_numpy(policy.action_tokens(actions[:count]).astype(np.int64))


def test_size_and_contract(nano):
    count = sum(parameter.numel() for parameter in nano.model.parameters())
    assert 0.7e6 <= count <= 1.0e6
    spec = nano.spec
    assert (spec.action_dim, spec.image_size, spec.gripper, spec.unnorm_key) == (7, 64, "+1 closes", "metaworld")
    assert nano.action_token_ids.shape == (32,)
    assert all(parameter.requires_grad for parameter in nano.model.parameters())  # nothing unread, nothing wasted


def test_same_seed_same_weights_whatever_the_global_generator(actions):
    first = make_nano(actions, seed=5)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    second, other = make_nano(actions, seed=5), make_nano(actions, seed=6)
    assert torch.equal(before, torch.get_rng_state())
    assert first.spec == second.spec
    assert first.spec.policy_hash != other.spec.policy_hash
    assert first.spec.preprocessing_hash == other.spec.preprocessing_hash


def test_prompts_are_short_and_told_apart(nano):
    assert nano.prompt("Open the Drawer") == "In: What action should the robot take to open the drawer?\nOut:"
    texts = [*INSTRUCTIONS, "open the door", "opén the drawer", "open  the drawer", "drawer the open", "öffne die 抽屉"]
    ids = [nano.processor.prompt_ids(text) for text in texts]
    assert len(set(ids)) == len(texts)
    assert [len(row) for row in ids[:3]] == [4, 4, 4]
    assert len(ids[3]) <= 6
    assert all(row[0] == 1 and max(row) < min(nano.action_token_ids) for row in ids)
    for text, row in zip(texts, ids, strict=True):
        assert nano.tokenizer.decode(list(row)) == nano.prompt(text)


def test_actions_come_back_from_tokens_within_a_bin(nano, actions):
    inside = np.clip(actions, nano.norm.low, nano.norm.high)
    tokens = nano.action_tokens(inside)
    assert tokens.dtype == np.int32
    assert np.isin(tokens, nano.action_token_ids).all()
    back = nano.decode_tokens(tokens)
    assert back.dtype == np.float32
    half = 0.5 * np.where(nano.norm.mask, nano.norm.high - nano.norm.low, 2.0) / 31
    assert (np.abs(back - inside) <= half + 1e-6).all()
    targets = nano.bin_targets(inside, 0.5)
    assert targets.shape == (64, 7, 32)


def test_decoding_and_teacher_forcing_agree(nano, observations):
    batch = nano.act(observations, temperature=0.7, seeds=range(20))
    with torch.no_grad():
        logps = nano.model.action_logps(_encode(nano, observations), torch.from_numpy(batch.tokens[:, 0]).long())
    np.testing.assert_allclose(logps.numpy(), batch.logps[:, 0], atol=2e-5)
    assert (batch.logps <= 0).all()
    assert batch.tokens.shape == batch.actions.shape == (20, 1, 7)


def test_a_row_is_the_same_in_any_batch_bit_by_bit(nano, observations):
    whole = nano.act(observations, temperature=0.7, seeds=range(20))
    order = np.random.default_rng(0).permutation(20)
    for size in (1, 7, 20):
        for start in range(0, 20, size):
            rows = order[start : start + size]
            part = nano.act([observations[r] for r in rows], temperature=0.7, seeds=[int(r) for r in rows])
            np.testing.assert_array_equal(part.tokens, whole.tokens[rows])
            np.testing.assert_array_equal(part.logps, whole.logps[rows])
            np.testing.assert_array_equal(part.actions, whole.actions[rows])


def test_padded_batch_equals_one_by_one(nano, observations, actions):
    inputs, tokens = _encode(nano, observations), _tokens(nano, actions, 20)
    assert len({len(ids) for ids in inputs.prompt_ids}) == 2
    with torch.no_grad():
        together = nano.model.action_logits(inputs, tokens)
        alone = torch.cat([nano.model.action_logits(inputs.slice(i, i + 1), tokens[i : i + 1]) for i in range(20)])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=0)
    padded, _ = decode_actions(nano.model, inputs, 7, 0.0, None)
    single = [decode_actions(nano.model, inputs.slice(i, i + 1), 7, 0.0, None)[0] for i in range(20)]
    assert torch.equal(padded, torch.cat(single))


def test_the_image_and_the_instruction_matter(nano, observations):
    one = observations[0]
    others = [
        one,
        Observation(255 - one.image, one.proprio, one.instruction),
        Observation(one.image, one.proprio, INSTRUCTIONS[1]),
    ]
    logps = nano.act(others).logps
    assert not np.allclose(logps[0], logps[1], atol=1e-4)
    assert not np.allclose(logps[0], logps[2], atol=1e-4)


def test_seeds_decide_the_sample(nano, observations):
    same = [observations[0]] * 8
    first = nano.act(same, temperature=1.0, seeds=[1, 1, 2, 3, 4, 5, 6, 7])
    assert (first.tokens[0] == first.tokens[1]).all()
    assert len({tuple(row) for row in first.tokens[:, 0]}) == 7
    greedy = nano.act(same)
    assert len({tuple(row) for row in greedy.tokens[:, 0]}) == 1
    with torch.no_grad():
        tokens = torch.from_numpy(greedy.tokens[:1, 0]).long()
        logits = nano.model.action_logits(_encode(nano, same[:1]), tokens)
    assert torch.equal(logits.argmax(-1), tokens)  # over the whole vocabulary


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_samples_follow_the_softmax(temperature):
    count, size = 20_000, 12
    logits = torch.from_numpy(np.random.default_rng(1).normal(0.0, 1.5, size).astype(np.float32))
    for ids in (torch.arange(size), torch.tensor([7, 3, 8])):
        tokens = choose_tokens(logits.expand(count, size), temperature, torch.arange(count), 2, ids)
        expected = np.zeros(size)
        expected[ids] = (logits[ids].double() / temperature).softmax(-1).numpy()
        frequency = np.bincount(tokens.numpy(), minlength=size) / count
        # 4 standard deviations of each frequency; the seeds are fixed, so this cannot flicker
        assert (np.abs(frequency - expected) <= 4 * np.sqrt(expected * (1 - expected) / count)).all()


def split_mix(state):
    """SplitMix64's output function, as published, on Python's integers."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4), st.integers(0, 6), st.integers(1, 20))
def test_noise_is_a_function_of_seed_place_and_column(seeds, place, count):
    signed = [seed - 2**64 if seed >= 2**63 else seed for seed in seeds]
    noise = decoding._gumbel_noise(torch.tensor(signed), place, count)
    assert torch.isfinite(noise).all()
    for row, seed in enumerate(seeds):
        for column in range(count):
            bits = split_mix((split_mix(seed) + (column + 1 + (place << 32)) * 0x9E3779B97F4A7C15) % 2**64) >> 12
            assert float(noise[row, column]) == pytest.approx(-math.log(-math.log((bits + 0.5) / 2**52)), rel=1e-12)


def test_noise_of_neighboring_seeds_places_and_columns_is_independent():
    noise = torch.stack([decoding._gumbel_noise(torch.arange(256), place, 64) for place in range(7)])
    assert abs(float(noise.mean()) - 0.5772) < 0.02
    assert abs(float(noise.var()) - math.pi**2 / 6) < 0.06
    normal = ((noise - noise.mean()) / noise.std()).reshape(7, 256, 64)
    for other in (normal.roll(1, 0), normal.roll(1, 1), normal.roll(1, 2)):
        assert abs(float((normal * other).mean())) < 5 / math.sqrt(normal.numel())


def test_only_action_bins_are_sampled(nano, observations):
    hot = nano.act(observations, temperature=1e6, seeds=range(len(observations))).tokens  # all but uniform
    assert np.isin(hot, nano.action_token_ids).all()
    assert len(np.unique(hot)) > 25  # of 32 bins, in 140 tokens


def test_gradients_reach_every_parameter(fresh_nano, observations, actions):
    fresh_nano.model.action_logps(_encode(fresh_nano, observations), _tokens(fresh_nano, actions, 20)).sum().backward()
    dead = [n for n, p in fresh_nano.model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_log_probability_is_normalized(nano, observations, actions):
    inputs, tokens = _encode(nano, observations[:2]), _tokens(nano, actions, 2)
    with torch.no_grad():
        logits = nano.model.action_logits(inputs, tokens)
        logps = nano.model.action_logps(inputs, tokens)
    assert logits.shape == (2, 7, nano.config.text["vocab_size"])
    torch.testing.assert_close(logps, logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0])


def test_other_image_sizes_are_resized(nano, observations):
    large = np.kron(observations[0].image, np.ones((2, 3, 1), dtype=np.uint8))
    assert large.shape == (128, 192, 3)
    batch = nano.act([Observation(large, np.zeros(1, np.float32), "open the drawer"), observations[0]])
    assert batch.tokens.shape == (2, 1, 7)


def test_inputs_slice_select_cat(nano, observations):
    inputs = _encode(nano, observations)
    again = PolicyInputs.cat([inputs.slice(0, 5), inputs.select(list(range(5, 20)))])
    assert again.prompt_ids == inputs.prompt_ids
    assert torch.equal(again.pixel_values_BCHW, inputs.pixel_values_BCHW)
    assert len(again) == 20
    with pytest.raises(ValueError, match="images"):
        PolicyInputs(inputs.pixel_values_BCHW, inputs.prompt_ids[:3])


def test_features_computed_before_give_the_same(nano, observations):
    inputs = _encode(nano, observations)
    tokens = torch.full((len(inputs), 7), int(nano.action_token_ids[3]))
    with torch.no_grad():
        features = nano.model.image_features(inputs.pixel_values_BCHW)
        ready = PolicyInputs(None, inputs.prompt_ids, features)
        expected = nano.model.action_logps(inputs, tokens)
        assert torch.equal(nano.model.action_logps(ready, tokens), expected)
        parts = PolicyInputs.cat([ready.slice(0, 8), ready.select(list(range(8, 20)))])
        assert torch.equal(nano.model.action_logps(parts, tokens), expected)
    for nothing in ({"pixel_values_BCHW": None}, {"features_BNC": features}):
        with pytest.raises(ValueError, match="either images or features"):
            PolicyInputs(**{"pixel_values_BCHW": inputs.pixel_values_BCHW, "prompt_ids": inputs.prompt_ids} | nothing)


def test_checkpointed_activations_give_the_same_gradient(nano, observations):
    inputs = _encode(nano, observations[:4])
    tokens = torch.full((4, 7), int(nano.action_token_ids[3]))

    def gradients(model):
        logps = model.action_logps(inputs, tokens)
        names, parameters = zip(*((name, p) for name, p in model.named_parameters() if p.requires_grad), strict=True)
        return dict(zip(names, torch.autograd.grad(logps.sum(), parameters), strict=True))

    frugal = copy.deepcopy(nano.model)
    frugal.checkpoint_activations()
    kept: list[int] = []
    expected = gradients(nano.model)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        recomputed = gradients(frugal)
    assert all(torch.equal(recomputed[name], expected[name]) for name in expected)
    inside = kept.copy()
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        gradients(nano.model)
    assert sum(inside) < 0.6 * sum(kept)


def test_nothing_to_decide(nano):
    assert nano.act([]).actions.shape == (0, 1, 7)


def test_unusable_requests_are_refused(nano, observations):
    with pytest.raises(SettingsError, match="one seed"):
        nano.act(observations[:2], temperature=1.0)
    with pytest.raises(SettingsError, match="one seed"):
        nano.act(observations[:2], temperature=1.0, seeds=[1])
    for temperature in (-1.0, float("nan")):
        with pytest.raises(SettingsError, match="temperature"):
            nano.act(observations[:2], temperature=temperature)
    for image in (np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8)):
        with pytest.raises(PolicyError, match="uint8"):
            nano.act([Observation(image, np.zeros(1, np.float32), "open the drawer")])


def test_diverged_weights_are_reported(fresh_nano, observations):
    with torch.no_grad():
        fresh_nano.model.projector.fc1.weight[0, 0] = float("nan")
    with pytest.raises(PolicyError, match="not finite"):
        fresh_nano.act(observations[:1])
