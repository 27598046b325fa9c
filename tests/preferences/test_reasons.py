"""One sentence that a person understands."""

import dataclasses

import pytest

from grape.core.preferences import ConstraintScore, StageScore
from grape.preferences.reasons import reason_for, stage_reason
from tests.preferences.rollouts import make_score, make_stage

GOOD = (
    make_stage("hook", 0.1),
    make_stage("pull", 0.12, measured=0.02),
    make_stage("open", 0.3),
    make_stage("outcome", 0.0),
)
BAD = (
    make_stage("hook", 0.4, done=False),
    make_stage("pull", 0.93, done=False, measured=0.3),
    make_stage("open", 5.0, done=False, reached=False),
    make_stage("outcome", 0.5, done=False),
)


def test_success_against_failure_names_stage_and_constraint() -> None:
    chosen = make_score("a", stages=GOOD, terms=(0.1, 0.5, 2.0))
    rejected = make_score("b", success=False, stages=BAD, terms=(0.0, 0.09, 0.0))
    assert reason_for(chosen, rejected, "top-bottom") == (
        "Succeeded where the other never finished stage 'hook'; stage 'pull' cost 0.12 against 0.93, mostly by "
        "'keep-handle' (0.02 m against 0.3 m); success decided it (2 of the margin 2.51)."
    )


def test_costs_decide_between_failures() -> None:
    half = (GOOD[0], *BAD[1:])
    chosen = make_score("a", success=False, stages=half, terms=(0.0, 0.4, 0.0), r_ext=0.31)
    rejected = make_score("b", success=False, stages=BAD, terms=(0.1, 0.1, 0.0), r_ext=0.12)
    reason = reason_for(chosen, rejected, "best-worst")
    assert reason.startswith(
        "Both failed, but this one never finished stage 'pull' and the other never finished stage 'h"
    )
    assert "stage 'hook' cost 0.10 against 0.40" in reason
    assert reason.endswith("lower costs decided it (R_ext 0.31 against 0.12, 0.3 of the margin 0.2).")


def test_likelihood_decides_between_successes() -> None:
    chosen = make_score("a", stages=GOOD, terms=(0.6, 0.4, 2.0), steps=8, r_self=-8.0)
    rejected = make_score("b", stages=GOOD, terms=(0.1, 0.4, 2.0), steps=10, r_self=-25.0)
    assert reason_for(chosen, rejected, "best-worst") == (
        "Both succeeded, this one in 8 steps, the other in 10; no stage was cheaper; the policy's own likelihood "
        "decided it (-1 against -2.5 nats a step, 0.5 of the margin 0.5)."
    )


def test_a_failure_may_be_preferred() -> None:
    chosen = make_score("a", success=False, stages=BAD, terms=(3.0, 0.0, 0.0), r_self=None)
    rejected = make_score("b", stages=GOOD, terms=(0.0, 0.0, 2.0))
    reason = reason_for(chosen, rejected, "best-worst")
    assert reason.startswith("Never finished stage 'hook', although the other succeeded")
    assert "self-reward decided it (3 of the margin 1)" in reason


def test_random_modes_say_so_and_name_no_deciding_term() -> None:
    for mode, start in (("random", "Drawn at random, whatever"), ("success-only", "Drawn at random among successes")):
        reason = reason_for(make_score("a"), make_score("b", success=False), mode)
        assert reason.startswith(start)
        assert "decided" not in reason


def test_a_failure_that_went_through_every_stage() -> None:
    reason = reason_for(make_score("a"), make_score("b", success=False, stages=GOOD), "best-worst")
    assert "went through every stage without solving the task" in reason


def stage(contributions: dict[str, float], *, reached: bool = True) -> StageScore:
    """A stage whose cost is the sum of its constraints, each measured as it is charged."""
    constraints = tuple(
        ConstraintScore(name, "path", float(cost > 0), 0.0, 1.0, cost, "of limit")
        for name, cost in contributions.items()
    )
    whole = StageScore("line-up", 0, 3, reached, not contributions["done"], sum(contributions.values()), constraints)
    return whole if reached else dataclasses.replace(whole, end=-1)


@pytest.mark.parametrize(
    ("other", "clause"),
    [
        (stage({"done": 0.45, "time": 0.11, "path": 0.22}), "mostly because the other never finished it"),
        (stage({"done": 0.3, "time": 0.2, "path": 0.2}), "above all because the other never finished it"),
        (stage({"done": 0.9, "time": 0, "path": 0}, reached=False), "mostly because the other never entered it"),
        (stage({"done": 0.3, "time": 0.7, "path": 0.2}), "mostly by 'time' (0 of limit against 1 of limit)"),
        (stage({"done": 0.3, "time": 0.4, "path": 0.2}), "above all by 'time' (0 of limit against 1 of limit)"),
    ],
)
def test_the_largest_part_of_the_difference_is_named(other: StageScore, clause: str) -> None:
    best = stage({"done": 0, "time": 0, "path": 0})
    assert f"line-up' the chosen side cost 0.000, the other {other.cost:.3f}, {clause}" in stage_reason(
        best, other, "m"
    )
    whole = reason_for(make_score("a", stages=(best,)), make_score("b", stages=(other,), success=False), "best-worst")
    assert f"stage 'line-up' cost 0.00 against {other.cost:.2f}, {clause};" in whole


def test_that_a_stage_was_not_finished_is_said_once() -> None:
    best = stage({"done": 0, "time": 0})
    assert stage_reason(best, stage({"done": 1, "time": 0}), "m").endswith(
        "mostly because the other never finished it."
    )
    assert stage_reason(best, stage({"done": 1, "time": 2}), "m").endswith("limit), and did not finish it.")
    both = stage_reason(stage({"done": 1, "time": 0}), stage({"done": 1, "time": 2}), "m")
    assert both.endswith("mostly by 'time' (0 of limit against 1 of limit); neither finished it.")


def test_nothing_explains_a_stage_that_is_dearer_on_the_chosen_side() -> None:
    reason = stage_reason(
        stage({"done": 0, "time": 0.5, "path": 0}), stage({"done": 0, "time": 0, "path": 0.1}), "random"
    )
    assert reason.endswith("the chosen side cost 0.500, the other 0.100.")


def test_success_is_left_to_the_outcomes() -> None:
    outcome = [
        dataclasses.replace(stage({"done": 0, "success": cost, "rest": cost / 2}), name="outcome") for cost in (0, 1)
    ]
    reason = reason_for(make_score("a", stages=(outcome[0],)), make_score("b", stages=(outcome[1],)), "best-worst")
    assert "the outcome cost 0.00 against 1.50;" in reason
