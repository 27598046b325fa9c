"""What must hold of any policy that decides in chunks, on the nano policy."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.errors import CompatibilityError, PolicyError, SettingsError
from grape.core.trajectories import Observation
from grape.policies.openvla_oft import loading
from grape.policies.openvla_oft.conventions import PRESETS, Layout
from grape.policies.openvla_oft.loading import state_oft
from grape.policies.openvla_oft.nano import NANO_CONVENTIONS, create_nano_oft
from grape.policies.openvla_oft.policy import OFTPolicy
from grape.policies.presets import NanoShape
from tests.openvla_oft.conftest import INSTRUCTIONS, make_nano, nano_inputs, nano_statistics

TEXTS = st.lists(st.sampled_from([*INSTRUCTIONS, "go", "put the xylophone behind the bowl"]), min_size=2, max_size=5)


def logits(policy, inputs):
    with torch.no_grad():
        return policy.model.chunk_logits(inputs)


@settings(max_examples=15)
@given(texts=TEXTS, seed=st.integers(0, 9))
def test_rows_do_not_depend_on_padding_or_on_other_rows(nano, texts, seed):
    inputs = nano_inputs(nano, texts, seed)
    together = logits(nano, inputs)
    for row in range(len(texts)):
        torch.testing.assert_close(together[row : row + 1], logits(nano, inputs.slice(row, row + 1)), atol=2e-5, rtol=0)


@settings(max_examples=5)
@given(texts=TEXTS, temperature=st.sampled_from([0.0, 1.0]))
def test_a_decision_is_the_same_to_the_bit_in_any_batch(nano, texts, temperature):
    inputs = nano_inputs(nano, texts)
    seeds = list(range(len(texts)))
    whole = nano.decide(inputs, temperature=temperature, seeds=seeds)
    for row in range(len(texts)):
        alone = nano.decide(inputs.slice(row, row + 1), temperature=temperature, seeds=seeds[row : row + 1])
        assert np.array_equal(alone.tokens[0], whole.tokens[row])
        assert np.array_equal(alone.logps[0], whole.logps[row])


@pytest.mark.parametrize("support", ["window", "vocabulary"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.6])
def test_probabilities_over_the_support_sum_to_one(support, temperature):
    policy = make_nano(conventions=dataclasses.replace(NANO_CONVENTIONS, support=support, temperature=temperature))
    inputs = nano_inputs(policy, ["go"])
    ids = torch.tensor(policy.model.support)
    rows = inputs.select([0] * len(ids))
    logps = policy.model.token_logps(rows, ids[:, None, None].expand(-1, 3, 7))
    torch.testing.assert_close(logps.exp().sum(0), torch.ones(3, 7))
    if support == "window":
        assert ids.tolist() == sorted(policy.action_token_ids)
        outside = policy.model.token_logps(inputs, torch.full((1, 3, 7), ids[0] - 1))
        assert bool(torch.isneginf(outside).all())


@pytest.mark.parametrize(
    "changes",
    [{"attention": "causal"}, {"stop_row": "removed"}, {"prompt_tail": "written"}, {"temperature": 1.6}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_wrong_convention_changes_the_result(nano, changes):
    other = with_conventions(nano, **changes)
    inputs = nano_inputs(nano, ["go"]), nano_inputs(other, ["go"])
    assert float((logits(nano, inputs[0]) - logits(other, inputs[1])).abs().max()) > 1e-3
    assert other.preprocessing_hash != nano.preprocessing_hash


def with_conventions(policy, **changes):
    """The same weights under other conventions."""
    conventions = dataclasses.replace(policy.conventions, **changes)
    layout = {item.name: getattr(policy.layout, item.name) for item in dataclasses.fields(policy.layout)}
    other = make_nano(conventions=conventions, **layout)
    other.model.load_state_dict(policy.model.state_dict())
    return other


def test_reading_one_row_late_or_swapping_inputs_changes_the_result(nano):
    inputs = nano_inputs(nano, ["go"])
    with torch.no_grad():
        rows = nano.model.hidden_rows(inputs, extra=1)
    assert float((rows[:, 1:] - rows[:, :-1]).abs().amax(dim=-1).min()) > 1e-4
    swapped = dataclasses.replace(inputs, pixel_values_BCHW=inputs.pixel_values_BCHW.roll(3, dims=1))
    moved = dataclasses.replace(inputs, proprio_BP=inputs.proprio_BP.roll(1, dims=1))
    for other in (swapped, moved):
        assert float((logits(nano, inputs) - logits(nano, other)).abs().max()) > 1e-4


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_the_last_action_reaches_the_first_only_with_bidirectional_attention(attention):
    policy = make_nano(conventions=dataclasses.replace(NANO_CONVENTIONS, attention=attention))
    long = make_nano(conventions=policy.conventions, chunk=4)
    long.model.load_state_dict(policy.model.state_dict())
    few, many = (logits(one, nano_inputs(one, ["go"])) for one in (policy, long))
    same = float((few - many[:, : few.shape[1]]).abs().max()) < 5e-5  # rounding: another length, other kernels
    assert same == (attention == "causal")


def test_actions_that_were_not_executed_have_no_gradient(nano):
    inputs = nano_inputs(nano, ["go", "open the drawer"])
    tokens = torch.from_numpy(nano.decide(inputs).tokens).long()
    tail = tokens.clone()
    tail[0, 1:] = 0  # no action token; nobody may read it
    executed = torch.tensor([1, 3])
    gradients = []
    for given_tokens in (tokens, tail):
        nano.model.zero_grad(set_to_none=True)
        values = nano.decision_logps(inputs, given_tokens, executed)
        values.sum().backward()
        gradients.append([p.grad.clone() for p in nano.model.parameters() if p.grad is not None])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.equal(ours, theirs)
        assert bool(torch.isfinite(ours).all())
    parts = nano.model.token_logps(inputs, tokens)
    torch.testing.assert_close(values, torch.stack([parts[0, :1].sum(), parts[1].sum()]))
    nano.model.zero_grad(set_to_none=True)
    nothing = nano.decision_logps(inputs, tail, torch.tensor([0, 0]))
    nothing.sum().backward()
    assert nothing.tolist() == [0.0, 0.0]
    assert all(not p.grad.any() for p in nano.model.parameters() if p.grad is not None)
    nano.model.zero_grad(set_to_none=True)


def test_executed_tokens_of_another_support_are_refused(nano):
    inputs = nano_inputs(nano, ["go"])
    tokens = torch.zeros(1, 3, 7, dtype=torch.long)
    with pytest.raises(PolicyError, match="another support"):
        nano.decision_logps(inputs, tokens, torch.tensor([1]))
    with pytest.raises(PolicyError, match=r"Tokens \(1, 2, 7\).*3 actions of 7 dimensions"):
        nano.decision_logps(inputs, tokens[:, :2], torch.tensor([1]))
    with pytest.raises(PolicyError, match=r"Tokens \(1, 3\)"):
        nano.model.token_logps(inputs, tokens[..., 0])
    with pytest.raises(PolicyError, match="0 to 3"):
        nano.decision_logps(inputs, tokens, torch.tensor([4]))


def test_sampling_follows_the_temperature_and_needs_seeds(nano):
    rows = nano_inputs(nano, ["go"]).select([0] * 64)
    spread = {t: len(np.unique(nano.decide(rows, temperature=t, seeds=range(64)).tokens[:, 0, 0])) for t in (0.01, 1.0)}
    assert spread[0.01] < spread[1.0]
    one = nano.decide(rows.slice(0, 1), temperature=1.0, seeds=[5])
    assert np.array_equal(one.tokens, nano.decide(rows.slice(0, 1), temperature=1.0, seeds=[5]).tokens)
    assert np.isin(one.tokens, nano.action_token_ids).all()
    with pytest.raises(SettingsError, match="seed"):
        nano.decide(rows, temperature=1.0)
    with pytest.raises(SettingsError, match="temperature is -1"):
        nano.decide(rows, temperature=-1.0)


def test_sampled_log_probabilities_are_those_of_scoring(nano):
    inputs = nano_inputs(nano, ["go", "open the drawer"])
    batch = nano.decide(inputs, temperature=1.0, seeds=[1, 2])
    with torch.no_grad():
        scored = nano.model.token_logps(inputs, torch.from_numpy(batch.tokens))
    np.testing.assert_allclose(batch.logps, scored.numpy(), atol=2e-5)
    assert (batch.support, batch.temperature) == ("window", 1.0)


@settings(max_examples=30)
@given(
    st.lists(st.floats(-1.0, 1.0, width=32), min_size=7, max_size=7),
    st.integers(1, 4),
)
def test_actions_survive_their_tokens_within_a_bin(nano, values, rows):
    actions = nano.norm.unnormalize(np.tile(np.asarray(values), (rows, 1)))
    back = nano.decode_tokens(nano.action_tokens(actions))
    width = np.where(nano.norm.mask, nano.norm.high - nano.norm.low, 2.0) / (nano.config.action_bins - 1)
    assert (np.abs(back - actions) <= width / 2 + 1e-6).all()


def test_what_the_policy_does_not_read_is_refused(nano):
    image, state = np.zeros((64, 64, 3), np.uint8), np.zeros((1, 4))
    with pytest.raises(CompatibilityError, match=r"reads 2 images \(agentview, wrist\), found 1"):
        nano.encode_images([[image]], ["go"], state)
    with pytest.raises(CompatibilityError, match="4 numbers; found none"):
        nano.encode_images([[image, image]], ["go"])
    with pytest.raises(CompatibilityError, match="4 numbers; found 5"):
        nano.encode_images([[image, image]], ["go"], np.zeros((1, 5)))
    with pytest.raises(PolicyError, match="not finite"):
        nano.encode_images([[image, image]], ["go"], np.full((1, 4), np.nan))
    with pytest.raises(PolicyError, match="prompt of"):
        nano.encode_images([[image, image]], ["xylophone " * 1500], state)
    blind = make_nano()
    with pytest.raises(CompatibilityError, match="does not read"):
        blind.encode_images([[image]], ["go"], state)
    with pytest.raises(PolicyError, match="does not read the robot's state"):
        blind.model.chunk_logits(dataclasses.replace(nano_inputs(blind, ["go"]), proprio_BP=torch.zeros(1, 4)))


def test_observations_with_one_image_are_acted_on():
    policy = make_nano(proprio_dim=4)
    rng = np.random.default_rng(0)
    observations = [
        Observation(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), np.zeros(4, np.float32), text)
        for text in ("go", "open the drawer")
    ]
    assert policy.act(observations).actions.shape == (2, 3, 7)
    assert policy.act([]).tokens.shape == (0, 3, 7)
    assert policy.spec.action_dim == 7
    assert policy.freeze().spec.preprocessing_hash == policy.preprocessing_hash


def test_every_convention_and_the_layout_are_part_of_the_hash():
    nano = make_nano(cameras=("agentview", "wrist"), proprio_dim=4)
    hashes = {nano.preprocessing_hash}
    changes = {
        "attention": "causal", "stop_row": "removed", "prompt_tail": "written", "center_crop": True,
        "image_preprocessing": "jpeg-lanczos", "idle_steps": 7, "support": "vocabulary", "temperature": 2.0,
    }  # fmt: skip
    assert set(changes) == {item.name for item in dataclasses.fields(PRESETS["rlinf"])}
    for name, value in changes.items():
        conventions = dataclasses.replace(nano.conventions, **{name: value})
        model = type(nano.model)(nano.config, conventions, nano.layout)
        hashes.add(OFTPolicy(model, nano.files).preprocessing_hash)
    layouts = {"chunk": 9, "bounds": "min-max", "placeholders": "per-action"}
    for name, value in layouts.items():
        layout = dataclasses.replace(nano.layout, **{name: value})
        model = type(nano.model)(nano.config, nano.conventions, layout)
        hashes.add(OFTPolicy(model, nano.files).preprocessing_hash)
    assert len(hashes) == 1 + len(changes) + len(layouts)


def test_one_block_cannot_tell_the_actions_of_a_chunk_apart():
    shape = NanoShape(layers=1)
    stats = {"toy": nano_statistics()}
    layout = make_nano().layout
    from grape.policies.openvla_oft.nano import create_nano_oft

    with pytest.raises(SettingsError, match="alike"):
        create_nano_oft(seed=0, norm_stats=stats, gripper="+1 closes", layout=layout, shape=shape)
    # What the message says: the same network with one block, made by hand.
    policy = make_nano()
    policy.model.language_model.model.layers = policy.model.language_model.model.layers[:1]
    rows = logits(policy, nano_inputs(policy, ["go"]))[0]
    torch.testing.assert_close(rows[1:], rows[1:2].expand(len(rows) - 1, -1), atol=1e-5, rtol=0)


def test_eager_attention_agrees_and_flash_attention_is_refused(nano):
    inputs = nano_inputs(nano, ["go", "put the xylophone behind the bowl"])
    eager = type(nano.model)(nano.config, nano.conventions, nano.layout, "eager")
    eager.proprio_projector = nano.model.proprio_projector
    eager.load_state_dict(nano.model.state_dict())
    eager.eval()
    with torch.no_grad():
        torch.testing.assert_close(eager.chunk_logits(inputs), logits(nano, inputs), atol=2e-5, rtol=0)
    with pytest.raises(SettingsError, match="bidirectional"):
        type(nano.model)(nano.config, nano.conventions, nano.layout, "flash_attention_2")


def test_frozen_towers_need_not_run_again(nano):
    inputs = nano_inputs(nano, ["go", "open the drawer"])
    with torch.no_grad():
        features = nano.model.image_features(inputs.pixel_values_BCHW)
    assert features.shape[1] == 2 * nano.config.patches
    cached = dataclasses.replace(inputs, pixel_values_BCHW=None, features_BNC=features)
    assert torch.equal(logits(nano, cached), logits(nano, inputs))
    assert torch.equal(logits(nano, cached.select([1, 0])), logits(nano, inputs.select([1, 0])))


def test_a_configuration_states_how_it_is_run(nano):
    stated = nano.config.raw["grape"]["oft"]
    assert stated == {"conventions": nano.conventions.to_json(), "layout": nano.layout.to_json()}
    assert state_oft(nano.config, nano.conventions, nano.layout, "toy") == nano.config


@settings(max_examples=10)
@given(seed=st.integers(0, 99), chunk=st.integers(2, 5))
def test_one_placeholder_an_action_tells_actions_apart_in_one_block(seed, chunk):
    layout = Layout(chunk=chunk, action_dim=7, placeholders="per-action")
    policy = create_nano_oft(
        seed=seed,
        norm_stats={"toy": nano_statistics()},
        gripper="",
        layout=layout,
        instructions=INSTRUCTIONS,
        shape=NanoShape(layers=1),
    )
    assert policy.model.placeholders.shape == (chunk, policy.config.hidden)
    tokens = logits(policy, nano_inputs(policy, ["go"]))[0]
    assert tokens.shape == (layout.tokens, policy.config.action_bins)
    assert torch.pdist(tokens).min() > 1e-4
    assert policy.spec.preprocessing_hash != make_nano(chunk=chunk).spec.preprocessing_hash


@settings(max_examples=10)
@given(row=st.integers(0, 2))
def test_a_placeholder_gives_the_next_action_alone_with_causal_attention(row):
    """Action by action, dimension by dimension, one row early; nothing reads the last row."""
    policy = make_nano(
        conventions=dataclasses.replace(NANO_CONVENTIONS, attention="causal", temperature=1.6),
        placeholders="per-action",
    )
    model, inputs = policy.model, nano_inputs(policy, ["go"])
    before = logits(policy, inputs)
    with torch.no_grad():
        hidden_BRH = model.hidden_rows(inputs)
        columns = model.language_model.lm_head.weight.reshape(7, policy.config.action_bins, -1)
        torch.testing.assert_close(before.reshape(3, 7, -1), torch.einsum("kh,dnh->kdn", hidden_BRH[0], columns) / 1.6)
        model.placeholders[row] += 1.0
    moved = (logits(policy, inputs) - before).abs().amax(-1).reshape(3, 7) > 1e-4
    assert moved.tolist() == [[action > row] * 7 for action in range(3)]


def test_one_placeholder_an_action_has_no_softmax_over_the_vocabulary():
    with pytest.raises(SettingsError, match=r"(?s)action tokens alone.*support=window"):
        make_nano(conventions=PRESETS["openvla-oft"], placeholders="per-action")
    policy = make_nano(placeholders="per-action")
    inputs = nano_inputs(policy, ["go"])
    wide = loading.with_conventions(policy, dataclasses.replace(NANO_CONVENTIONS, support="vocabulary"))
    window = slice(policy.model.window.start, policy.model.window.stop)
    torch.testing.assert_close(
        logits(wide, inputs).softmax(-1)[..., window], logits(policy, inputs).softmax(-1), atol=1e-6, rtol=0
    )
