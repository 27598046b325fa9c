"""Rules and statistics against what the published loaders gave."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grape.core.errors import DataError, SettingsError
from grape.core.tasks import GripperConvention
from grape.store.rlds import open_rlds
from grape.store.rlds.standardize import (
    RULES,
    binarize_gripper,
    gripper_from_loader,
    gripper_to_loader,
    noop_mask,
    rule_for,
    standard_episodes,
)
from grape.store.rlds.statistics import action_statistics, dataset_statistics
from tests.store.rlds.golden import expected, golden, needs_golden

LOADER = {name: data for name, data in expected("loader_expected.json").items() if isinstance(data, dict)}
ALL = sorted(LOADER) or [""]


def read(name):
    dataset = open_rlds(golden(name))
    return dataset, rule_for(dataset)


def normalize(actions, stats):
    low, high = (np.array(stats[key]) for key in ("q01", "q99"))
    mapped = np.clip(2 * (actions - low) / (high - low + 1e-8) - 1, -1, 1)
    return np.where(stats["mask"], mapped, actions)


@needs_golden
@pytest.mark.parametrize("name", ALL)
def test_statistics_are_those_of_the_published_loader(name):
    expected = LOADER[name]["statistics"]
    statistics = dataset_statistics([read(name)])
    assert statistics["num_transitions"] == expected["num_transitions"]
    assert statistics["num_trajectories"] == expected["num_trajectories"]
    assert statistics["action"]["mask"] == expected["action"]["mask"]
    for key in ("mean", "std", "min", "max", "q01", "q99"):
        np.testing.assert_allclose(statistics["action"][key], expected["action"][key], rtol=0, atol=1e-6, err_msg=key)


@needs_golden
@pytest.mark.parametrize("name", ALL)
def test_episodes_are_those_of_the_published_loader(name):
    dataset, rule = read(name)
    expected = LOADER[name]
    episodes = list(standard_episodes(dataset.read("train"), rule))
    assert len(episodes) == len(expected["episodes"])
    for episode, facts in zip(episodes, expected["episodes"], strict=True):
        assert episode.steps == facts["num_steps"] == len(episode.images)
        assert episode.instruction == facts["instruction"]
        normalized = normalize(episode.actions, expected["statistics"]["action"])
        np.testing.assert_allclose(normalized, facts["actions"], rtol=0, atol=2e-6)
        if list(episode.images.shape) == facts["frame_shape"]:  # others were resized by TensorFlow
            assert hashlib.sha256(episode.images.decode().tobytes()).hexdigest() == facts["frames_sha256"]


@needs_golden
def test_rules_are_chosen_by_folder_or_by_name():
    dataset = open_rlds(golden("modified_libero_rlds/libero_spatial_no_noops"))
    assert rule_for(dataset).name == "libero"
    assert rule_for(dataset, "plain").name == "plain"
    with pytest.raises(SettingsError, match="'libero'"):
        rule_for(dataset, "libro")


@needs_golden
def test_an_unknown_data_set_needs_a_rule(tmp_path):
    (tmp_path / "mine").symlink_to(golden("modified_libero_rlds/libero_spatial_no_noops"))
    with pytest.raises(SettingsError, match="No rule is known"):
        rule_for(open_rlds(tmp_path / "mine"))


@pytest.mark.parametrize(
    ("raw", "due"),
    [
        ([1, 0.5, 0], [1, 0, 0]),
        ([0, 0.5, 0.5, 1], [0, 1, 1, 1]),
        ([1, 0.5], [1, 0.5]),  # nothing clear follows: the last value stays, as published
        ([0.96, 0.04], [1, 0]),
        ([], []),
    ],
)
def test_gripper_in_between_takes_the_next_clear_value(raw, due):
    np.testing.assert_array_equal(binarize_gripper(np.array(raw, np.float32)), np.array(due, np.float32))


def test_noops_are_found_as_the_modified_libero_sets_did():
    still, move = [0.0] * 6, [0.1] + [0.0] * 5
    actions = [[*still, -1], [*move, -1], [*still, -1], [*still, 1], [*still, 1], [1e-5] * 6 + [-1]]
    assert noop_mask(np.array(actions, np.float32)).tolist() == [False, True, False, True, False, True]


@given(
    hnp.arrays(np.float32, (5, 7), elements=st.floats(-1, 1, width=32)),
    st.sampled_from([one for one in GripperConvention if one is not GripperConvention.NONE]),
)
def test_gripper_conventions_go_there_and_back(actions, convention):
    opened, closed = convention.opened, convention.closed
    actions[:, 6] = np.clip(actions[:, 6], min(opened, closed), max(opened, closed))
    there = gripper_to_loader(actions, convention)
    assert ((there[:, 6] >= 0) & (there[:, 6] <= 1)).all()
    np.testing.assert_allclose(gripper_from_loader(there, convention), actions, atol=1e-6)
    ends = gripper_to_loader(np.array([[0] * 6 + [opened], [0] * 6 + [closed]], np.float32), convention)
    assert ends[:, 6].tolist() == [1, 0]


def test_statistics_refuse_nothing_and_what_is_not_finite():
    with pytest.raises(DataError, match="no actions"):
        action_statistics([])
    with pytest.raises(DataError, match="not finite"):
        action_statistics([np.full((2, 7), np.nan, np.float32)])


def test_every_rule_says_what_it_does():
    assert all(rule.meaning and rule.image for rule in RULES.values())
