"""``for`` beside ``done_when``: a condition ends a stage once it has held for some states in a row."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.errors import DataError
from grape.core.trajectories import Trajectory
from grape.costs import (
    builtin_names,
    builtin_specification,
    builtin_suites,
    evaluate,
    find_problems,
    parse_specification,
    specification_hash,
    with_unknown_outcome,
)
from grape.costs.builtins import at_lower_rate
from grape.costs.specification import CostSpecification, specification_text
from grape.envs.libero.tasks import suite_tasks
from tests.costs.record_libero import read

MakeTrajectory = Callable[..., Trajectory]


def specification(held_for: str = "", condition: str = "{grasped: {}}", rate: str = "") -> CostSpecification:
    lasting = f"\n    for: {held_for}" if held_for else ""
    return parse_specification(
        f"""\
version: 1
limit: 20 steps
{rate}
keypoints: []
signals: [grasped, touching]
stages:
  - name: grasp
    done_when: {condition}{lasting}
  - {{name: carry, done_when: {{touching: {{}}}}}}
""",
        "test.yaml",
    )


def end_of_grasp(grasped: list[float], held_for: str, make_trajectory: MakeTrajectory) -> int | None:
    """State at which the grasp is done; None if it never is."""
    episode = make_trajectory({}, {"grasped": grasped, "touching": [0] * len(grasped)})
    stage = evaluate(specification(held_for), episode)[0]
    assert stage.end == (stage.end if stage.done else len(grasped) - 1)
    return stage.end if stage.done else None


@pytest.mark.parametrize(
    ("grasped", "held_for", "end"),
    [
        ([0, 1, 1, 1, 1], "", 1),
        ([0, 1, 1, 1, 1], "1 step", 1),
        ([0, 1, 1, 1, 1], "3 steps", 3),  # at the third of three states in a row
        ([1, 1, 1, 0, 0], "3 steps", 2),
        ([0, 1, 0, 1, 1, 0, 1, 1, 1], "3 steps", 8),  # flickers before it holds
        ([0, 1, 0, 1, 1, 0, 1, 0, 1], "3 steps", None),
        ([0, 1, 1], "3 steps", None),  # held, but not for long enough before the episode ended
        ([0, 1, np.nan, 1, 1], "3 steps", None),  # not known to have held
        ([0, 1, 1, 1, 0, 0], "2.5 steps", 3),  # no less than it says
    ],
)
def test_a_stage_ends_at_the_last_of_the_states_in_a_row(
    make_trajectory: MakeTrajectory, grasped: list[float], held_for: str, end: int | None
) -> None:
    assert end_of_grasp(grasped, held_for, make_trajectory) == end


def test_a_last_stage_of_several_states_is_left_unfinished_by_an_episode_that_ends_at_its_first_success(
    make_trajectory: MakeTrajectory,
) -> None:
    """As docs/costs.md warns: the states that it waits for are not recorded; the verdict, where priced, ends it."""
    text = """\
version: 1
limit: 20 steps
keypoints: []
signals: [a]
stages:
  - {name: only, done_when: {grasped: {signal: a}}, for: 2 steps}
"""
    solved = make_trajectory({}, {"a": [0, 0, 1]}, success=True)
    only = [evaluate(parse_specification(text, "test.yaml"), one)[0] for one in (solved, with_unknown_outcome(solved))]
    assert [(stage.end, stage.done) for stage in only] == [(2, True), (2, False)]


def test_states_before_the_stage_do_not_count(make_trajectory: MakeTrajectory) -> None:
    text = """\
version: 1
limit: 20 steps
keypoints: []
signals: [a, b]
stages:
  - {name: first, done_when: {grasped: {signal: a}}}
  - {name: second, done_when: {grasped: {signal: b}}, for: 2 steps}
"""
    episode = make_trajectory({}, {"a": [0, 0, 1, 1, 1], "b": [1, 1, 1, 1, 1]})
    stages = evaluate(parse_specification(text, "test.yaml"), episode)
    assert [(stage.start, stage.end) for stage in stages[:2]] == [(0, 2), (2, 3)]


@settings(max_examples=100, deadline=None)
@given(holds=st.lists(st.booleans(), min_size=1, max_size=21), states=st.integers(1, 5))
def test_a_contact_that_is_lost_for_a_moment_never_ends_a_stage(
    make_trajectory: MakeTrajectory, holds: list[bool], states: int
) -> None:
    end = end_of_grasp([float(value) for value in holds], f"{states} steps", make_trajectory)
    windows = [index for index in range(states - 1, len(holds)) if all(holds[index - states + 1 : index + 1])]
    assert end == (windows[0] if windows else None)


@pytest.mark.parametrize(
    ("held_for", "states"), [("0.15 s", 3), ("0.12 s", 3), ("0.1 s", 2), ("1 s", 20), ("10 ms", 0)]
)
def test_seconds_become_whole_states_at_the_rate_of_decisions(held_for: str, states: int) -> None:
    if not states:
        with pytest.raises(DataError, match=r"line 9, stages\[0\]\.for: .*'ms' does not fit for time"):
            specification(held_for, rate="control_hz: 20 Hz")
    else:
        assert specification(held_for, rate="control_hz: 20 Hz").stages[0].held_states == states


@pytest.mark.parametrize(
    ("held_for", "says"),
    [
        ("3", r"line 9, stages\[0\]\.for: .*the unit is missing"),
        ("0 steps", r"stages\[0\]\.for: must be greater than zero"),
        ("-1 steps", r"stages\[0\]\.for: '-1 steps' is negative"),
        ("0.1 s", r"seconds need 'control_hz'"),
        ("[3 steps]", r"expected a number or a quantity, found a list"),
    ],
)
def test_other_durations_are_refused_with_their_line(held_for: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        specification(held_for)


def test_more_states_than_an_episode_has_are_found_before_scoring() -> None:
    assert [one.code for one in find_problems(specification("21 steps")) if one.error] == []
    findings = [one for one in find_problems(specification("22 steps")) if one.error]
    assert [(one.code, one.where) for one in findings] == [("unreachable-stage", "stage 'grasp', for")]


def test_hash_and_text_tell_it_and_one_state_is_what_it_was() -> None:
    assert specification("1 step") == specification()
    assert specification_hash(specification("1 step")) == specification_hash(specification())
    assert specification_hash(specification("3 steps")) != specification_hash(specification())
    assert ") for 3 states; unfinished" in specification_text(specification("3 steps"))


def test_the_curve_of_the_penalty_falls_where_the_stage_ends(make_trajectory: MakeTrajectory) -> None:
    episode = make_trajectory({}, {"grasped": [0, 1, 0, 1, 1], "touching": [0] * 5})
    assert evaluate(specification("2 steps"), episode)[0].constraints[0].curve == (1.0, 1.0, 1.0, 1.0, 0.0)


BUILTINS = [f"{suite}/{task}" for suite in builtin_suites() for task in builtin_names(suite)]


@pytest.mark.parametrize("suite", [suite for suite in builtin_suites() if "_2hz" not in suite and "held" not in suite])
def test_built_in_stages_that_end_with_a_grasp_wait_for_more_than_one_contact(suite: str) -> None:
    seconds = {20.0: 3, 10.0: 2, 5.0: 2}
    for task in builtin_names(suite):
        built_in = builtin_specification(suite, task)
        for stage in built_in.stages:
            contact = any(call.relation in ("grasped", "touching") for call in stage.done_when.calls())
            waits = contact and stage.name.startswith("grasp")
            assert stage.held_states == (seconds[built_in.control_hz] if waits else 1), f"{suite}/{task}, {stage.name}"


def test_slower_suites_wait_as_long_in_time_but_for_one_decision_at_least() -> None:
    three, thirty = (specification(f"{steps} steps", rate="control_hz: 20 Hz") for steps in (3, 30))
    assert at_lower_rate(three, "slower", 10).stages[0].held_states == 1
    assert at_lower_rate(thirty, "slower", 10).stages[0].held_states == 3
    task = suite_tasks("libero_object")[0].name
    assert {stage.held_states for stage in builtin_specification("libero_object_2hz", task).stages} == {1}


def test_a_grasp_that_flickers_neither_ends_nor_skips_a_stage_of_the_recorded_expert() -> None:
    task = suite_tasks("libero_object")[0]
    built_in = builtin_specification("libero_object", task.name)
    expert = read(task)[0]
    grasp = evaluate(built_in, expert)[1]
    assert grasp.name == "grasp"
    grasped = expert.signals["grasped"].copy()
    grasped[grasp.end - 1] = 0.0  # one lost contact while lifting
    flickering = dataclasses.replace(expert, signals={**expert.signals, "grasped": grasped})
    stages = evaluate(built_in, flickering)
    assert (stages[1].end, stages[1].done) == (grasp.end + 2, True)
    assert [stage.done for stage in stages] == [True] * 5
    once = np.zeros_like(grasped)
    once[grasp.end] = 1.0  # one contact, and never again
    touched = dataclasses.replace(expert, signals={**expert.signals, "grasped": once})
    hidden = dataclasses.replace(touched, meta=dataclasses.replace(touched.meta, success=False))
    assert [stage.done for stage in evaluate(built_in, hidden)[:4]] == [True, False, False, False]
