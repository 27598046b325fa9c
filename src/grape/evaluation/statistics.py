"""Intervals and tests for success rates: pure functions of counts and arrays.

Independent of episodes and files. Three ideas:

- A success rate gets a Wilson interval, widened when several rollouts share an initial state.
- Two policies are compared on the same initial states. The difference is tested by flipping signs: with one rollout
  a state that is the exact McNemar test, with several it flips all rollouts of a state together.
- The size of the difference gets an interval of its own: a score interval here, a bootstrap in ``bootstrap``.
"""

import math
from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

__all__ = [
    "Alternative",
    "Interval",
    "cluster_codes",
    "cluster_sums",
    "clustered_rate_interval",
    "clustered_wilson_interval",
    "holm",
    "mcnemar_exact",
    "sign_flip_test",
    "tango_interval",
    "wilson_interval",
]

Alternative = Literal["two-sided", "greater", "less"]
Floats = npt.NDArray[np.float64]

_EXACT_ENUMERATION = 16
_CHUNK = 4_000_000


class Interval(NamedTuple):
    """Lower and upper bound."""

    low: float
    high: float


def wilson_interval(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a binomial proportion (Wilson 1927, JASA 22:209; Newcombe 1998, Stat. Med. 17:857).

    Unlike the textbook interval ``p +- z sqrt(p q / n)`` it stays inside [0, 1] and keeps its coverage for few trials
    and for rates near 0 and 1 (Brown, Cai and DasGupta 2001, Statist. Sci. 16:101).

    Args:
        successes: Number of successes; need not be whole (effective counts of clustered data).
        trials: Number of independent trials; 0 gives [0, 1].
        confidence: Two-sided level in (0, 1).

    Raises:
        ValueError: ``successes`` is not in [0, trials], or the level is not in (0, 1).
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    z = _z(confidence)
    if trials == 0:
        return Interval(0.0, 1.0)
    rate = successes / trials
    shrink = 1 + z * z / trials
    center = (rate + z * z / (2 * trials)) / shrink
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / shrink
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == trials else min(1.0, center + half)
    return Interval(low, high)


def clustered_wilson_interval(
    successes: Sequence[int] | npt.NDArray[np.integer] | Floats,
    trials: Sequence[int] | npt.NDArray[np.integer] | Floats,
    confidence: float = 0.95,
) -> Interval:
    """Wilson interval with the effective number of trials, for several rollouts from each initial state.

    Rollouts of one state resemble each other, so ``n`` of them say less than ``n`` independent ones: the design effect
    (variance of the rate from between-state residuals, over the binomial one; Kish 1965) divides ``n`` (Dean and
    Pagano 2015, J. Surv. Stat. Methodol. 3:484). It is kept in [1, mean trials a state]. Where all rollouts
    agree it cannot be estimated and its upper end is taken. One trial a state gives Wilson's interval exactly.

    Args:
        successes: Successes a state, ``(C,)``; ties may count half.
        trials: Trials a state, ``(C,)``, each at least 1.
        confidence: Two-sided level in (0, 1).
    """
    successes_each = np.asarray(successes, dtype=np.float64)
    trials_each = np.asarray(trials, dtype=np.float64)
    total, clusters = float(trials_each.sum()), len(trials_each)
    if clusters == 0 or np.all(trials_each == 1):
        return wilson_interval(float(successes_each.sum()), total, confidence)
    largest = total / clusters
    rate = float(successes_each.sum()) / total
    if clusters == 1 or rate in (0.0, 1.0):
        effect = largest
    else:
        residuals = successes_each - rate * trials_each
        variance = clusters / (clusters - 1) * float(residuals @ residuals) / total**2
        effect = min(max(variance / (rate * (1 - rate) / total), 1.0), largest)
    effective = total / effect
    return wilson_interval(min(rate * effective, effective), effective, confidence)


def mcnemar_exact(only_a: int, only_b: int, alternative: Alternative = "two-sided") -> float:
    """p-value of the exact McNemar test (McNemar 1947; Fagerland, Lydersen and Laake 2013, BMC MRM 13:91).

    Pairs in which both policies did the same say nothing about which is better. Given the number of pairs that
    differ, each is a fair coin if the policies are equally good.

    Args:
        only_a: Pairs in which only A succeeded.
        only_b: Pairs in which only B succeeded.
        alternative: ``"greater"``: B is better; ``"less"``: B is worse.

    Returns:
        Probability in (0, 1]; the two-sided value is twice the smaller tail, at most 1.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"negative count: {only_a}, {only_b}")
    differing = only_a + only_b
    if differing == 0:
        return 1.0
    if alternative == "greater":
        return float(special.bdtr(only_a, differing, 0.5))
    if alternative == "less":
        return float(special.bdtr(only_b, differing, 0.5))
    return min(1.0, 2.0 * float(special.bdtr(min(only_a, only_b), differing, 0.5)))


def cluster_sums(values: npt.ArrayLike, clusters: Sequence[Hashable]) -> Floats:
    """Sum of the values of each cluster, in order of first appearance, ``(C,)``."""
    rows = np.asarray(values, dtype=np.float64)
    if len(rows) != len(clusters):
        raise ValueError(f"{len(rows)} values, {len(clusters)} cluster labels")
    return np.bincount(cluster_codes(clusters), weights=rows).astype(np.float64)


def cluster_codes(clusters: Sequence[Hashable]) -> npt.NDArray[np.intp]:
    """Labels as numbers 0, 1, ... in order of first appearance, one a label."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in clusters], dtype=np.intp)


def clustered_rate_interval(
    successes: npt.ArrayLike, clusters: Sequence[Hashable], confidence: float = 0.95
) -> Interval:
    """:func:`clustered_wilson_interval` of outcomes, given one by one.

    Args:
        successes: Whether each trial succeeded, ``(N,)``.
        clusters: Which trials go together, a label each.
        confidence: Two-sided level in (0, 1).
    """
    sums = cluster_sums(successes, clusters).astype(np.int64)
    trials = cluster_sums(np.ones(len(clusters)), clusters).astype(np.int64)
    return clustered_wilson_interval(sums, trials, confidence)


def sign_flip_test(
    differences: npt.ArrayLike, alternative: Alternative = "two-sided", *, draws: int = 100_000, seed: int = 0
) -> float:
    """Sign-flip (paired permutation) test of "no difference" over independent units (Fisher 1935).

    If A and B are exchangeable on every unit, each unit's difference could as well have had the other sign. Whole
    numbers (successes of B minus A a state) are counted exactly by convolution, so no sampling noise and any number
    of units; differences in {-1, 0, 1} give :func:`mcnemar_exact`. Other numbers are enumerated up to 16 units, and
    beyond that drawn, counting the observed one among the draws (Phipson and Smyth 2010, SAGMB 9:39).

    Args:
        differences: B minus A, one a unit, ``(U,)``. Sum over clusters first (:func:`cluster_sums`).
        alternative: ``"greater"``: B is better; ``"less"``: B is worse.
        draws: Random sign vectors where neither exact way is open.
        seed: Seed of those draws.

    Returns:
        Probability in (0, 1]. With ``U`` units it is at least ``2**(1-U)`` (two-sided): 5 units cannot give less
        than 0.0625.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if len(values) == 0:
        return 1.0
    if alternative == "less":
        values = -values
    observed = float(values.sum())
    sizes = np.abs(values)
    if np.all(sizes == np.round(sizes)):
        return _flip_whole(sizes.astype(np.int64), round(observed), two_sided=alternative == "two-sided")
    units = len(sizes)
    if units <= _EXACT_ENUMERATION:
        patterns = np.arange(2**units)[:, None] >> np.arange(units)[None, :] & 1
        sums = (2 * patterns - 1) @ sizes
        extra = 0
    else:
        rng = np.random.default_rng(seed)
        step = max(1, _CHUNK // units)
        parts = [
            (2 * rng.integers(0, 2, (min(step, draws - i), units), dtype=np.int8) - 1) @ sizes
            for i in range(0, draws, step)
        ]
        sums, extra = np.concatenate(parts), 1
    slack = 1e-9 * float(sizes.sum())  # sums that differ only by rounding are ties, and ties count as extreme
    extreme = np.abs(sums) >= abs(observed) - slack if alternative == "two-sided" else sums >= observed - slack
    return (int(extreme.sum()) + extra) / (len(sums) + extra)


def _flip_whole(sizes: npt.NDArray[np.int64], observed: int, *, two_sided: bool) -> float:
    """Exact tail of ``sum(+-size)`` by convolution over the number of units of each size."""
    total = int(sizes.sum())
    plus = np.ones(1)  # plus[k]: probability that the units with a plus sign sum to k
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        binomial = np.zeros(int(size * count) + 1)
        ones = np.arange(int(count) + 1)
        log_pmf = special.gammaln(count + 1) - special.gammaln(ones + 1) - special.gammaln(count - ones + 1)
        binomial[:: int(size)] = np.exp(log_pmf - count * math.log(2))
        plus = np.convolve(plus, binomial)
    sums = 2 * np.arange(total + 1) - total
    extreme = np.abs(sums) >= abs(observed) if two_sided else sums >= observed
    return min(1.0, float(plus[extreme].sum()))


def tango_interval(only_a: float, only_b: float, pairs: float, confidence: float = 0.95) -> Interval:
    """Score interval of the difference ``p_B - p_A`` from paired outcomes (Tango 1998, Stat. Med. 17:891).

    It inverts the score test, so it stays honest where few or no pairs differ: two policies that agreed on all of 50
    states still get -7 to +7 points, where a bootstrap would claim 0 to 0.

    Args:
        only_a: Pairs in which only A succeeded; need not be whole.
        only_b: Pairs in which only B succeeded.
        pairs: All pairs, at least one.
        confidence: Two-sided level in (0, 1).
    """
    if min(only_a, only_b) < 0 or pairs <= 0 or only_a + only_b > pairs * (1 + 1e-12):
        raise ValueError(f"{only_a} and {only_b} differing pairs of {pairs}")
    z = _z(confidence)
    high = _tango_upper(only_a, only_b, pairs, z)
    low = -_tango_upper(only_b, only_a, pairs, z)
    return Interval(low, high)


def _tango_upper(only_a: float, only_b: float, pairs: float, z: float) -> float:
    """Largest difference that the one-sided score test does not reject, by bisection."""
    low, high = (only_b - only_a) / pairs, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        # Maximum-likelihood probability of "only A" when the difference is `middle`.
        linear = -only_b - only_a + (2 * pairs - only_b + only_a) * middle
        constant = -only_a * middle * (1 - middle)
        root = math.sqrt(max(linear * linear - 8 * pairs * constant, 0.0))
        q = (root - linear) / (4 * pairs)
        spread = math.sqrt(max(pairs * (2 * q + middle * (1 - middle)), 0.0))
        if only_b - only_a - pairs * middle > -z * spread:
            low = middle
        else:
            high = middle
    return high if high < 1.0 - 1e-12 else 1.0


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down adjusted p-values for several tests at once (Holm 1979, Scand. J. Stat. 6:65)."""
    order = np.argsort(np.asarray(p_values), kind="stable")
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return tuple(adjusted)


def _z(confidence: float) -> float:
    """Two-sided normal quantile of a confidence level."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    return float(special.ndtri((1 + confidence) / 2))
