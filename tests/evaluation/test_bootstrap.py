"""Intervals of a difference: what is resampled, exactly and in simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from grape.evaluation.bootstrap import FEWEST_DEVIATING, paired_difference_interval, pooled_mean_interval
from grape.evaluation.statistics import tango_interval


def _labels(tasks: int, states: int) -> tuple[list[int], list[int]]:
    return [t for t in range(tasks) for _ in range(states)], list(range(states)) * tasks


def test_bootstrap_equals_exact_enumeration_of_task_resamples() -> None:
    """Five tasks: all 5**5 resamples can be listed, and the expanded percentiles be read off them."""
    tasks, states = _labels(5, 8)
    rng = np.random.default_rng(1)
    differences = np.concatenate([rng.choice([-1, 0, 1], size=8, p=[0.4 - p, 0.4, 0.2 + p]) for p in np.arange(5) / 10])
    interval = paired_difference_interval(differences, tasks, states, draws=200_000, seed=0)
    assert interval.method == "bootstrap over tasks"
    means = differences.reshape(5, 8).mean(1)
    every = np.array([means[list(choice)].mean() for choice in itertools.product(range(5), repeat=5)])
    tail = stats.norm.cdf(-math.sqrt(5 / 4) * stats.t.ppf(0.975, 4))
    assert (interval.low, interval.high) == pytest.approx(np.quantile(every, (tail, 1 - tail)), abs=0.02)


def test_what_is_resampled_follows_from_what_varied() -> None:
    differences = [1, 1, 0, -1, 0, 1, 1, -1, 1, 0] * 2
    few, states = _labels(2, 10)
    assert paired_difference_interval(differences, few, states).method == "bootstrap over initial states within tasks"
    one, many = _labels(1, 20)
    assert paired_difference_interval(differences, one, many).method == "bootstrap over initial states"
    lone = [0] * 19 + [1]
    assert paired_difference_interval(differences, lone, many).method == "bootstrap over initial states"
    five, four = _labels(5, 4)
    alike, unlike = sorted(differences), [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4 + [-1] * 4
    assert paired_difference_interval(unlike, five, four).method == "bootstrap over tasks"
    spread = [alike[i % 5 * 4 + i // 5] for i in range(20)]
    assert paired_difference_interval(spread, five, four).method == "bootstrap over initial states within tasks"


def test_few_differing_states_get_the_score_interval() -> None:
    differences = [1] * (FEWEST_DEVIATING - 1) + [0] * 41
    tasks, states = _labels(1, 50)
    interval = paired_difference_interval(differences, tasks, states)
    assert interval.method.startswith("score interval")
    assert (interval.low, interval.high) == tango_interval(0, FEWEST_DEVIATING - 1, 50)


def test_total_victory_is_not_certainty() -> None:
    """B wins all of 20 pairs: resampling would give +100 to +100."""
    tasks, states = _labels(1, 20)
    interval = paired_difference_interval([1] * 20, tasks, states)
    assert (interval.low, interval.high) == tango_interval(0, 20, 20)
    assert interval.low == pytest.approx((20 - 1.96**2) / (20 + 1.96**2), abs=1e-4)


def test_several_rollouts_of_a_state_are_one_unit() -> None:
    tasks, states = _labels(2, 20)
    rng = np.random.default_rng(5)
    differences = rng.choice([-1, 0, 1], size=40, p=[0.2, 0.3, 0.5])
    once = paired_difference_interval(differences, tasks, states)
    thrice = paired_difference_interval(np.tile(differences, 3), tasks * 3, states * 3)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high), abs=1e-12)
    assert thrice.units == once.units == 40


def test_bootstrap_is_reproducible_and_depends_on_its_seed() -> None:
    tasks, states = _labels(2, 30)
    differences = np.random.default_rng(0).choice([-1, 0, 1], size=60)
    first = paired_difference_interval(differences, tasks, states, seed=1)
    assert first == paired_difference_interval(differences, tasks, states, seed=1)
    assert first != paired_difference_interval(differences, tasks, states, seed=2)


def test_interval_needs_pairs_and_labels() -> None:
    with pytest.raises(ValueError, match="0 differences"):
        paired_difference_interval([], [], [])
    with pytest.raises(ValueError, match="1 tasks"):
        paired_difference_interval([1, 0], ["a"], [1, 2])


@pytest.mark.parametrize(
    ("tasks", "states", "rate_a", "rate_b", "lowest"),
    [
        (2, 50, 0.5, 0.7, 0.915),  # the demonstration's size
        (2, 10, 0.5, 0.6, 0.9),  # a mix of score and bootstrap intervals
        (1, 50, 0.95, 0.97, 0.9),  # hardly any pair differs
    ],
)
def test_interval_covers_the_true_difference(
    tasks: int, states: int, rate_a: float, rate_b: float, lowest: float
) -> None:
    """400 simulated comparisons with half of the luck shared; the standard error of the coverage is 1.1 points."""
    rng = np.random.default_rng(11)
    task_labels, state_labels = _labels(tasks, states)
    covered = 0
    for repetition in range(400):
        luck = rng.random((3, tasks * states))
        shared = rng.random((2, tasks * states)) < 0.5
        a = np.where(shared[0], luck[0], luck[1]) < rate_a
        b = np.where(shared[1], luck[0], luck[2]) < rate_b
        interval = paired_difference_interval(
            b.astype(int) - a.astype(int), task_labels, state_labels, draws=600, seed=repetition
        )
        covered += interval.low <= rate_b - rate_a <= interval.high
    assert lowest < covered / 400 < 0.985


@pytest.mark.parametrize(("tasks", "lowest"), [(5, 0.9), (10, 0.9)])
def test_interval_over_tasks_covers_the_mean_of_all_tasks(tasks: int, lowest: float) -> None:
    """Tasks differ by 15 points; plain percentiles of five tasks cover about 86 % only."""
    rng = np.random.default_rng(7)
    task_labels, state_labels = _labels(tasks, 20)
    covered = plain = 0
    for repetition in range(300):
        gains = rng.normal(0.1, 0.15, tasks)
        outcomes = rng.random((2, tasks, 20))
        differences = (outcomes[0] < (0.5 + gains)[:, None]).astype(int) - (outcomes[1] < 0.5).astype(int)
        interval = paired_difference_interval(
            differences.ravel(), task_labels, state_labels, draws=600, seed=repetition
        )
        covered += interval.low <= 0.1 <= interval.high
        resampled = differences.mean(1)[rng.integers(0, tasks, (600, tasks))].mean(1)
        low, high = np.quantile(resampled, (0.025, 0.975))
        plain += low <= 0.1 <= high
    assert lowest < covered / 300 < 0.985
    assert plain < covered


@pytest.mark.parametrize("clusters", [10, 40])
def test_interval_of_a_pooled_mean_covers_it(clusters: int) -> None:
    """Clusters of unequal size whose values lie together; the standard error of the coverage is 1.1 points."""
    rng = np.random.default_rng(5)
    covered = 0
    for repetition in range(400):
        counts = rng.integers(5, 20, clusters)
        sums = counts * rng.normal(1.0, 0.3, clusters) + np.sqrt(counts) * rng.normal(0, 0.5, clusters)
        low, high = pooled_mean_interval(sums, counts, draws=600, seed=repetition)
        covered += low <= 1.0 <= high
    assert 0.9 < covered / 400 < 0.985


def test_interval_of_a_pooled_mean_needs_two_clusters() -> None:
    with pytest.raises(ValueError, match="1 sums"):
        pooled_mean_interval([1.0], [2.0])
