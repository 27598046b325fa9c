"""Which initial states a policy has seen, recognized by what the simulator starts from and not by the suite's name."""

from collections.abc import Mapping, Sequence, Set

from grape.core.errors import SettingsError
from grape.core.tasks import Task
from grape.envs.base import SuiteBase
from grape.envs.registry import get_suite

__all__ = ["seen_states"]


def seen_states(
    states_by_suite: Mapping[str, Mapping[str, Set[int]]], suite: str, tasks: Sequence[str], states: Sequence[int]
) -> dict[str, tuple[int, ...]]:
    """States of some tasks that are among known ones, whichever suite these were recorded under.

    Args:
        states_by_suite: Initial states by suite and task, as :class:`grape.core.provenance.Provenance` has them. Suites
            and tasks that are not installed here are compared by their names.
        suite: Registered name of the suite that is looked at.
        tasks: Names of its tasks.
        states: Indices of initial states.

    Returns:
        The states that are known, by task; tasks without any are left out.
    """
    by_base: dict[tuple[str, str], set[int]] = {}
    for name, some in states_by_suite.items():
        bases = _base_tasks(name)
        for task, indices in some.items():
            by_base.setdefault(bases.get(task, (name, task)), set()).update(indices)
    bases = _base_tasks(suite)
    states_of_tasks = {task: by_base.get(bases.get(task, (suite, task)), set()) for task in tasks}
    return {
        task: tuple(state for state in states if state in indices)
        for task, indices in states_of_tasks.items()
        if not indices.isdisjoint(states)
    }


def _base_tasks(suite: str) -> dict[str, tuple[str, str]]:
    """The base task of each task of a suite by name; empty where the suite is not known here."""
    try:
        described_suite: SuiteBase = get_suite(suite)
    except SettingsError:
        return {}
    tasks: Sequence[Task] = described_suite.tasks
    return {task.name: described_suite.base_task(task) for task in tasks}
