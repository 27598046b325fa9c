"""LIBERO's specifications against the names that its suites record."""

import pytest

from grape.costs import (
    builtin_names,
    builtin_specification,
    check_specification,
    suite_names_of,
)
from grape.costs.checks import find_problems
from grape.envs.libero.tasks import suite_tasks
from grape.envs.registry import get_suite

EACH_SUITE = pytest.mark.parametrize("suite", ["libero_spatial", "libero_object", "libero_goal", "libero_10"])


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
