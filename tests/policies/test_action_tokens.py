import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.core.errors import DataError, SettingsError
from grape.policies.openvla import ActionTokenizer, compute_norm_stats
from grape.policies.openvla.action_tokens import ActionNorm, choose_unnorm_key

NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
values = st.floats(-1.0, 1.0)


@pytest.mark.parametrize("bins", [2, 32, 256])
def test_every_bin_survives_decoding_but_the_last(bins):
    tokenizer = ActionTokenizer(576, bins)
    ids = tokenizer.token_ids
    again = tokenizer.encode(tokenizer.decode(ids))
    assert again[:-1].tolist() == ids[:-1].tolist()
    assert again[-1] == ids[-2]  # +1 alone is bin n, which decodes like bin n - 1


@given(st.floats(-3.0, 3.0))
def test_decoding_is_within_half_a_bin(value):
    tokenizer = ActionTokenizer(32000, 256)
    decoded = tokenizer.decode(tokenizer.encode(np.asarray([value])))[0]
    assert abs(decoded - np.clip(value, -1, 1)) <= 1 / 255 + 1e-12


@given(st.lists(values, min_size=1, max_size=9), st.floats(0.05, 4.0))
def test_soft_targets_are_a_distribution_around_the_value(row, width):
    tokenizer = ActionTokenizer(544, 32)
    target = tokenizer.soft_targets(np.asarray(row), width)
    np.testing.assert_allclose(target.sum(-1), 1.0, atol=1e-5)
    centers = tokenizer.decode(tokenizer.token_ids)
    peak = centers[target.argmax(-1)]
    assert (np.abs(peak - row) <= 1 / 31 + 1e-9).all()


@given(st.lists(values, min_size=1, max_size=9))
def test_targets_without_width_are_the_tokens(row):
    tokenizer = ActionTokenizer(544, 32)
    target = tokenizer.soft_targets(np.asarray(row), 0.0)
    assert (tokenizer.token_ids[target.argmax(-1)] == tokenizer.encode(np.asarray(row))).all()
    assert (target.sum(-1) == 1.0).all()


def test_half_a_bin_of_width_spreads_symmetrically():
    tokenizer = ActionTokenizer(544, 32)
    target = tokenizer.soft_targets(np.asarray([0.0]), 0.5)[0]  # center of the middle one of 31 intervals
    assert target.argmax() == 15
    np.testing.assert_allclose(target[14], target[16], rtol=1e-5)
    np.testing.assert_allclose(target[14] / target[15], np.exp(-2.0), rtol=1e-4)


@given(st.lists(st.tuples(*[st.floats(-5.0, 5.0)] * 3), min_size=2, max_size=30))
def test_statistics_invert(rows):
    norm = ActionNorm.from_stats(compute_norm_stats(np.asarray(rows), ("dx", "dy", "gripper")), "x")
    actions = np.asarray(rows)
    inside = ((actions >= norm.low) & (actions <= norm.high)) | ~norm.mask
    wide = (norm.high - norm.low > 1e-3) | (norm.high == norm.low)
    back = norm.unnormalize(norm.normalize(actions))
    np.testing.assert_allclose(np.where(inside & wide, back, 0), np.where(inside & wide, actions, 0), atol=1e-4)


def test_dead_dimensions_and_gripper(actions):
    stats = compute_norm_stats(actions, NAMES, trajectories=4)
    assert set(stats["action"]) == {"mean", "std", "max", "min", "q01", "q99", "mask"}
    assert (stats["num_transitions"], stats["num_trajectories"]) == (64, 4)
    norm = ActionNorm.from_stats(stats, "x")
    mapped = norm.normalize(actions)
    assert (mapped[:, 3:6] == 0.0).all()
    np.testing.assert_array_equal(mapped[:, 6], actions[:, 6])
    assert (norm.unnormalize(mapped)[:, 3:6] == 0.0).all()


@pytest.mark.parametrize(
    "bad",
    [np.zeros((0, 7)), np.zeros((3, 6)), np.full((3, 7), np.nan), np.zeros(7)],
    ids=["empty", "dim", "nan", "axis"],
)
def test_statistics_of_unusable_actions_are_refused(bad):
    with pytest.raises(DataError):
        compute_norm_stats(bad, NAMES)


@pytest.mark.parametrize(
    "action",
    [{}, {"q01": [0.0]}, {"q01": [0.0], "q99": [1.0, 2.0]}, {"q01": [1.0], "q99": [0.0]}, {"q01": ["a"], "q99": [1.0]}],
)
def test_broken_statistics_are_refused(action):
    with pytest.raises(DataError, match="broken"):
        ActionNorm.from_stats({"action": action}, "broken")


def test_choice_of_statistics():
    stats = {"bridge_orig": {}, "fractal": {}}
    assert choose_unnorm_key({"one": {}}, None) == "one"
    assert choose_unnorm_key(stats, "fractal") == "fractal"
    with pytest.raises(SettingsError, match=r"Did you mean 'bridge_orig'"):
        choose_unnorm_key(stats, "bridge_org")
    with pytest.raises(SettingsError, match=r"Known: bridge_orig, fractal"):
        choose_unnorm_key(stats, None)
    with pytest.raises(DataError):
        choose_unnorm_key({}, None)
