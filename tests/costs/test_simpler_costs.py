"""The WidowX specifications against recordings of the experts; ``tests/costs/record_simpler.py`` made them."""

import functools

import numpy as np
import pytest

from grape.core.tasks import Task
from grape.core.trajectories import Trajectory
from grape.costs import (
    builtin_names,
    builtin_specification,
    check_specification,
    specification_to_dict,
    suite_names_of,
)
from grape.costs.checks import find_problems
from grape.envs.registry import get_suite
from grape.envs.simpler.tasks import SUITES, base_task_of, steps_per_decision, suite_tasks
from tests.costs.record_libero import read
from tests.costs.record_simpler import path_of
from tests.costs.test_builtins import check_clean_expert, same_start, success_over_failure, total, without_verdict

TASKS = suite_tasks("simpler_widowx")
EACH_TASK = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


@functools.cache
def recordings(task: Task) -> list[Trajectory]:
    return read(task, path_of(task))


@pytest.mark.parametrize("suite", [*SUITES, "simpler_widowx-v0"])
def test_every_task_has_a_specification_without_findings(suite: str) -> None:
    names, known = suite_names_of(suite), get_suite(suite)
    assert set(builtin_names(suite)) == {task.name for task in known.tasks}
    for task in known.tasks:
        specification = builtin_specification(suite, task.name)
        check_specification(specification, names.keypoints, names.signals)
        assert find_problems(specification) == ()
        assert (specification.suite, specification.task) == (suite, task.name)
        assert specification.limit == task.max_steps
        assert specification.control_hz == known.action_space.control_hz


@pytest.mark.parametrize("suite", [suite for suite in SUITES[1:] if steps_per_decision(suite) == 1])
def test_variations_are_priced_like_their_task(suite: str) -> None:
    for task in suite_tasks(suite):
        ours = specification_to_dict(builtin_specification(suite, task.name))
        theirs = specification_to_dict(builtin_specification("simpler_widowx", base_task_of(task)))
        assert ours["stages"] == theirs["stages"]
        assert ours["outcome"] == theirs["outcome"]


@EACH_TASK
def test_names_are_those_that_are_recorded(task: Task) -> None:
    names, episode = suite_names_of(task.suite), recordings(task)[0]
    assert set(episode.keypoints) == set(names.keypoints)
    assert set(episode.signals) == set(names.signals)


@EACH_TASK
def test_experts_finish_every_stage_and_each_makes_the_episode_cheaper(task: Task) -> None:
    specification = builtin_specification(task.suite, task.name)
    solved = [episode for episode in recordings(task) if episode.meta.operator == "clean" and episode.meta.success]
    assert solved
    for episode in solved:
        check_clean_expert(specification, episode)


def test_successes_cost_less_than_failures_from_the_same_initial_state() -> None:
    ranked: list[bool] = []
    without: list[bool] = []
    for task in TASKS:
        specification, episodes = builtin_specification(task.suite, task.name), recordings(task)
        costs = [total(specification, episode) for episode in episodes]
        ranked += same_start(list(zip(episodes, costs, strict=True)), success_over_failure)
        hidden = [total(specification, without_verdict(episode)) for episode in episodes]
        without += same_start(list(zip(episodes, hidden, strict=True)), success_over_failure)
    assert len(ranked) > 20
    assert np.mean(ranked) >= 0.95
    assert np.mean(without) >= 0.9
