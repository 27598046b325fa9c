"""The area under the ROC curve and its interval: by hand, by laws, and by how often it covers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.costs.trial_measures import area_under_curve, concordance


def test_by_hand() -> None:
    """Successes cost 1, 3, 5; failures 4, 5: in order are (1,4), (1,5), (3,4), (3,5), half (5,5), not (5,4)."""
    auc = area_under_curve([1, 3, 5, 4, 5], [True, True, True, False, False], [0, 1, 2, 3, 4])
    assert auc is not None
    assert auc.value == pytest.approx(4.5 / 6)
    # DeLong: placements of successes 1, 1, 0.25, of failures 2/3, 5/6; logit interval.
    variance = np.var([1, 1, 0.25], ddof=1) / 3 + np.var([2 / 3, 5 / 6], ddof=1) / 2
    spread = 1.959964 * math.sqrt(variance) / (0.75 * 0.25)
    low, high = (1 / (1 + math.exp(-(math.log(3) + sign * spread))) for sign in (-1, 1))
    assert (auc.low, auc.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
    assert (auc.successes, auc.failures, auc.clusters) == (3, 2, 5)
    assert area_under_curve([1, 2], [True, True], [0, 1]) is None
    assert area_under_curve([], [], []) is None


def test_pairs_of_one_initial_state() -> None:
    share, pairs = concordance([1, 2, 3, 0, 9], [True, False, True, False, False], ["a", "a", "b", "b", "c"])
    assert (share, pairs) == (0.5, 2)
    assert concordance([1, 2], [True, False], ["a", "b"]) == (None, 0)


EPISODES = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=2, max_size=20)


@settings(max_examples=60, deadline=None)
@given(episodes=EPISODES)
def test_laws(episodes: list[tuple[int, bool, int]]) -> None:
    costs, success, cluster = (list(column) for column in zip(*episodes, strict=True))
    auc = area_under_curve(costs, success, cluster)
    if auc is None:
        assert len(set(success)) == 1
        return
    assert 0.0 <= auc.low <= auc.value <= auc.high <= 1.0
    mirrored = area_under_curve([-cost for cost in costs], success, cluster)
    assert mirrored is not None
    assert mirrored.value == pytest.approx(1 - auc.value)
    # Recording every episode twice says nothing new; an interval that took them for independent would shrink.
    twice = area_under_curve(costs * 2, success * 2, cluster * 2)
    assert twice is not None
    assert (twice.low, twice.high) == (pytest.approx(auc.low), pytest.approx(auc.high))


def test_a_perfect_ranking_of_few_states_is_no_certainty() -> None:
    lows = []
    for states in (2, 8, 32):
        auc = area_under_curve([0] * states + [1] * states, [True] * states + [False] * states, [*range(states)] * 2)
        assert auc is not None
        assert (auc.value, auc.high) == (1.0, 1.0)
        lows.append(auc.low)
    assert lows == sorted(lows)
    assert lows[0] < 0.5 < 0.9 < lows[2]


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Twelve initial states that differ from each other as much as episodes within them do."""
    rng = np.random.default_rng(0)
    truth = 0.5 * (1 + math.erf(1.2 / 2 / math.sqrt(2)))
    covered = []
    for _ in range(200):
        state = np.repeat(np.arange(12), 6)
        success = rng.random(72) < 0.5
        cost = rng.normal(0, 1, 12)[state] + rng.normal(0, 1, 72) + 1.2 * ~success
        auc = area_under_curve(cost.tolist(), success.tolist(), state.tolist())
        assert auc is not None
        covered.append(auc.low <= truth <= auc.high)
    assert 0.88 <= np.mean(covered) <= 0.99
