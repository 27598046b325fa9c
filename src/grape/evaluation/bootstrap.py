"""Confidence interval of the difference between two policies by clustered bootstrap."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from grape.evaluation.statistics import cluster_codes, tango_interval

__all__ = [
    "FEWEST_DEVIATING",
    "FEWEST_TASKS",
    "DifferenceInterval",
    "paired_difference_interval",
    "pooled_mean_interval",
]

Floats = npt.NDArray[np.float64]

FEWEST_TASKS = 5
"""With fewer tasks than this, tasks are strata, not a sample: resampling 2-4 of them estimates no variance."""

FEWEST_DEVIATING = 10
"""With fewer initial states than this that deviate from the commonest outcome, no bootstrap can be trusted."""

_CHUNK = 4_000_000


@dataclass(frozen=True)
class DifferenceInterval:
    """Interval of a difference between two success rates on the same initial states.

    Attributes:
        low: Lower bound, in [-1, 1].
        high: Upper bound, in [-1, 1].
        method: What was done, for people, e.g. ``"bootstrap over initial states within tasks"``.
        units: How many units were resampled (or counted by the score interval).
    """

    low: float
    high: float
    method: str
    units: int


def paired_difference_interval(
    differences: npt.ArrayLike,
    tasks: Sequence[Hashable],
    states: Sequence[Hashable],
    confidence: float = 0.95,
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> DifferenceInterval:
    """Interval of the mean paired difference between two success rates.

    What is resampled follows from what varied:

    - at least :data:`FEWEST_TASKS` tasks: whole tasks with all their episodes (clustered by task), so the interval
      also covers how tasks differ from each other. A handful of tasks can agree by luck, so the next way is taken
      where it gives the wider interval;
    - fewer tasks: initial states with all their rollouts, within each task (stratified). The interval is then about
      fresh initial states of *these* tasks. Where a task has only one state, states are resampled across tasks;
    - fewer than :data:`FEWEST_DEVIATING` initial states that deviate from the commonest outcome (mostly: the policies
      differ on so few): no resampling but :func:`tango_interval`, because a bootstrap of three differing pairs is far
      too sure of itself.

    The bootstrap interval is the *expanded percentile* interval (Hesterberg 2015, Am. Stat. 69:371): the
    percentiles are moved outward by Student's t quantile and the (n - 1) / n shrinkage of the bootstrap variance.
    Plain percentiles cover about 85 % for five clusters; BCa needs the third moment, which few clusters cannot give,
    and BCa's correction is undefined when the draws are degenerate. Both agree for many units.

    Args:
        differences: B minus A, one a paired episode, in {-1, 0, 1}, ``(N,)``.
        tasks: Task of each pair, ``(N,)``.
        states: Initial state of each pair, ``(N,)``; equal states of different tasks are different states.
        confidence: Two-sided level in (0, 1).
        draws: Bootstrap samples.
        seed: Seed of the resampling.

    Raises:
        ValueError: There are no pairs, or lengths disagree.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not len(values) or not len(values) == len(tasks) == len(states):
        raise ValueError(f"{len(values)} differences, {len(tasks)} tasks, {len(states)} states")
    keys = list(zip(tasks, states, strict=True))
    state_codes = cluster_codes(keys)
    state_sums, state_counts = _sums(state_codes, values), _sums(state_codes, np.ones(len(values)))
    state_means = state_sums / state_counts
    commonest = int(np.unique(state_means, return_counts=True)[1].max())
    if len(state_means) - commonest < FEWEST_DEVIATING:
        loss, gain = float(-state_means[state_means < 0].sum()), float(state_means[state_means > 0].sum())
        interval = tango_interval(loss, gain, len(state_sums), confidence)
        return DifferenceInterval(*interval, "score interval (Tango 1998)", len(state_sums))
    task_of_state = cluster_codes([task for task, _ in dict.fromkeys(keys)])
    n_tasks = int(task_of_state.max()) + 1
    rng = np.random.default_rng(seed)
    strata = [np.flatnonzero(task_of_state == task) for task in range(n_tasks)]
    method = "bootstrap over initial states" + (" within tasks" if n_tasks > 1 else "")
    if min(map(len, strata)) < 2:
        strata, method = [np.arange(len(state_sums))], "bootstrap over initial states"
    within = DifferenceInterval(
        *_expanded(state_sums, state_counts, strata, confidence, draws, rng), method, len(state_sums)
    )
    if n_tasks < FEWEST_TASKS:
        return within
    sums, counts = _sums(task_of_state, state_sums), _sums(task_of_state, state_counts)
    bounds = _expanded(sums, counts, [np.arange(n_tasks)], confidence, draws, rng)
    over = DifferenceInterval(*bounds, "bootstrap over tasks", n_tasks)
    return over if over.high - over.low >= within.high - within.low else within


def pooled_mean_interval(
    sums: npt.ArrayLike, counts: npt.ArrayLike, confidence: float = 0.95, *, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Interval of a mean over all values of several clusters, by the bootstrap of :func:`paired_difference_interval`.

    Args:
        sums: Sum of the values of each cluster, ``(N,)``; of paired differences for an interval of their mean.
        counts: Number of values of each cluster, ``(N,)``.
        confidence: Two-sided level in (0, 1).
        draws: Bootstrap samples.
        seed: Seed of the resampling.

    Raises:
        ValueError: There are fewer than two clusters, or lengths disagree.
    """
    values, weights = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if len(values) < 2 or values.shape != weights.shape:
        raise ValueError(f"{len(values)} sums, {len(weights)} counts")
    return _expanded(values, weights, [np.arange(len(values))], confidence, draws, np.random.default_rng(seed))


def _expanded(
    sums: Floats,
    counts: Floats,
    strata: Sequence[npt.NDArray[np.intp]],
    confidence: float,
    draws: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Expanded percentile interval of the pooled mean; units are resampled within their stratum."""
    means = _resample(sums, counts, strata, draws, rng)
    tail = _expanded_tail(sums, counts, strata, confidence)
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def _resample(
    sums: Floats, counts: Floats, strata: Sequence[npt.NDArray[np.intp]], draws: int, rng: np.random.Generator
) -> Floats:
    """Pooled mean of ``draws`` bootstrap samples; units are drawn with replacement within their stratum."""
    numerator, denominator = np.zeros(draws), np.zeros(draws)
    for members in strata:
        size = len(members)
        step = max(1, _CHUNK // size)
        for start in range(0, draws, step):
            stop = min(start + step, draws)
            weights = rng.multinomial(size, np.full(size, 1 / size), stop - start).astype(np.float64)
            numerator[start:stop] += weights @ sums[members]
            denominator[start:stop] += weights @ counts[members]
    return numerator / denominator


def _expanded_tail(sums: Floats, counts: Floats, strata: Sequence[npt.NDArray[np.intp]], confidence: float) -> float:
    """Tail probability of the expanded percentile interval for these strata."""
    residuals = sums - sums.sum() / counts.sum() * counts
    plain = unbiased = 0.0
    for members in strata:
        size, spread = len(members), float(np.var(residuals[members])) * len(members)
        plain += spread
        unbiased += spread * size / (size - 1)
    freedom = len(sums) - len(strata)
    factor = math.sqrt(unbiased / plain) if plain > 0 else 1.0
    return float(special.ndtr(-factor * special.stdtrit(freedom, (1 + confidence) / 2)))


def _sums(codes: npt.NDArray[np.intp], weights: Floats) -> Floats:
    """Sum of the weights of each code."""
    return np.bincount(codes, weights=weights).astype(np.float64)
