"""Policies that read the robot's state: where its token stands, how it is standardized, what a checkpoint says."""

from dataclasses import replace

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grape.core.errors import CompatibilityError, DataError, PolicyError
from grape.core.files import read_json, write_json
from grape.policies.action_conventions import check_policy
from grape.policies.base import PolicySpec
from grape.policies.openvla import compute_norm_stats, create_nano, load_policy, save_policy
from grape.policies.openvla.proprio import ProprioNorm
from grape.training.estimate import estimate_training
from tests.policies.conftest import INSTRUCTIONS, NAMES, make_nano

DIM = 5


@pytest.fixture(scope="module")
def states():
    """Robot states (64, 5) of different scales; the third dimension never moves."""
    values = np.random.default_rng(3).normal(size=(64, DIM)) * [1.0, 0.01, 0.0, 100.0, 2.0] + [0, 0.5, 0.02, 7, -3]
    return values.astype(np.float32)


@pytest.fixture(scope="module")
def reader(actions, states):
    statistics = compute_norm_stats(actions, NAMES, proprio=states)
    return create_nano(
        seed=0,
        norm_stats={"metaworld": statistics},
        gripper="+1 closes",
        instructions=INSTRUCTIONS,
        proprio_dim=DIM,
    )


@pytest.fixture(scope="module")
def seen(observations, states):
    """Observations with a state each."""
    return [replace(observation, proprio=states[i]) for i, observation in enumerate(observations)]


def encode(policy, observations):
    return policy.encode_images(
        [observation.image for observation in observations],
        [observation.instruction for observation in observations],
        np.stack([observation.proprio for observation in observations]),
    )


def test_the_state_is_one_token_behind_the_patches(reader, seen):
    inputs = encode(reader, seen)
    patches = reader.config.patches
    with torch.no_grad():
        embeds_BSH = reader.model.embed_prompts(inputs).embeds_BSH
        token_BH = reader.model.proprio_projector(inputs.proprio_BP)[:, 0]
        image_BNH = reader.model.projector(reader.model.image_features(inputs.pixel_values_BCHW))
    assert embeds_BSH.shape[1] == 1 + patches + 1 + max(map(len, inputs.prompt_ids)) - 1
    torch.testing.assert_close(embeds_BSH[:, 1 : 1 + patches], image_BNH)
    torch.testing.assert_close(embeds_BSH[:, 1 + patches], token_BH)


def test_decoding_and_teacher_forcing_agree_and_the_state_matters(reader, seen):
    batch = reader.act(seen, temperature=1.0, seeds=range(len(seen)))
    with torch.no_grad():
        logps = reader.model.action_logps(encode(reader, seen), torch.from_numpy(batch.tokens[:, 0]))
    np.testing.assert_allclose(logps.numpy(), batch.logps[:, 0], atol=1e-5)
    moved = [replace(observation, proprio=observation.proprio + np.float32(1)) for observation in seen]
    assert (reader.act(moved).logps != reader.act(seen).logps).any()
    for row, observation in enumerate(seen):  # a row means the same alone and in any batch
        np.testing.assert_array_equal(reader.act([observation]).logps[0], reader.act(seen).logps[row])


def test_states_are_standardized_and_constant_ones_are_zero(reader, states):
    read = reader.standardized_proprio(states).numpy()
    moving = [0, 1, 3, 4]
    np.testing.assert_allclose(read[:, moving].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(read[:, moving].std(axis=0), 1, atol=1e-4)
    assert (read[:, 2] == 0).all()
    elsewhere = states.copy()
    elsewhere[:, 2] = 1e6  # never moved in the demonstrations: whatever it is now cannot drown the others
    np.testing.assert_array_equal(reader.standardized_proprio(elsewhere).numpy(), read)


@given(
    hnp.arrays(np.float64, (7, 3), elements=st.floats(-1e6, 1e6, width=32)),
    hnp.arrays(np.float32, (2, 3), elements=st.floats(-1e9, 1e9, width=32)),
)
def test_any_statistics_give_bounded_numbers(demonstrated, later):
    norm = ProprioNorm(demonstrated.mean(axis=0), demonstrated.std(axis=0))
    read = norm.standardize(later).numpy()
    assert np.isfinite(read).all()
    assert (np.abs(read) <= 10).all()
    assert (read[:, np.ptp(demonstrated, axis=0) == 0] == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_states_that_are_not_finite_are_refused(reader, seen, bad):
    broken = [*seen[:-1], replace(seen[-1], proprio=np.array([0, 0, bad, 0, 0], np.float32))]
    with pytest.raises(PolicyError, match="not finite"):
        reader.act(broken)


def test_other_dimensions_are_refused(reader, nano, seen, observations):
    with pytest.raises(CompatibilityError, match="5 numbers; found 4"):
        reader.act(observations)
    with pytest.raises(CompatibilityError, match="5 numbers; found none"):
        reader.act([replace(observation, proprio=observation.proprio[:0]) for observation in seen])
    with pytest.raises(CompatibilityError, match="found none"):
        reader.encode_images([seen[0].image], [INSTRUCTIONS[0]])
    np.testing.assert_array_equal(nano.act(seen).tokens, nano.act(observations).tokens)  # reads images alone
    with pytest.raises(PolicyError, match="reads the robot's state"):
        reader.model.embed_prompts(replace(encode(reader, seen), proprio_BP=None))


def test_a_suite_with_another_state_is_refused():
    from grape.envs.registry import get_suite

    suite = get_suite("toy")
    spec = PolicySpec(suite.action_space.dim, 64, "", "toy", "", "", proprio_dim=8)
    with pytest.raises(CompatibilityError, match="reads 8 numbers of the robot's state, the suite gives 4"):
        check_policy(spec, suite.action_space, "policy", proprio_dim=suite.proprio_dim)
    check_policy(replace(spec, proprio_dim=4), suite.action_space, "policy", proprio_dim=suite.proprio_dim)
    check_policy(
        spec, suite.action_space, "policy", proprio_dim=None
    )  # a suite that does not say: refused at the first decision
    check_policy(replace(spec, proprio_dim=0), suite.action_space, "policy", proprio_dim=suite.proprio_dim)


def test_a_checkpoint_says_what_it_reads_and_hashes_depend_on_it(reader, nano, seen, tmp_path):
    save_policy(reader, tmp_path / "reader")
    config = read_json(tmp_path / "reader" / "config.json")
    assert config["grape"]["proprio_dim"] == DIM
    assert set(config["norm_stats"]["metaworld"]["proprio"]) >= {"mean", "std"}
    again = load_policy(tmp_path / "reader")
    assert again.spec == reader.spec
    assert again.spec.proprio_dim == DIM
    np.testing.assert_array_equal(again.act(seen).logps, reader.act(seen).logps)
    assert reader.spec.preprocessing_hash != nano.spec.preprocessing_hash
    config["norm_stats"]["metaworld"]["proprio"]["mean"][0] += 1
    write_json(tmp_path / "reader" / "config.json", config)
    write_json(tmp_path / "reader" / "dataset_statistics.json", config["norm_stats"])
    other = load_policy(tmp_path / "reader").spec
    assert other.preprocessing_hash != reader.spec.preprocessing_hash
    assert other.policy_hash != reader.spec.policy_hash


def test_policies_that_read_images_alone_are_what_they_were(actions):
    policy = make_nano(actions)
    assert "proprio_dim" not in policy.config.to_json()["grape"]
    assert not any("proprio" in name for name in policy.model.state_dict())
    assert not any("proprio" in name for name in policy.lora_targets("all"))
    # Statistics of the state, which published checkpoints carry, change nothing but the configuration.
    stats = {"metaworld": compute_norm_stats(actions, NAMES, proprio=np.zeros((64, 7)))}
    published = create_nano(seed=0, norm_stats=stats, gripper="+1 closes", instructions=INSTRUCTIONS)
    assert published.spec.preprocessing_hash == policy.spec.preprocessing_hash
    assert published.spec.proprio_dim == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proprio_dim": "5"}, "proprio_dim is '5'"),
        ({"proprio_dim": True}, "proprio_dim is True"),
        ({"proprio_dim": -1}, "proprio_dim is -1"),
        ({"proprio_dim": 4}, "of 5 dimensions, the policy reads 4"),
    ],
)
def test_damaged_configurations_are_named(reader, tmp_path, change, message):
    save_policy(reader, tmp_path / "reader")
    config = read_json(tmp_path / "reader" / "config.json")
    config["grape"] |= change
    write_json(tmp_path / "reader" / "config.json", config)
    with pytest.raises(DataError, match=message):
        load_policy(tmp_path / "reader")


@pytest.mark.parametrize(
    "stats",
    [
        {},
        {"proprio": {"mean": [0.0]}},
        {"proprio": {"mean": [0.0], "std": [-1.0]}},
        {"proprio": {"mean": ["x"], "std": [1]}},
    ],
)
def test_damaged_statistics_are_named(stats):
    with pytest.raises(DataError, match="'toy'"):
        ProprioNorm.from_stats(stats, "toy", 1)


def test_states_that_are_not_finite_give_no_statistics(actions):
    states = np.zeros((64, 2))
    states[3, 1] = np.nan
    with pytest.raises(DataError, match="robot states are not finite"):
        compute_norm_stats(actions, NAMES, proprio=states)


def test_adapters_go_into_the_projector_of_the_state_with_the_other_projector(reader):
    assert {"proprio_projector.fc1", "proprio_projector.fc2"} <= set(reader.lora_targets())
    assert not any("projector" in name for name in reader.lora_targets("language"))


def test_the_estimate_counts_the_token(reader, nano):
    estimates = [
        estimate_training(shape, instruction_tokens=6, micro_batch=4, cached_features=cached, lora_rank=rank)
        for shape in (nano.weightless, reader.weightless)
        for cached, rank in ((False, 0), (True, 4))
    ]
    for without, with_state in zip(estimates[:2], estimates[2:], strict=True):
        assert with_state.sequence == without.sequence + 1
        assert with_state.parameters > without.parameters
        assert with_state.forward_flops > without.forward_flops
