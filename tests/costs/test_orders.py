"""Groups of stages that may change places: the cheapest order counts."""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.errors import DataError
from grape.core.preferences import StageScore
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
from grape.costs.specification import CostSpecification, specification_text
from grape.envs.libero.tasks import suite_tasks
from grape.preferences.thresholds import reprice, with_thresholds
from tests.costs.record_libero import read
from tests.costs.two_part_episodes import parts_of, play

MakeTrajectory = Callable[..., Trajectory]

HEAD = """\
version: 1
limit: 12 steps
keypoints: []
signals: [start, a, b, c, end, bump]
"""
STAGE = """\
  - name: {0}
    done_when: {{grasped: {{signal: {0}}}}}
    path: [{{name: bumps, cost: {{released: {{signal: bump}}}}, aggregate: mean, weight: 0.{1}, objectives: [safety]}}]
"""
NAMES = ("start", "a", "b", "c", "end")


def ordered(*names: str, any_order: str = "") -> CostSpecification:
    """Stages in this order, each done by the signal of its name; their weights differ."""
    stages = "".join(STAGE.format(name, 1 + NAMES.index(name)) for name in names)
    return parse_specification(f"{HEAD}{any_order}stages:\n{stages}", "test.yaml")


FREE = ordered(*NAMES, any_order="any_order: [[a], [b], [c]]\n")


def total(stages: tuple[StageScore, ...]) -> float:
    return sum(stage.cost for stage in stages)


def hidden_cost(specification: CostSpecification, episode: Trajectory) -> float:
    """As ``grape score`` prices it."""
    return total(evaluate(specification, with_unknown_outcome(episode)))


@settings(max_examples=120, deadline=None)
@given(bits=st.lists(st.booleans(), min_size=54, max_size=54), success=st.sampled_from([True, False, None]))
def test_the_cost_is_that_of_the_cheapest_order(
    make_trajectory: MakeTrajectory, bits: list[bool], success: bool | None
) -> None:
    """Compared with specifications that fix each of the six orders."""
    signals = dict(zip((*NAMES, "bump"), np.reshape(bits, (6, 9)), strict=True))
    episode = make_trajectory({}, signals, success=bool(success))
    if success is None:
        episode = with_unknown_outcome(episode)
    stages = evaluate(FREE, episode)
    fixed = {
        middle: evaluate(ordered("start", *middle, "end"), episode)
        for middle in itertools.permutations(("a", "b", "c"))
    }
    assert total(stages) == pytest.approx(min(map(total, fixed.values())))
    assert [stage.name for stage in stages] == [*NAMES, "outcome"]
    taken = sorted(stages[:-1], key=lambda stage: stage.position)
    assert [stage.position for stage in taken] == [0, 1, 2, 3, 4]
    chosen = fixed[tuple(stage.name for stage in taken[1:4])]
    assert [dataclasses.replace(stage, position=None) for stage in taken] == list(chosen[:-1])


def test_equal_orders_are_taken_as_listed_and_fixed_ones_name_none(make_trajectory: MakeTrajectory) -> None:
    idle = make_trajectory({}, {name: [0] * 4 for name in FREE.signals})
    assert [stage.position for stage in evaluate(FREE, idle)] == [0, 1, 2, 3, 4, None]
    assert {stage.position for stage in evaluate(ordered(*NAMES), idle)} == {None}


def test_new_thresholds_keep_the_order_that_was_taken(make_trajectory: MakeTrajectory) -> None:
    signals = {"start": [1] * 6, "a": [0, 0, 0, 1, 0, 0], "b": [0, 1, 0, 0, 0, 0], "c": [0] * 6, "end": [0] * 6}
    episode = make_trajectory({}, signals | {"bump": [0, 1, 0, 1, 1, 0]})
    stages = evaluate(FREE, episode)
    assert [stage.position for stage in stages[:-1]] == [0, 2, 1, 3, 4]
    assert [stage.done for stage in stages[:-1]] == [True, True, True, False, False]
    other = with_thresholds(FREE, {(2, "bumps"): 0.1, (3, "bumps"): 0.4, (4, "bumps"): 0.2})
    assert reprice(stages, other) == evaluate(other, episode)


@pytest.mark.parametrize(
    ("written", "line", "says"),
    [
        ("[[a], [bb]]", 5, "any_order[1]: unknown stage 'bb'. Did you mean 'b'"),
        ("[[a, b]]", 5, "any_order: from 2 to 4 groups are needed, found 1"),
        ("[[start], [a], [b], [c], [end]]", 5, "any_order: from 2 to 4 groups are needed, found 5"),
        ("[[a], [c]]", 5, "any_order: its stages must follow one another"),
        ("[[b], [a]]", 5, "any_order: its stages must follow one another"),
        ("[[a], [a]]", 5, "any_order: its stages must follow one another"),
        ("[[a], []]", 5, "any_order[1]: needs at least one stage"),
        ("[a, b]", 5, "any_order[0]: expected a list, found 'a'"),
        ("{a: b}", 5, "any_order: expected a list, found a mapping"),
    ],
)
def test_groups_that_cannot_change_places_are_refused_with_their_line(written: str, line: int, says: str) -> None:
    with pytest.raises(DataError) as caught:
        ordered(*NAMES, any_order=f"any_order: {written}\n")
    assert f"line {line}, {says}" in str(caught.value)


def test_an_empty_list_is_a_fixed_order() -> None:
    assert ordered(*NAMES, any_order="any_order: []\n") == ordered(*NAMES)
    assert ordered(*NAMES, any_order="any_order: null\n") == ordered(*NAMES)


def test_hash_and_text_tell_the_groups() -> None:
    assert specification_hash(FREE) != specification_hash(ordered(*NAMES))
    assert "in any order, the cheapest counts: a; b; c" in specification_text(FREE)


def test_a_group_that_ends_with_the_whole_tasks_success_is_an_error_where_it_does_not_come_last() -> None:
    text = HEAD + "any_order: [[a], [z]]\nstages:\n" + STAGE.format("a", 1)
    text += "  - {name: z, done_when: {succeeded: {signal: success}}}\n"
    findings = find_problems(parse_specification(text, "test.yaml"))
    assert ("stage-after-success", "stage 'z', done_when") in [(one.code, one.where) for one in findings if one.error]


FREE_TASKS = [
    f"{suite}/{task}"
    for suite in builtin_suites()
    for task in builtin_names(suite)
    if builtin_specification(suite, task).any_order
]


def test_every_built_in_task_of_several_things_in_an_open_order_says_so() -> None:
    """By instruction: 'put both ...', 'put ... and put ...', 'turn on ... and put ...', but not '... and close it'."""
    open_order = {
        f"libero_10{variant}/{task.name}"
        for variant in ("", "_2hz", "_nano", "_nano_wrist")
        for task in suite_tasks("libero_10")
        if task.instruction.startswith(("put both", "turn on")) or " and put " in task.instruction
    }
    assert len(open_order) == 28
    assert set(FREE_TASKS) == open_order


@pytest.mark.parametrize("name", FREE_TASKS)
def test_half_of_the_task_costs_clearly_less_than_idle_whichever_half(
    name: str, make_trajectory: MakeTrajectory
) -> None:
    specification = builtin_specification(*name.split("/"))
    if name.startswith(
        "libero_10_2hz"
    ):  # the made-up gripper moves at 20 Hz: enough time, and costs by the step stay out
        specification = dataclasses.replace(specification, limit=520)
    parts = parts_of(specification)
    idle = hidden_cost(specification, play(specification, make_trajectory, ()))
    halves = [hidden_cost(specification, play(specification, make_trajectory, (part,))) for part in parts]
    orders = [play(specification, make_trajectory, order) for order in itertools.permutations(parts)]
    whole = [hidden_cost(specification, episode) for episode in orders]
    assert max(halves) < idle - 0.3 * idle / len(parts)
    assert max(whole) < min(halves) - 0.3 * idle / len(parts)
    assert max(whole) - min(whole) < 0.2
    if all(f"grasped{part}" in specification.signals for part in parts):
        assert max(halves) - min(halves) < 0.5  # the objects' own numbers: how near is near, how far is inside
    for order, episode in zip(itertools.permutations(parts), orders, strict=True):
        stages = evaluate(specification, with_unknown_outcome(episode))
        assert all(stage.done for stage in stages[:-1])
        ends = [stage.end for stage in sorted(stages[:-1], key=lambda stage: stage.position)]
        assert ends == sorted(ends), order


def as_if_still(episode: Trajectory, states: int, until: int) -> Trajectory:
    """The first ``states`` states, the last of them repeated up to ``until`` steps, as a failure."""
    rows = np.minimum(np.arange(until + 1), states - 1)
    steps = np.minimum(rows[:-1], episode.steps - 1)
    of_steps = ("actions", "labels", "action_tokens", "token_logps")
    return dataclasses.replace(
        episode,
        meta=dataclasses.replace(episode.meta, steps=until, success=False),
        keypoints={key: points[rows] for key, points in episode.keypoints.items()},
        signals={key: values[rows] for key, values in episode.signals.items()},
        **{key: getattr(episode, key)[rows] for key in ("frames", "proprio")},
        **{key: getattr(episode, key)[steps] for key in of_steps},
    )


def with_objects_swapped(episode: Trajectory) -> Trajectory:
    """The same motion, in which the first object is called the second."""

    def swapped(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        first = {name: f"{name}_2" for name in values if f"{name}_2" in values}
        names = first | {second: name for name, second in first.items()}
        return {name: values[names.get(name, name)] for name in values}

    return dataclasses.replace(episode, keypoints=swapped(episode.keypoints), signals=swapped(episode.signals))


def test_the_recorded_expert_pays_the_same_for_either_object_and_either_order() -> None:
    """Case of November: second object first 16.8, idle 17.1, first object 9.2."""
    task = suite_tasks("libero_10")[0]
    specification = builtin_specification("libero_10", task.name)
    expert = read(task)[0]
    placed = int(np.argmax(expert.signals["done"] > 0.5))
    idle, half = (as_if_still(expert, states, specification.limit) for states in (1, placed + 10))
    first, second = hidden_cost(specification, half), hidden_cost(specification, with_objects_swapped(half))
    assert first == pytest.approx(second, abs=0.01)
    assert first < 0.5 * hidden_cost(specification, idle)
    both, swapped = hidden_cost(specification, expert), hidden_cost(specification, with_objects_swapped(expert))
    assert both == pytest.approx(swapped, abs=0.01)
    assert both < 0.1 * first
    for episode, positions in ((expert, [*range(8)]), (with_objects_swapped(expert), [4, 5, 6, 7, 0, 1, 2, 3])):
        for shown in (episode, with_unknown_outcome(episode)):  # with the verdict, too
            assert [stage.position for stage in evaluate(specification, shown)[:-1]] == positions
