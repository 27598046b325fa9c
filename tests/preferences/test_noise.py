"""What differs by noise only makes no pair, and noise turns no pair round."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.errors import DataError
from grape.core.preferences import Score
from grape.preferences.gcpg import RawTerms, calibrate, weighted_terms
from grape.preferences.noise import COST_NOISE, LOGP_NOISE, ROUNDING, ScoreNoise
from grape.preferences.pairing import pairs_of_states
from tests.preferences.rollouts import make_score, make_stage

NORMALIZATIONS = ("raw", "step-mean", "state-standardised", "task-standardised")
STEPS = 16


def scored(likelihoods: list[float], costs: list[float], normalization: str) -> tuple[list[Score], ScoreNoise]:
    """Failures of one initial state with these log-probabilities a decision and costs, as ``score`` writes them."""
    count = len(costs)
    raw = RawTerms(
        r_self=STEPS * np.array(likelihoods),
        steps=np.full(count, STEPS),
        cost=np.array(costs),
        success=np.zeros(count),
        task=np.zeros(count, int),
        state=np.zeros(count, int),
        tasks=("t",),
    )
    # Fixed scales: what is perturbed below are the measurements, not how they are weighed.
    calibration = calibrate(raw, weights=(0.5, 2.0, 2.0), beta=0.7, normalisation=normalization, keep_weights=True)
    rows = weighted_terms(raw, calibration).tolist()
    scores = [
        dataclasses.replace(make_score(f"e{n}", success=False, terms=row, steps=STEPS, r_self=STEPS * likelihoods[n]))
        for n, row in enumerate(rows)
    ]
    return scores, ScoreNoise.of_summary({"calibration": calibration.to_dict()}, {"t"}, "done.json")


GRID = st.integers(0, 3)
ERRORS = st.floats(-1, 1)


@settings(deadline=None)
@given(
    st.lists(st.tuples(GRID, ERRORS, ERRORS), min_size=2, max_size=8),
    st.sampled_from(["raw", "step-mean"]),
    st.sampled_from(["best-worst", "top-bottom"]),
)
def test_errors_of_measurement_neither_make_a_pair_of_equals_nor_turn_one_round(rows, normalization, mode) -> None:
    """Levels differ by far more than noise; members of one level are equal but for what measuring them adds."""
    levels = [float(level) for level, _, _ in rows]
    # Each side errs by half of what a couple may: sqrt(T) decisions of a sum, or 1/sqrt(T) of a mean, a side.
    own = LOGP_NOISE / math.sqrt(STEPS) / math.sqrt(2)
    likelihoods = [level + 0.99 * own * error for level, (_, error, _) in zip(levels, rows, strict=True)]
    costs = [3.0 - level + 0.49 * COST_NOISE * error for level, (_, _, error) in zip(levels, rows, strict=True)]
    exact, noise = scored(levels, [3.0 - level for level in levels], normalization)
    measured, _ = scored(likelihoods, costs, normalization)
    level_of = {score.episode_id: level for score, level in zip(exact, levels, strict=True)}
    results = {}
    for name, scores in (("exact", exact), ("measured", measured)):
        groups, census = pairs_of_states(scores, mode=mode, m=9, require_mixed_outcomes=False, noise=noise)
        pairs = [pair for group in groups for pair in group]
        assert all(level_of[pair.chosen] > level_of[pair.rejected] for pair in pairs)
        results[name] = ([(level_of[pair.chosen], level_of[pair.rejected]) for pair in pairs], census["t"].narrow)
    assert results["exact"] == results["measured"]


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_couple_that_differs_by_noise_makes_no_pair_and_is_counted(normalization: str) -> None:
    likelihoods, costs = [-1.0, -1.0005, -3.0], [1.0, 1.0004, 3.0]
    scores, noise = scored(likelihoods, costs, normalization)
    groups, census = pairs_of_states(scores[:2], mode="best-worst", require_mixed_outcomes=False, noise=noise)
    assert (groups, census["t"].narrow) == ([], 1)
    without, _ = pairs_of_states(scores[:2], mode="best-worst", require_mixed_outcomes=False)
    assert len(without) == 1
    wide, _ = pairs_of_states(scores[1:], mode="best-worst", require_mixed_outcomes=False, noise=noise)
    assert len(wide) == 1


def test_the_noise_of_a_mean_falls_with_the_number_of_decisions_and_that_of_a_sum_rises() -> None:
    def between(normalization: str, steps: int) -> float:
        one, other = (make_score(name, steps=steps, r_self=-steps, terms=(0, 0, 0)) for name in "ab")
        return ScoreNoise(0.5, normalization).between(one, other)

    assert between("step-mean", 50) == pytest.approx(0.5 * LOGP_NOISE * math.sqrt(2 / 50))
    assert between("raw", 50) == pytest.approx(0.5 * LOGP_NOISE * math.sqrt(100))
    assert between("step-mean", 200) == pytest.approx(between("step-mean", 50) / 2)
    assert between("raw", 200) == pytest.approx(2 * between("raw", 50))


def test_what_was_not_sampled_has_no_noise_of_sampling_and_costs_react_by_beta() -> None:
    one, other = (make_score(name, r_self=None, terms=(0, ext, 0)) for name, ext in (("a", 0.8), ("b", 0.4)))
    assert ScoreNoise(0.5, "step-mean", {"t": 2.0}).between(one, other) == pytest.approx(2.0 * COST_NOISE * 0.8)
    assert ScoreNoise().between(one, other) == ROUNDING


def test_release_0_1_had_one_beta_for_all_tasks() -> None:
    calibration = {"weights": {"self": 0.2, "ext": 2.0, "success": 2.0}, "beta": 0.5, "normalisation": "step-mean"}
    noise = ScoreNoise.of_summary({"calibration": calibration}, {"t", "u"}, "done.json")
    assert noise == ScoreNoise(0.2, "step-mean", {"t": 0.5, "u": 0.5})


@pytest.mark.parametrize("summary", [{}, {"calibration": 3}, {"calibration": {"weights": {}, "beta": {}}}])
def test_scores_that_do_not_say_how_they_were_calibrated_are_refused(summary: dict) -> None:
    with pytest.raises(DataError, match="does not say how the scores were calibrated"):
        ScoreNoise.of_summary(summary, {"t"}, "done.json")


@settings(deadline=None)
@given(st.lists(st.tuples(GRID, ERRORS), min_size=2, max_size=8))
def test_stages_that_cost_the_same_but_for_noise_make_no_pair(rows) -> None:
    level_of = {f"e{n}": level for n, (level, _) in enumerate(rows)}
    scores = [
        make_score(f"e{n}", success=False, stages=(make_stage("pull", level + 0.49 * COST_NOISE * error),))
        for n, (level, error) in enumerate(rows)
    ]
    groups, _ = pairs_of_states(scores, mode="top-bottom", m=9, require_mixed_outcomes=False, stage_wise=True)
    pairs = [pair for group in groups for pair in group]
    assert all(level_of[pair.chosen] < level_of[pair.rejected] for pair in pairs)
    ranked = sorted(level_of.values())
    expected = sum(ranked[rank] < ranked[-1 - rank] for rank in range(len(ranked) // 2))
    assert len(pairs) == expected


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_term_that_scores_lack_has_no_noise(normalization: str) -> None:
    """A file of scores may hold other terms, as long as all of its lines hold the same ones."""
    one, other = (
        dataclasses.replace(make_score(name, r_self=r_self), terms={"success": success})
        for name, success, r_self in (("a", 2.0, -3.0), ("b", 0.0, -9.0))
    )
    assert ScoreNoise(0.0, normalization, {"t": 2.0}).between(one, other) == ROUNDING
