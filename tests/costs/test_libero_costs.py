"""LIBERO's specifications against recordings of its experts; ``tests/costs/record_libero.py`` made them."""

import dataclasses
import functools

import numpy as np
import pytest

from grape.core.tasks import Task
from grape.core.trajectories import Trajectory
from grape.costs import (
    builtin_names,
    builtin_specification,
    check_specification,
    evaluate,
    suite_names_of,
)
from grape.costs.checks import find_problems
from grape.envs.libero.tasks import suite_tasks
from grape.envs.registry import get_suite
from tests.costs.record_libero import SUITES, path_of, read
from tests.costs.test_builtins import check_clean_expert, same_start, success_over_failure, total, without_verdict

RECORDED = [task for suite in SUITES for task in suite_tasks(suite) if path_of(task).exists()]
EACH_SUITE = pytest.mark.parametrize("suite", SUITES)
EACH_RECORDED = pytest.mark.parametrize("task", RECORDED, ids=lambda task: f"{task.suite}-{task.index}")

recordings = functools.cache(read)


@EACH_SUITE
def test_every_task_has_a_specification_without_findings(suite: str) -> None:
    names = suite_names_of(suite)
    assert set(builtin_names(suite)) == {task.name for task in suite_tasks(suite)}
    for task in suite_tasks(suite):
        specification = builtin_specification(suite, task.name)
        check_specification(specification, names.keypoints, names.signals)
        assert find_problems(specification) == ()
        assert (specification.suite, specification.task) == (suite, task.name)
        assert specification.limit == task.max_steps
        assert specification.control_hz == get_suite(suite).action_space.control_hz
        assert specification.outcome.constraints


@EACH_SUITE
def test_every_suite_was_recorded(suite: str) -> None:
    episodes = [episode for task in RECORDED if task.suite == suite for episode in recordings(task)]
    assert any(episode.meta.success for episode in episodes)
    assert any(not episode.meta.success for episode in episodes)


@EACH_RECORDED
def test_names_are_those_that_are_recorded(task: Task) -> None:
    names, episode = suite_names_of(task.suite), recordings(task)[0]
    check_specification(builtin_specification(task.suite, task.name), episode.keypoints, episode.signals)
    assert episode.signals.keys() <= names.signals.keys()
    libero_names = {name for name in episode.keypoints if name not in names.keypoints}
    assert all(name.rpartition("_")[2].isdigit() or "_region" in name or "_side" in name for name in libero_names)


@EACH_RECORDED
def test_experts_finish_every_stage_and_each_makes_the_episode_cheaper(task: Task) -> None:
    specification = builtin_specification(task.suite, task.name)
    solved = [episode for episode in recordings(task) if episode.meta.operator == "clean" and episode.meta.success]
    assert solved
    for episode in solved:
        check_clean_expert(specification, episode)


@pytest.mark.parametrize("index", [0, 7])
def test_collisions_cost_in_every_stage_at_drawers_and_knobs(index: int) -> None:
    task = suite_tasks("libero_goal")[index]
    specification = builtin_specification(task.suite, task.name)
    solved = next(episode for episode in recordings(task) if episode.meta.success)
    free = with_collision(solved, slice(0, 0))
    for stage in evaluate(specification, free)[:-1]:
        bumped = total(specification, with_collision(solved, slice(stage.start, stage.end + 1)))
        assert bumped > total(specification, free), stage.name
    half, whole = (with_collision(solved, slice(0, end)) for end in (solved.steps // 2, solved.steps))
    assert total(specification, whole) > total(specification, half)


def with_collision(episode: Trajectory, states: slice) -> Trajectory:
    """The same motion, as if the robot had pressed on something in these states and in no other."""
    pressing = np.zeros_like(episode.signals["collision"])
    pressing[states] = 1.0
    return dataclasses.replace(episode, signals={**episode.signals, "collision": pressing})


@EACH_RECORDED
def test_slower_suites_are_judged_alike(task: Task) -> None:
    """Every tenth state of the recordings, as the suites with two decisions a second would have recorded them."""
    original, slower = (builtin_specification(suite, task.name) for suite in (task.suite, f"{task.suite}_2hz"))
    assert (slower.limit, slower.control_hz) == (original.limit // 10, 2.0)
    assert find_problems(slower) == ()
    for one, other in zip(original.stages, slower.stages, strict=True):
        assert other.penalty == pytest.approx(one.penalty)
    constraints = {item.name: item for stage in slower.stages for item in stage.constraints}
    assert (constraints["smooth"].threshold, constraints["smooth"].weight) == pytest.approx((0.4, 0.1))
    thinned = [every_tenth(episode) for episode in recordings(task)]
    for episode in thinned:
        stages = evaluate(slower, episode)
        assert all(np.isfinite(stage.cost) for stage in stages)
        if episode.meta.success:
            assert [stage.done for stage in stages if stage.name != "outcome"] == [True] * len(slower.stages)
    assert all(same_start([(episode, total(slower, episode)) for episode in thinned], success_over_failure))


def every_tenth(episode: Trajectory) -> Trajectory:
    rows = sorted({*range(0, episode.meta.steps, 10), episode.meta.steps})
    return dataclasses.replace(
        episode,
        meta=dataclasses.replace(episode.meta, steps=len(rows) - 1),
        frames=np.zeros((len(rows), 1, 1, 3), np.uint8),
        proprio=episode.proprio[rows],
        actions=episode.actions[rows[:-1]],
        labels=episode.labels[rows[:-1]],
        action_tokens=episode.action_tokens[rows[:-1]],
        token_logps=episode.token_logps[rows[:-1]],
        keypoints={name: points[rows] for name, points in episode.keypoints.items()},
        signals={name: values[rows] for name, values in episode.signals.items()},
    )


@EACH_SUITE
def test_successes_cost_less_than_failures_from_the_same_initial_state(suite: str) -> None:
    ranked: list[bool] = []
    without: list[bool] = []

    def scored(task: Task, episodes: list[Trajectory]) -> list[tuple[Trajectory, float]]:
        specification = builtin_specification(task.suite, task.name)
        return [(episode, total(specification, episode)) for episode in episodes]

    for task in (task for task in RECORDED if task.suite == suite):
        episodes = recordings(task)
        ranked += same_start(scored(task, episodes), success_over_failure)
        hidden = [without_verdict(episode) for episode in episodes]
        costs = [cost for _, cost in scored(task, hidden)]
        without += same_start(list(zip(episodes, costs, strict=True)), success_over_failure)
    assert len(ranked) >= 4
    assert np.mean(ranked) >= 0.95
    assert np.mean(without) >= 0.9
