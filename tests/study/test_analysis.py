"""Statistics of studies on made-up outcomes, whose truth is known."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from grape.evaluation.statistics import mcnemar_exact, sign_flip_test
from grape.study import StudySettings
from grape.study.analysis import analyze
from grape.study.cells import Cell, Outcome, Round
from grape.study.page import forest
from grape.study.seeds import over_seeds
from grape.study.table import format_study

TASKS = ("left", "right")


def cell(seed: int, arm: str, outcomes: Sequence[Outcome], **changes: Any) -> Cell:
    """A cell of one iteration, or of the start alone for ``sft``."""
    base = Cell(
        settings="",
        seed=seed,
        arm=arm,
        suite="toy",
        tasks=TASKS,
        merit="success",
        measured_on="test",
        start=f"start-{seed}",
        software={"version": "1"},
        versions={},
        rounds=(Round(iteration=int(arm != "sft"), policy_hash="", updates=3, outcomes=tuple(outcomes)),),
        wall_seconds=1.0,
        cpu_seconds=1.0,
        start_cpu_seconds=1.0,
    )
    return dataclasses.replace(base, **changes)


def outcomes(
    successes: Sequence[bool], steps: Sequence[int] | None = None, collisions: int | None = None
) -> list[Outcome]:
    """One rollout from each state, half of them of either task."""
    half = len(successes) // 2
    steps = steps or [10] * len(successes)
    return [
        Outcome(int(number >= half), number % max(1, half), 0, int(success), steps[number], collisions)
        for number, success in enumerate(successes)
    ]


def study(arms: Sequence[str], **changes: Any) -> StudySettings:
    return StudySettings(out=Path("x"), arms=tuple(arms), **changes)


def compared(cells: Sequence[Cell], arms: Sequence[str], **changes: Any) -> Mapping[str, Any]:
    return analyze(study(arms, **changes), arms, cells)


def test_one_seed_is_mcnemar() -> None:
    before = [True] * 10 + [False] * 10
    after = [True] * 9 + [False] + [True] * 7 + [False] * 3
    result = compared([cell(0, "sft", outcomes(before)), cell(0, "tpo", outcomes(after))], ("sft", "tpo"))
    (row,) = result["comparisons"]
    assert (row["arm"], row["baseline"]) == ("tpo", "sft")
    assert row["p_value"] == row["p_holm"] == pytest.approx(mcnemar_exact(1, 7))
    assert (row["higher"], row["lower"], row["difference"]) == (7, 1, pytest.approx(0.3))
    assert row["interval_seeds"] is None
    assert "nothing is known of further runs" in row["sentence"]


def test_seeds_that_agree_are_no_further_states() -> None:
    """Ten states under five equal seeds: the test is that of ten states, not fifty."""
    before, after = [False] * 10, [True] * 6 + [False] * 4
    cells = [cell(seed, arm, outcomes(o)) for seed in range(5) for arm, o in (("sft", before), ("tpo", after))]
    (row,) = compared(cells, ("sft", "tpo"), seeds=(0, 1, 2, 3, 4))["comparisons"]
    assert row["p_value"] == pytest.approx(mcnemar_exact(0, 6))
    assert (row["states"], row["pairs"]) == (10, 50)
    assert row["p_seeds"] == row["p_seeds_flip"] == 0.0625


def test_over_seeds_equals_scipy() -> None:
    differences = dict(enumerate([0.1, 0.25, 0.05, 0.3]))
    expected = stats.ttest_1samp(list(differences.values()), 0)
    result = over_seeds(differences)
    interval = expected.confidence_interval(0.95)
    assert result.p_value == pytest.approx(expected.pvalue)
    assert result.interval == pytest.approx((interval.low, interval.high))
    assert result.p_flip == sign_flip_test(list(differences.values())) == 0.125
    with pytest.raises(ValueError, match="no seed"):
        over_seeds({})


def test_under_the_null_no_more_false_alarms_than_alpha() -> None:
    """Four arms that are the same as the baseline: the family of tests errs in at most 5 % of the studies."""
    rng = np.random.default_rng(0)
    arms = ("sft", "a", "b", "c", "d")
    alarms = 0
    trials = 80
    for _ in range(trials):
        rates = rng.uniform(0.1, 0.9, 24)
        cells = [cell(seed, arm, outcomes(list(rng.random(24) < rates))) for seed in range(3) for arm in arms]
        rows = compared(cells, arms, baselines=("sft",))["comparisons"]
        alarms += any(row["verdict"] != "not distinguishable" for row in rows)
    assert alarms <= stats.binom.ppf(0.999, trials, 0.05)


def test_a_true_difference_of_the_stated_size_is_found_about_as_often_as_stated() -> None:
    rng = np.random.default_rng(1)
    hits, stated = 0, []
    for _ in range(60):
        rates = rng.uniform(0.2, 0.6, 40)
        cells = [
            cell(seed, arm, outcomes(list(rng.random(40) < rates + gain)))
            for seed in range(3)
            for arm, gain in (("sft", 0.0), ("tpo", 0.19))
        ]
        (row,) = compared(cells, ("sft", "tpo"))["comparisons"]
        stated.append(row["detectable"])
        hits += row["verdict"] == "better"
    assert np.mean(stated) == pytest.approx(0.19, abs=0.03)
    assert 0.65 < hits / 60 < 0.95


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=3, max_size=6), st.integers(1, 3))
def test_holm_is_monotone_and_never_below_the_plain_test(rows: list[list[bool]], seeds: int) -> None:
    arms = ("sft", *(f"arm-{number}" for number in range(1, len(rows))))
    cells = [cell(seed, arm, outcomes(row)) for seed in range(seeds) for arm, row in zip(arms, rows, strict=True)]
    ordered = sorted(compared(cells, arms)["comparisons"], key=lambda row: row["p_value"])
    assert all(row["p_holm"] >= row["p_value"] for row in ordered)
    assert all(a["p_holm"] <= b["p_holm"] for a, b in itertools.pairwise(ordered))
    assert all(
        row["p_holm"] <= min(1.0, len(ordered) * row["p_value"]) + 1e-12 or row is not ordered[0] for row in ordered
    )
    assert all(row["interval"][0] <= row["difference"] <= row["interval"][1] for row in ordered)


def test_swapping_arms_turns_every_sign() -> None:
    rng = np.random.default_rng(3)
    a, b = (
        [cell(s, name, outcomes(list(rng.random(20) < p))) for s in range(3)] for name, p in (("x", 0.3), ("y", 0.7))
    )
    (one,) = compared([*a, *b], ("x", "y"), baselines=("x",))["comparisons"]
    (other,) = compared([*a, *b], ("x", "y"), baselines=("y",))["comparisons"]
    assert one["difference"] == -other["difference"] > 0
    assert (one["higher"], one["lower"]) == (other["lower"], other["higher"])
    assert one["p_value"] == other["p_value"]
    assert (one["verdict"], other["verdict"]) == ("better", "worse")


def test_steps_are_compared_where_both_succeeded_and_fewer_is_better() -> None:
    before = outcomes([True] * 18 + [False, True], steps=[20] * 20)
    after = outcomes([True] * 18 + [True, False], steps=[15] * 18 + [1, 99])
    cells = [cell(0, "sft", before), cell(0, "tpo", after)]
    (row,) = compared(cells, ("sft", "tpo"), merit="steps")["comparisons"]
    assert (row["difference"], row["pairs"], row["verdict"]) == (-5.0, 18, "better")
    assert "-5.0 steps" in row["sentence"]
    assert "Success differs by +0.0 points" in row["sentence"]


def test_collisions_are_shares_of_episodes_and_unknown_ones_are_left_out() -> None:
    before, after = outcomes([True] * 20, collisions=4), outcomes([True] * 20, collisions=0)
    (row,) = compared([cell(0, "sft", before), cell(0, "tpo", after)], ("sft", "tpo"), merit="collisions")[
        "comparisons"
    ]
    assert (row["difference"], row["verdict"]) == (-1.0, "better")
    unknown = outcomes([True] * 20)
    assert not compared([cell(0, "sft", before), cell(0, "tpo", unknown)], ("sft", "tpo"), merit="collisions")[
        "comparisons"
    ]


def test_arms_that_share_no_state_are_not_compared() -> None:
    elsewhere = [outcome._replace(initial_state=outcome.initial_state + 100) for outcome in outcomes([True] * 4)]
    result = compared([cell(0, "sft", outcomes([True] * 4)), cell(0, "tpo", elsewhere)], ("sft", "tpo"))
    assert result["comparisons"] == []


def test_what_a_reader_must_know_is_said() -> None:
    stopped = Round(iteration=1, policy_hash="", stopped="nothing", collected=8, outcomes=tuple(outcomes([True] * 4)))
    cells = [
        cell(0, "sft", outcomes([True] * 4)),
        cell(0, "tpo", outcomes([True] * 4), software={"version": "2"}),
        cell(0, "kto", (), rounds=(stopped,)),
    ]
    result = compared(cells, ("sft", "tpo", "kto"), measured_on="validation")
    text = " ".join(result["warnings"])
    assert "nothing to learn in 1 iteration, e.g. 0-kto" in text
    assert "2 versions of the software" in text
    assert "not for a claim" in text
    lines = format_study({**result, "cells": {"missing": ["1-tpo"]}})
    assert lines[0].startswith("Figure of merit, fixed beforehand: success rate on 25 validation states")
    assert any(line.startswith("Missing: 1 cell") for line in lines)


def test_forest_has_its_zero_and_intervals_where_they_belong() -> None:
    rng = np.random.default_rng(5)
    cells = [
        cell(seed, arm, outcomes(list(rng.random(20) < rate)))
        for seed in range(3)
        for arm, rate in (("sft", 0.3), ("filtered-bc", 0.5), ("tpo", 0.6))
    ]
    rows = compared(cells, ("sft", "filtered-bc", "tpo"))["comparisons"]
    drawing = forest(rows, "success")
    assert drawing is not None
    assert [row.label for row in drawing.rows] == ["filtered-bc − sft", "tpo − sft", "tpo − filtered-bc"]
    for drawn, row in zip(drawing.rows, rows, strict=True):
        assert drawn.low <= drawn.x <= drawn.high
        assert (drawn.x > drawing.zero) == (row["difference"] > 0)
        assert len(drawn.seeds) == 3
    assert forest([], "success") is None
