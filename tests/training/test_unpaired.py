import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grape.cli.main import main
from grape.core.preferences import Score
from grape.training.displacement import displacement_alarm
from grape.training.gradients import Comparisons, one_pass_gradient, two_pass_gradient
from grape.training.items import make_items
from grape.training.losses import TrajectorySums
from grape.training.unpaired import (
    WeightedEpisode,
    clipped_values,
    finish_metrics,
    group_loss,
    kto_loss,
    kto_values,
    kto_weights,
    leave_one_out,
    mean_log_ratio,
    sequence_ratio,
    weigh_episodes,
)
from tests.training.standin import TOKENS, TinyActionModel, random_update

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
    own = kto_values(column(log_ratio), column(weight), beta, z0)
    assert float(own) == pytest.approx(
        kto_by_the_paper(log_ratio, weight > 0, abs(weight), abs(weight), beta, z0), rel=1e-9, abs=1e-12
    )


@given(log_ratio=ratios, weight=weights, beta=st.floats(0.01, 1))
def test_kto_pulls_up_what_is_desirable_and_down_what_is_not(log_ratio, weight, beta):
    ratio = column(log_ratio).requires_grad_()
    (slope,) = torch.autograd.grad(kto_values(ratio, column(weight), beta, 0.0).sum(), ratio)
    share = 1 / (1 + math.exp(-beta * log_ratio))
    assert float(slope) == pytest.approx(-weight * beta * share * (1 - share), rel=1e-9, abs=1e-13)
    assert float(slope) * weight < 0


def test_at_the_reference_point_half_of_the_weight_is_left():
    assert kto_values(column(2.0, 2.0), column(1.0, -3.0), 0.1, 2.0).tolist() == [0.5, 1.5]


@given(ratio=st.floats(0.01, 5), advantage=weights, eps=st.floats(0.01, 0.9))
def test_clipping_equals_its_cases(ratio, advantage, eps):
    own = clipped_values(column(ratio), column(advantage), eps)
    assert float(own) == pytest.approx(clipped_by_cases(ratio, advantage, eps), rel=1e-12)


def test_an_episode_stops_to_pull_beyond_the_range_but_is_pulled_back_from_the_other_side():
    ratio = column(1.3, 0.7, 1.3, 0.7).requires_grad_()
    advantages = column(1.0, 1.0, -1.0, -1.0)
    (slope,) = torch.autograd.grad(clipped_values(ratio, advantages, 0.2).sum(), ratio)
    assert slope.tolist() == [0.0, -1.0, 1.0, 0.0]


@pytest.mark.parametrize("log_ratio_per_token", [-1.5, -0.3, 0.0])
def test_what_fell_is_pulled_back_by_ratio_and_advantage_over_tokens(log_ratio_per_token):
    """As docs/training.md says: the further it fell, the less."""
    steps = 6
    sums = TrajectorySums(
        chosen_P=column(log_ratio_per_token * steps * TOKENS).requires_grad_(),
        rejected_P=column(0.0),
        chosen_reference_P=column(0.0),
        rejected_reference_P=column(0.0),
        chosen_steps_P=column(float(steps)),
        rejected_steps_P=column(0.0),
        weight_P=column(1.7),
        anchored_P=column(0.0),
    )
    (slope,) = torch.autograd.grad(own_group(sums)[0]["preference"], sums.chosen_P)
    assert float(slope) == pytest.approx(-math.exp(log_ratio_per_token) * 1.7 / (steps * TOKENS))


def test_the_help_says_that_clipping_bounds_no_single_update(capsys):
    assert main(["train", "--help-all"]) == 0
    words = "".join(capsys.readouterr().out.split())  # lines may end within a flag
    assert "boundsnosingleupdate" in words
    assert "oneupdatecangofarbeyond--clip-range" in words


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
    weights = {item.episode: item.weight for item in weigh_episodes("rloo", [failures, alone], "gcpg")}
    assert weights.keys() == {"a", "b"}  # c lies at the mean of the others
    assert weights["b"] == pytest.approx(-weights["a"]) == pytest.approx(1.0)
    assert weigh_episodes("rloo", [failures, alone], "success") == []


def test_one_scale_for_all_states_keeps_their_proportion():
    wide = [score("a", 0.0, False), score("b", 3.0, True)]
    narrow = [score("c", 0.0, False, 1), score("d", 1.0, False, 1)]
    weights = {item.episode: item.weight for item in weigh_episodes("rloo", [wide, narrow], "gcpg")}
    assert weights["b"] == pytest.approx(3 * weights["d"])
    assert sum(weight**2 for weight in weights.values()) / 4 == pytest.approx(1.0)
    halved = [[replace(item, gcpg=item.gcpg / 2) for item in state] for state in (wide, narrow)]
    again = {item.episode: item.weight for item in weigh_episodes("rloo", halved, "gcpg")}
    assert again == pytest.approx(weights)


def test_success_decides_what_is_desirable_and_unknown_outcomes_take_no_part():
    states = [
        [score("a", 0.0, False), score("b", 3.0, True), score("c", 9.0, None)],
        [score("d", 1.0, False, 1)],
    ]
    weights = {item.episode: item.weight for item in weigh_episodes("kto", states, "success")}
    assert weights == pytest.approx({"a": -0.75, "b": 1.5, "d": -0.75})
    by_reward = {item.episode: item.weight for item in weigh_episodes("kto", states, "gcpg")}
    assert {name: weight > 0 for name, weight in by_reward.items()} == {"a": False, "b": False, "c": True}


@pytest.mark.parametrize("method", ["kto", "rloo"])
@pytest.mark.parametrize("reward", ["gcpg", "success"])
def test_episodes_that_are_all_alike_teach_nothing(method, reward):
    alike = [[score("a", 1.0, True), score("b", 1.0, True)], [score("c", 1.0, True, 1)]]
    assert weigh_episodes(method, alike, reward) == []


LENGTHS = [(5, 0), (0, 9), (12, 0), (0, 3), (1, 0), (0, 16)]
WEIGHTS = (1.5, 0.5, 0.7, 1.2, 1.1, 1.0)
BETA, EPS = 0.05, 0.1


def make():
    """A model, log-probabilities of the steps of six episodes, three a side, and how they add up."""
    torch.manual_seed(1)
    model = TinyActionModel()
    pixels, tokens, comparisons = random_update(LENGTHS)
    own = model.action_logps(pixels, tokens).sum(1).detach().double()
    sides = comparisons.sums(own)
    # Log-ratios of -0.5 to 1.3 nats a decision, so that some episodes lie beyond the range on either side.
    shift = torch.linspace(-0.5, 1.3, len(LENGTHS), dtype=torch.float64)
    comparisons = replace(
        comparisons,
        chosen_reference_P=sides.chosen_P - shift * sides.chosen_steps_P,
        rejected_reference_P=sides.rejected_P - shift * sides.rejected_steps_P,
        weight_P=column(*WEIGHTS),
    )
    return model, lambda index: model.action_logps(pixels[index], tokens[index]).sum(1), comparisons


def plain(model, logps, comparisons, value_of):
    """Loss and gradient by autograd over the whole graph, episode by episode, with formulas of this file alone."""
    model.zero_grad(set_to_none=True)
    episodes = []
    for index, (chosen, rejected) in enumerate(zip(comparisons.chosen, comparisons.rejected, strict=True)):
        up = len(chosen) > 0
        reference = (comparisons.chosen_reference_P if up else comparisons.rejected_reference_P)[index]
        frames = chosen if up else rejected
        total = logps(frames).double().sum()
        episodes.append((total - reference, len(frames), WEIGHTS[index] if up else -WEIGHTS[index]))
    loss = sum(value_of(episodes)) / len(episodes)
    loss.backward()
    return float(loss.detach()), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def kto_reference(episodes):
    z0 = max(0.0, sum(float(ratio.detach()) for ratio, _, _ in episodes) / len(episodes))
    assert z0 > 0
    for ratio, _, weight in episodes:
        margin = ratio - z0 if weight > 0 else z0 - ratio
        yield abs(weight) * (1 - 1 / (1 + torch.exp(-BETA * margin)))


def anchored_kto_reference(episodes):
    yield from kto_reference(episodes)
    for ratio, _, weight in episodes:
        if weight > 0:  # the reference is a constant of the loss: only the gradient is compared
            yield -0.8 * weight * BETA / 4 * ratio


def group_reference(episodes):
    for ratio, steps, weight in episodes:
        r = torch.exp(ratio / (steps * TOKENS))
        yield -weight * (r if weight * (float(r.detach()) - 1) <= abs(weight) * EPS else 1 + math.copysign(EPS, weight))


def relative(a, b):
    assert a.keys() == b.keys()
    difference = sum(float((a[name] - b[name]).double().square().sum()) for name in a)
    return (difference / sum(float(b[name].double().square().sum()) for name in b)) ** 0.5


def own_kto(sums):
    return kto_loss(sums, BETA, max(0.0, mean_log_ratio(sums)), TOKENS)


def own_anchored_kto(sums):
    return kto_loss(sums, BETA, max(0.0, mean_log_ratio(sums)), TOKENS, anchor=0.8)


def own_group(sums):
    return group_loss(sums, EPS, TOKENS)


@pytest.mark.parametrize("micro_batch", [1, 4, 1000])
@pytest.mark.parametrize(
    ("gradient", "own", "reference"),
    [
        (two_pass_gradient, own_kto, kto_reference),
        (two_pass_gradient, own_anchored_kto, anchored_kto_reference),
        (two_pass_gradient, own_group, group_reference),
        (one_pass_gradient, own_group, group_reference),
    ],
    ids=["kto", "anchored kto", "rloo in two passes", "rloo in one pass"],
)
def test_equals_autograd_over_the_whole_graph(gradient, own, reference, micro_batch):
    model, logps, comparisons = make()
    value, expected = plain(model, logps, comparisons, reference)
    apart = {"apart": True} if own is own_anchored_kto else {}
    result = gradient(logps, comparisons, own, micro_batch, list(model.parameters()), **apart)
    accumulated = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert relative(accumulated, expected) <= 1e-5
    assert own is own_anchored_kto or result.loss == pytest.approx(value, rel=1e-6)
    assert bool(result.term_norms) == (own is own_anchored_kto)
    metrics = finish_metrics(result.metrics)
    sums = result.sums
    up = sums.chosen_steps_P > 0
    assert metrics["chosen_share"] == 0.5
    assert metrics["logps/chosen"] == pytest.approx(float(sums.chosen_P[up].mean()))
    assert metrics["logps/rejected"] == pytest.approx(float(sums.rejected_P[~up].mean()))
    moved = (sums.chosen_P - sums.chosen_reference_P)[up] / (sums.chosen_steps_P[up] * TOKENS)
    assert metrics["displacement"] == pytest.approx(float(moved.mean()))
    assert 0 < metrics.get("ratio/clipped", 0.5) < 1


def test_episodes_whose_ratio_left_the_range_have_no_gradient():
    model, logps, comparisons = make()
    far = replace(
        comparisons,
        chosen_reference_P=comparisons.chosen_reference_P - column(*(1e3 if up else 0.0 for up, _ in LENGTHS)),
        rejected_reference_P=comparisons.rejected_reference_P + column(*(0.0 if up else 1e3 for up, _ in LENGTHS)),
    )
    two_pass_gradient(logps, far, own_group, 4, list(model.parameters()))
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)


def test_a_side_that_an_update_lacks_has_no_metrics():
    _, logps, comparisons = make()
    only = Comparisons(
        comparisons.frame_count,
        comparisons.chosen[:1],
        comparisons.rejected[:1],
        comparisons.chosen_reference_P[:1],
        comparisons.rejected_reference_P[:1],
    )
    metrics = finish_metrics(own_group(only.sums(logps(torch.arange(only.frame_count)).double()))[1])
    assert "logps/chosen" in metrics
    assert displacement_alarm([{"update": 1, **metrics}] * 9, "kto") == ""
    assert not {"logps/rejected", "rewards/rejected", "rewards/margins"} & metrics.keys()


def test_an_item_stands_on_the_side_that_its_weight_pulls_it_to():
    episodes = [WeightedEpisode("a", "task", 0, 1.5), WeightedEpisode("b", "task", 0, -0.5)]
    items, per_pair = make_items("rloo", episodes, {"a": (0, 5), "b": (5, 12)})
    assert [(item.chosen, item.rejected) for item in items] == [((0, 5), (0, 0)), ((0, 0), (5, 12))]
    assert [item.weight for item in items] == [1.5, 0.5]
    assert per_pair == 2  # an update holds as many episodes as its pairs would
