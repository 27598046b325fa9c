"""Which decisions belong to a stage, and what is kept of a rejected side."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.errors import DataError
from grape.core.preferences import PreferencePair, Score, StageScore
from grape.costs import builtin_specification, evaluate
from grape.preferences.segments import (
    cut_pair,
    kept_by_distance,
    kept_by_length,
    kept_by_stage,
    stage_members,
    steps_of,
)
from tests.preferences.rollouts import make_rollout, make_score


def staged(episode_id: str, *lengths: int, finished: int, success: bool | None = False, costs=()) -> Score:
    """An episode that spent so many decisions in each stage it entered, of which it finished the first ones."""
    names, stages, at = ("reach", "grasp", "lift"), [], 0
    steps = sum(lengths)
    for number, name in enumerate(names):
        cost = costs[number] if number < len(costs) else 1.0
        if number < len(lengths):
            stages.append(StageScore(name, at, at + lengths[number], True, number < finished, cost))
            at += lengths[number]
        else:
            stages.append(StageScore(name, steps + 1, steps, False, False, cost))
    stages.append(StageScore("outcome", steps, steps, True, bool(success), 0.0))
    return make_score(episode_id, success=success, stages=tuple(stages), steps=steps)


@pytest.mark.parametrize("success", [True, False])
def test_the_steps_of_entered_stages_follow_one_another_from_the_first_to_the_last(success: bool) -> None:
    """States are shared by consecutive stages, decisions are not: none is counted twice, none is lost."""
    trajectory = make_rollout("drawer-open", 0, 0, success, steps=20)
    stages = evaluate(builtin_specification("metaworld", "drawer-open"), trajectory)[:-1]
    entered = [stage for stage in stages if stage.reached]
    assert len(entered) > 1
    covered = [decision for stage in entered for decision in range(*steps_of(stage))]
    assert covered == list(range(entered[-1].end))
    assert entered[-1].end == trajectory.steps
    for stage in entered:
        start, stop = steps_of(stage)
        # Decision t leads from state t to state t + 1.
        assert (start, stop) == (stage.start, stage.end)
    for stage in stages:
        assert stage.reached or len(range(*steps_of(stage))) == 0


def test_a_stage_that_was_done_at_once_and_one_never_entered_have_no_decision() -> None:
    score = staged("a", 3, 0, 4, finished=2)
    assert [steps_of(stage) for stage in score.stages] == [(0, 3), (3, 3), (3, 7), (7, 7)]
    assert list(stage_members([score])) == ["reach", "lift"]
    assert list(stage_members([staged("b", 5, finished=0)])) == ["reach"]


LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=3).filter(any)


@st.composite
def staged_scores(draw: st.DrawFn, name: str = "a") -> Score:
    lengths = draw(LENGTHS)
    finished = draw(st.sampled_from([len(lengths) - 1, len(lengths)])) if len(lengths) == 3 else len(lengths) - 1
    return staged(name, *lengths, finished=finished, success=draw(st.sampled_from([True, False, None])))


@settings(deadline=None)
@given(staged_scores("a"), staged_scores("b"))
def test_a_cut_by_stage_keeps_a_first_part_that_is_never_empty(chosen: Score, rejected: Score) -> None:
    kept = kept_by_stage(chosen, rejected)
    assert 1 <= kept <= rejected.steps
    assert kept_by_stage(chosen, chosen) == chosen.steps
    assert 1 <= kept_by_length(chosen.steps, rejected.steps) <= chosen.steps


@pytest.mark.parametrize(
    ("chosen", "rejected", "kept"),
    [
        # The chosen side took 4 decisions to grasp, the rejected one entered that stage after 3 and never finished.
        (staged("a", 5, 4, 6, finished=3, success=True), staged("b", 3, 30, finished=1), 7),
        # Slower in a stage that both finished: that is no parting.
        (staged("a", 5, 4, 6, finished=3, success=True), staged("b", 20, 9, 40, finished=2), 35),
        # Stuck for a shorter time than the chosen side needed: all of it is kept.
        (staged("a", 5, 9, 6, finished=3, success=True), staged("b", 3, 4, finished=1), 7),
        # The rejected side came further: until it did.
        (staged("a", 5, finished=0), staged("b", 3, 4, 2, finished=2), 3),
        # Both stuck in the same stage, or both through: nothing parts them.
        (staged("a", 5, 6, finished=1), staged("b", 3, 40, finished=1), 43),
        (staged("a", 1, 1, 1, finished=3, success=True), staged("b", 3, 4, 9, finished=3, success=False), 16),
        # A stage of which only the verdict tells that it is done is finished by a success.
        (staged("a", 2, 2, 3, finished=2, success=True), staged("b", 2, 2, 30, finished=2), 7),
        # Finished at its first state: one decision is left.
        (staged("a", 0, 4, 6, finished=3, success=True), staged("b", 30, finished=0), 1),
    ],
)
def test_a_rejected_side_is_cut_where_progress_differs(chosen: Score, rejected: Score, kept: int) -> None:
    assert kept_by_stage(chosen, rejected) == kept


def test_sub_goals_done_in_either_order_part_the_sides_where_the_rejected_one_stays_behind() -> None:
    """The chosen side did the first one and then the second; the rejected one began with the second and never ended."""
    chosen = staged("a", 5, 4, finished=2, success=True)
    rejected = make_score(
        "b",
        success=False,
        steps=30,
        stages=(StageScore("reach", 31, 30, False, False, 9.0), StageScore("grasp", 0, 30, True, False, 2.0)),
    )
    assert kept_by_stage(chosen, rejected) == 4


def on_a_line(name: str, places: list[float], **keypoints: np.ndarray):
    """A rollout whose gripper is at ``(x, 0, 0)`` for each of the places."""
    rollout = make_rollout(steps=len(places) - 1, episode_id=name)
    gripper = np.zeros((len(places), 3), np.float32)
    gripper[:, 0] = places
    return dataclasses.replace(rollout, keypoints={"gripper": gripper, **keypoints})


def test_a_rejected_side_is_cut_before_its_first_state_that_is_far_from_all_states_of_the_chosen_one() -> None:
    chosen = on_a_line("a", [0.0, 0.1, 0.2, 0.3])
    slower = on_a_line("b", [0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.3])
    assert kept_by_distance(chosen, slower, 0.05) == 6
    away = on_a_line("b", [0.0, 0.1, 0.2, 0.28, 0.4, 0.5, 0.6])
    assert kept_by_distance(chosen, away, 0.05) == 4  # decision 3 led to state 4, the first one that is away
    assert kept_by_distance(chosen, away, 0.15) == 5
    assert kept_by_distance(chosen, on_a_line("b", [9.0, 9.0, 9.0]), 0.05) == 1


def test_lost_keypoints_decide_nothing_and_without_any_nothing_can_be_cut() -> None:
    lost = np.full((4, 3), np.nan, np.float32)
    chosen = on_a_line("a", [0.0, 0.1, 0.2, 0.3], cup=lost)
    rejected = on_a_line("b", [0.0, 0.1, 0.9, 0.9], cup=lost)
    assert kept_by_distance(chosen, rejected, 0.05) == 2
    blind = dataclasses.replace(rejected, keypoints={"gripper": lost})
    assert kept_by_distance(chosen, blind, 0.05) == 3
    with pytest.raises(DataError, match="no keypoint in common") as caught:
        kept_by_distance(chosen, dataclasses.replace(rejected, keypoints={}), 0.05)
    assert "--cut stage" in caught.value.hint


def test_a_state_of_which_the_chosen_side_lost_a_keypoint_is_near_to_nothing() -> None:
    """Judged by what is left, say a goal that never moves, that one state would be near to everything."""
    goal = np.zeros((5, 3), np.float32)
    chosen = on_a_line("a", [0.0, 0.1, np.nan, 0.2, 0.3], goal=goal)
    away = on_a_line("b", [0.0, 0.1, 0.2, 0.8, 0.9], goal=goal)
    assert kept_by_distance(chosen, away, 0.05) == 3
    # Lost on the rejected side, it says nothing about that state; lost throughout the chosen side, about none.
    assert kept_by_distance(chosen, on_a_line("b", [0.0, 0.1, np.nan, 0.2, 0.9], goal=goal), 0.05) == 4
    assert kept_by_distance(on_a_line("a", [np.nan] * 5, goal=goal), away, 0.05) == 4
    moved = on_a_line("b", [0.0, 0.1, 0.2, 0.8, 0.9], goal=goal + np.float32([[0], [0], [1], [1], [1]]))
    assert kept_by_distance(on_a_line("a", [np.nan] * 5, goal=goal), moved, 0.05) == 2


@settings(deadline=None)
@given(
    st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=8),
    st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=8),
    st.floats(0.01, 0.5),
)
def test_a_larger_distance_never_keeps_less(first: list[float], second: list[float], threshold: float) -> None:
    chosen, rejected = on_a_line("a", first), on_a_line("b", second)
    kept = kept_by_distance(chosen, rejected, threshold)
    assert 1 <= kept <= rejected.steps
    assert kept <= kept_by_distance(chosen, rejected, 2 * threshold)
    nearest = [min(abs(np.float64(x) - np.float64(y)) for y in first) for x in second]
    assert all(distance <= threshold for distance in nearest[1:kept])
    assert kept == rejected.steps or nearest[kept] > threshold or nearest[0] > threshold


def test_a_cut_leaves_the_chosen_side_and_a_pair_without_a_difference_as_they_are() -> None:
    chosen, rejected = staged("a", 5, 4, 6, finished=3, success=True), staged("b", 3, 30, finished=1)
    pair = PreferencePair("p", "t", 0, "a", "b", 1.0, "top-bottom", "because.")

    def read(_: str):
        raise AssertionError("episodes are read for --cut distance only")

    assert cut_pair(pair, "none", (chosen, rejected), read, 0.05) == pair
    assert cut_pair(pair, "stage", (chosen, rejected), read, 0.05) == dataclasses.replace(pair, rejected_steps=(0, 7))
    assert cut_pair(pair, "length", (chosen, rejected), read, 0.05).rejected_steps == (0, 15)
    assert cut_pair(pair, "length", (rejected, chosen), read, 0.05) == pair
    segment = dataclasses.replace(pair, chosen_steps=(5, 9), rejected_steps=(3, 33))
    assert cut_pair(segment, "length", (chosen, rejected), read, 0.05).rejected_steps == (3, 7)
