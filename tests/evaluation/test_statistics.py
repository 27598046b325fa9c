"""Statistics against published values, brute force and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from grape.evaluation.statistics import (
    cluster_sums,
    clustered_wilson_interval,
    holm,
    mcnemar_exact,
    sign_flip_test,
    tango_interval,
    wilson_interval,
)

COUNTS = st.integers(0, 60)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_published_intervals(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=6e-5)


@given(trials=st.integers(1, 500), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_scipy_and_holds_the_rate(trials: int, share: float, confidence: float) -> None:
    successes = round(share * trials)
    ours = wilson_interval(successes, trials, confidence)
    theirs = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= ours.low <= successes / trials <= ours.high <= 1


def test_wilson_coverage_by_enumeration() -> None:
    """Mean coverage over rates is near nominal even for 20 trials."""
    trials, rates = 20, np.linspace(0.02, 0.98, 97)
    bounds = [wilson_interval(k, trials) for k in range(trials + 1)]
    coverage = [
        sum(stats.binom.pmf(k, trials, p) for k, bound in enumerate(bounds) if bound.low <= p <= bound.high)
        for p in rates
    ]
    assert 0.94 < np.mean(coverage) < 0.97
    assert min(coverage) > 0.83


@pytest.mark.parametrize("arguments", [(-1, 5), (6, 5), (1, 5, 0.0), (1, 5, 1.0)])
def test_wilson_refuses_impossible_counts(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"trials|confidence"):
        wilson_interval(*arguments)


def test_no_trials_say_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert clustered_wilson_interval([], []) == (0.0, 1.0)


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_one_rollout_a_state_is_plain_wilson(outcomes: list[bool]) -> None:
    ones = [1] * len(outcomes)
    assert clustered_wilson_interval([int(o) for o in outcomes], ones) == wilson_interval(sum(outcomes), len(outcomes))


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(2, 6))
def test_copies_of_an_episode_add_nothing(outcomes: list[bool], copies: int) -> None:
    """Repeating every episode must not narrow the interval: the evidence is the same."""
    plain = wilson_interval(sum(outcomes), len(outcomes))
    repeated = clustered_wilson_interval([copies * o for o in outcomes], [copies] * len(outcomes))
    assert repeated == pytest.approx(plain, abs=1e-9)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=40))
def test_clustered_wilson_lies_between_states_and_episodes(successes: list[int]) -> None:
    total, states = sum(successes), len(successes)
    interval = clustered_wilson_interval(successes, [4] * states)
    widest, narrowest = wilson_interval(total / 4, states), wilson_interval(total, 4 * states)
    assert widest.low - 1e-9 <= interval.low <= narrowest.low + 1e-9
    assert narrowest.high - 1e-9 <= interval.high <= widest.high + 1e-9


def test_mcnemar_equals_published_value() -> None:
    """Bentur et al. 2009 (1 and 7 differing pairs) in Fagerland, Lydersen and Laake 2013: exact conditional 0.070."""
    assert mcnemar_exact(1, 7) == pytest.approx(0.0703125, abs=1e-12)


@given(COUNTS, COUNTS)
def test_mcnemar_equals_the_binomial_test(only_a: int, only_b: int) -> None:
    if only_a + only_b == 0:
        assert mcnemar_exact(only_a, only_b) == 1.0
        return
    for alternative in ("two-sided", "greater", "less"):
        expected = stats.binomtest(only_b, only_a + only_b, alternative=alternative).pvalue
        assert mcnemar_exact(only_a, only_b, alternative) == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9), st.sampled_from(["two-sided", "greater", "less"]))
def test_sign_flips_of_whole_numbers_equal_enumeration(differences: list[int], alternative: str) -> None:
    assert sign_flip_test(differences, alternative) == pytest.approx(_enumerate(differences, alternative), abs=1e-12)


@given(
    st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=1, max_size=8),
    st.sampled_from(["two-sided", "greater", "less"]),
)
def test_sign_flips_of_fractions_equal_enumeration(differences: list[float], alternative: str) -> None:
    assert sign_flip_test(differences, alternative) == pytest.approx(_enumerate(differences, alternative), abs=1e-12)


def _enumerate(differences: list[int] | list[float], alternative: str) -> float:
    observed, hits = sum(differences), 0
    for signs in itertools.product((-1, 1), repeat=len(differences)):
        total = sum(sign * abs(d) for sign, d in zip(signs, differences, strict=True))
        if alternative == "greater":
            hits += total >= observed - 1e-9
        elif alternative == "less":
            hits += total <= observed + 1e-9
        else:
            hits += abs(total) >= abs(observed) - 1e-9
    return hits / 2 ** len(differences)


@given(COUNTS, COUNTS, st.integers(0, 20))
def test_sign_flips_of_single_pairs_are_mcnemar(only_a: int, only_b: int, ties: int) -> None:
    differences = [-1] * only_a + [1] * only_b + [0] * ties
    for alternative in ("two-sided", "greater", "less"):
        assert sign_flip_test(differences, alternative) == pytest.approx(
            mcnemar_exact(only_a, only_b, alternative), rel=1e-9
        )


def test_drawn_sign_flips_approach_the_exact_ones() -> None:
    differences = np.array([1, 1, 1, 2, -1, 3, 1, -2, 1, 1, 2, 1, 1, -1, 1, 2, 1, 1, 1, -1, 1, 1], dtype=float)
    exact = sign_flip_test(differences)
    drawn = sign_flip_test(differences * 0.1234567, draws=200_000, seed=3)
    assert drawn == pytest.approx(exact, rel=0.15)
    assert drawn == sign_flip_test(differences * 0.1234567, draws=200_000, seed=3)
    assert sign_flip_test(np.full(40, 0.1)) > 0  # the observed signs count among the drawn ones


def test_five_units_cannot_be_significant_at_five_per_cent() -> None:
    assert sign_flip_test([0.4, 0.3, 0.5, 0.2, 0.6]) == 0.0625


def test_sign_flips_of_many_units_do_not_overflow() -> None:
    assert sign_flip_test([1] * 3000 + [-1] * 2900) == pytest.approx(mcnemar_exact(2900, 3000), rel=1e-6)


def test_cluster_sums() -> None:
    assert cluster_sums([1, 2, 4], ["b", "a", "b"]).tolist() == [5, 2]
    assert cluster_sums([], []).tolist() == []
    with pytest.raises(ValueError, match="cluster labels"):
        cluster_sums([1, 2], ["a"])


def test_tango_equals_published_interval() -> None:
    """Bentur et al. 2009 in Fagerland, Lydersen and Laake 2014, Stat. Med. 33:2850: -0.517 to -0.026."""
    assert tango_interval(7, 1, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


@settings(max_examples=60)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 40))
def test_tango_bounds_solve_the_score_equation(only_a: int, only_b: int, same: int) -> None:
    pairs = only_a + only_b + same
    low, high = tango_interval(only_a, only_b, pairs)
    mirrored = tango_interval(only_b, only_a, pairs)
    assert (low, high) == pytest.approx((-mirrored.high, -mirrored.low), abs=1e-9)
    assert -1 <= low <= (only_b - only_a) / pairs <= high <= 1
    for bound in (low, high):
        assert abs(_score(bound, only_a, only_b, pairs)) == pytest.approx(stats.norm.ppf(0.975), rel=2e-3)


def _score(difference: float, only_a: int, only_b: int, pairs: int) -> float:
    """Score statistic with the nuisance parameter maximized numerically."""
    lowest, highest = max(0.0, -difference), (1 - difference) / 2

    def loss(q: float) -> float:
        probabilities = (q, q + difference, 1 - 2 * q - difference)
        counts = (only_a, only_b, pairs - only_a - only_b)
        return -sum(n * math.log(max(p, 1e-300)) for n, p in zip(counts, probabilities, strict=True) if n)

    q = optimize.minimize_scalar(loss, bounds=(lowest, highest), method="bounded", options={"xatol": 1e-10}).x
    return (only_b - only_a - pairs * difference) / math.sqrt(pairs * (2 * q + difference * (1 - difference)))


def test_tango_does_not_collapse_without_differing_pairs() -> None:
    low, high = tango_interval(0, 0, 50)
    assert (low, high) == pytest.approx((-0.0713, 0.0713), abs=1e-4)
    assert tango_interval(0, 8, 8).high == 1.0


@pytest.mark.parametrize("counts", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_tango_refuses_impossible_counts(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="differing pairs"):
        tango_interval(*counts)


def test_mcnemar_keeps_its_level_by_enumeration() -> None:
    """Equal policies are called different at most 5 % of the time, however many pairs differ."""
    for differing in range(1, 60):
        rejected = sum(stats.binom.pmf(k, differing, 0.5) for k in range(differing + 1) if _rejects(k, differing))
        assert rejected <= 0.05 + 1e-12


def _rejects(only_b: int, differing: int) -> bool:
    return mcnemar_exact(differing - only_b, only_b) <= 0.05


def test_holm_equals_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_raw_and_bonferroni(p_values: list[float]) -> None:
    for raw, adjusted in zip(p_values, holm(p_values), strict=True):
        assert raw <= adjusted <= min(1.0, raw * len(p_values)) + 1e-12
