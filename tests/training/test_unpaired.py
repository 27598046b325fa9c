import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grape.core.preferences import Score
from grape.training.unpaired import (
    clipped_loss,
    kto_loss,
    kto_weights,
    leave_one_out,
    reference_point,
    sequence_ratio,
    weigh_episodes,
)

ratios = st.floats(-30, 30)
weights = st.one_of(st.floats(0.1, 3), st.floats(-3, -0.1))


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


def score(name, gcpg, success=None, state=0):
    return Score(name, "task", state, success, 5, -1.0, 0.5, 0.7, {}, gcpg)


def kto_by_the_paper(log_ratio, desirable, lambda_desirable, lambda_undesirable, beta, z0):
    """As it stands in the paper: a value function and its distance from the highest value."""
    reward = log_ratio
    if desirable:
        value = lambda_desirable / (1 + math.exp(-beta * (reward - z0)))
        return lambda_desirable - value
    value = lambda_undesirable / (1 + math.exp(-beta * (z0 - reward)))
    return lambda_undesirable - value


def clipped_by_cases(ratio, advantage, eps):
    """The four cases of PPO's figure 1."""
    if advantage > 0:
        return -advantage * (ratio if ratio < 1 + eps else 1 + eps)
    return -advantage * (ratio if ratio > 1 - eps else 1 - eps)


@given(log_ratio=ratios, weight=weights, beta=st.floats(0.01, 1), z0=st.floats(0, 20))
def test_kto_equals_the_paper(log_ratio, weight, beta, z0):
    own = kto_loss(column(log_ratio), column(weight), beta, z0)
    assert float(own) == pytest.approx(
        kto_by_the_paper(log_ratio, weight > 0, abs(weight), abs(weight), beta, z0), rel=1e-9, abs=1e-12
    )


@given(log_ratio=ratios, weight=weights, beta=st.floats(0.01, 1))
def test_kto_pulls_up_what_is_desirable_and_down_what_is_not(log_ratio, weight, beta):
    ratio = column(log_ratio).requires_grad_()
    (slope,) = torch.autograd.grad(kto_loss(ratio, column(weight), beta, 0.0).sum(), ratio)
    share = 1 / (1 + math.exp(-beta * log_ratio))
    assert float(slope) == pytest.approx(-weight * beta * share * (1 - share), rel=1e-9, abs=1e-13)
    assert float(slope) * weight < 0


def test_the_reference_point_is_a_mean_cut_off_at_zero_without_graph():
    ratio = column(3.0, 1.0).requires_grad_()
    assert reference_point(ratio) == 2.0
    assert reference_point(column(-3.0, 1.0)) == 0.0
    # It moves where the loss saturates: a desirable episode at the reference point has half of its weight left.
    assert kto_loss(column(2.0), column(1.0), 0.1, 2.0).tolist() == [0.5]


@given(ratio=st.floats(0.01, 5), advantage=weights, eps=st.floats(0.01, 0.9))
def test_clipping_equals_its_cases(ratio, advantage, eps):
    own = clipped_loss(column(ratio), column(advantage), eps)
    assert float(own) == pytest.approx(clipped_by_cases(ratio, advantage, eps), rel=1e-12)


def test_an_episode_stops_to_pull_beyond_the_range_but_is_pulled_back_from_the_other_side():
    ratio = column(1.3, 0.7, 1.3, 0.7).requires_grad_()
    advantages = column(1.0, 1.0, -1.0, -1.0)
    (slope,) = torch.autograd.grad(clipped_loss(ratio, advantages, 0.2).sum(), ratio)
    assert slope.tolist() == [0.0, -1.0, 1.0, 0.0]


@given(tokens=st.integers(1, 3000), per_token=st.floats(-1, 1))
def test_the_sequence_ratio_does_not_depend_on_the_length(tokens, per_token):
    own = sequence_ratio(column(per_token * tokens), column(float(tokens)))
    assert float(own) == pytest.approx(math.exp(per_token), rel=1e-9)


@given(rewards=st.lists(st.floats(-100, 100), min_size=2, max_size=12), shift=st.floats(-50, 50))
def test_advantages_sum_to_zero_keep_the_order_and_ignore_a_common_shift(rewards, shift):
    own = leave_one_out(rewards)
    assert math.fsum(own) == pytest.approx(0, abs=1e-9)
    moved = leave_one_out([reward + shift for reward in rewards])
    assert own == pytest.approx(moved, abs=1e-9)
    for index, reward in enumerate(rewards):
        others = rewards[:index] + rewards[index + 1 :]
        assert own[index] == pytest.approx(reward - sum(others) / len(others), abs=1e-9)


@given(kinds=st.lists(st.booleans(), min_size=2, max_size=40), ratio=st.floats(0.5, 3))
def test_unequal_numbers_weigh_the_same_together(kinds, ratio):
    kinds = [True, False, *kinds]
    own = kto_weights(kinds, ratio)
    up, down = sum(w for w in own if w > 0), -sum(w for w in own if w < 0)
    assert up == pytest.approx(ratio * down)
    assert up + down == pytest.approx(len(kinds))
    assert [w > 0 for w in own] == kinds


def test_episodes_of_one_outcome_count_by_their_reward_and_single_ones_do_not():
    failures = [score("a", 0.1, False), score("b", 0.3, False), score("c", 0.2, False)]
    alone = [score("d", 5.0, True, state=1)]
    found = {item.episode: item.weight for item in weigh_episodes("rloo", [failures, alone], "gcpg")}
    assert found.keys() == {"a", "b"}  # c lies at the mean of the others
    assert found["b"] == pytest.approx(-found["a"]) == pytest.approx(1.0)
    assert weigh_episodes("rloo", [failures, alone], "success") == []


def test_one_scale_for_all_states_keeps_their_proportion():
    wide = [score("a", 0.0, False), score("b", 3.0, True)]
    narrow = [score("c", 0.0, False, 1), score("d", 1.0, False, 1)]
    found = {item.episode: item.weight for item in weigh_episodes("rloo", [wide, narrow], "gcpg")}
    assert found["b"] == pytest.approx(3 * found["d"])
    assert sum(weight**2 for weight in found.values()) / 4 == pytest.approx(1.0)
    halved = [[replace(item, gcpg=item.gcpg / 2) for item in state] for state in (wide, narrow)]
    again = {item.episode: item.weight for item in weigh_episodes("rloo", halved, "gcpg")}
    assert again == pytest.approx(found)


def test_success_decides_what_is_desirable_and_unknown_outcomes_take_no_part():
    states = [
        [score("a", 0.0, False), score("b", 3.0, True), score("c", 9.0, None)],
        [score("d", 1.0, False, 1)],
    ]
    found = {item.episode: item.weight for item in weigh_episodes("kto", states, "success")}
    assert found == pytest.approx({"a": -0.75, "b": 1.5, "d": -0.75})
    by_reward = {item.episode: item.weight for item in weigh_episodes("kto", states, "gcpg")}
    assert {name: weight > 0 for name, weight in by_reward.items()} == {"a": False, "b": False, "c": True}


@pytest.mark.parametrize("method", ["kto", "rloo"])
@pytest.mark.parametrize("reward", ["gcpg", "success"])
def test_episodes_that_are_all_alike_teach_nothing(method, reward):
    alike = [[score("a", 1.0, True), score("b", 1.0, True)], [score("c", 1.0, True, 1)]]
    assert weigh_episodes(method, alike, reward) == []
