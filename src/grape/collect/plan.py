"""Which episodes a collection holds, and which of them run in lock-step.

A group is the unit of work and of resumption: the same settings always give the same groups, so a batch seen by the
policy never depends on timing, on the number of workers or on an interruption.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from grape.collect.settings import CollectSettings
from grape.core.errors import SettingsError, require_known
from grape.core.seeds import derive_seed
from grape.core.selections import parse_numbers
from grape.core.settings import check_ranges
from grape.core.tasks import Task
from grape.envs.base import SuiteBase
from grape.envs.registry import missing_state_hint, select_tasks

__all__ = ["Group", "PlannedEpisode", "describe_plan", "make_plan"]

_MOST_EPISODES = 1_000_000  # a store is a folder with a file an episode
_MOST_SECONDS = 1e6  # sockets refuse much longer timeouts


@dataclass(frozen=True)
class PlannedEpisode:
    """One episode to come.

    Attributes:
        episode_id: Name within the store.
        initial_state: Index of the initial state.
        sample: Number of the rollout among those from the same initial state.
        seed: Seed of this episode alone.
        operator: Style of the expert; empty for a policy.
    """

    episode_id: str
    initial_state: int
    sample: int
    seed: int
    operator: str


@dataclass(frozen=True)
class Group:
    """Episodes of one task that run in lock-step.

    Attributes:
        number: Position in the plan.
        task: The task.
        episodes: At most ``lanes`` episodes.
    """

    number: int
    task: Task
    episodes: tuple[PlannedEpisode, ...]


def make_plan(settings: CollectSettings, suite: SuiteBase) -> tuple[Group, ...]:
    """Groups of episodes for the settings.

    Raises:
        SettingsError: A task, operator or initial state is unknown or out of range, or a number is not positive.
    """
    check_ranges(settings)
    tasks = select_tasks(suite, settings.tasks)
    if settings.max_steps:
        tasks = tuple(replace(task, max_steps=settings.max_steps) for task in tasks)
    states = parse_numbers(settings.initial_states, "initial states")
    for task in tasks:
        available = suite.n_initial_states(task)
        if max(states) >= available:
            raise SettingsError(
                f"Initial state {max(states)} of {task.id} does not exist.",
                missing_state_hint(suite, task),
            )
    if len(tasks) * len(states) * settings.samples > _MOST_EPISODES:
        raise SettingsError(
            f"{len(tasks)} tasks, {len(states)} initial states and --samples {settings.samples} make more than "
            f"{_MOST_EPISODES} episodes.",
            "Collect them in parts.",
        )
    expert = settings.policy == "expert"
    if expert:
        for task in tasks:
            suite.check_expert(task)
    operators = _operators_of_states(settings.operators, suite, len(states)) if expert else ("",) * len(states)
    groups: list[Group] = []
    for task in tasks:
        episodes = [
            PlannedEpisode(
                episode_id=f"{task.name}-i{state:06d}-k{sample:02d}",
                initial_state=state,
                sample=sample,
                seed=derive_seed(settings.seed, "episode", suite.name, task.name, state, sample),
                operator=operator,
            )
            for state, operator in zip(states, operators, strict=True)
            for sample in range(settings.samples)
        ]
        for start in range(0, len(episodes), settings.lanes):
            groups.append(Group(len(groups), task, tuple(episodes[start : start + settings.lanes])))
    return tuple(groups)


def _operators_of_states(text: str, suite: SuiteBase, n_states: int) -> Sequence[str]:
    """The operator of each initial state, from ``"clean"`` or ``"clean:40,sloppy:25"``."""
    if not suite.operators:
        raise SettingsError(f"Suite '{suite.name}' has no scripted experts.", "Give --policy with a checkpoint.")
    shares: list[tuple[str, int]] = []
    for part in text.split(","):
        name, colon, count = part.strip().partition(":")
        require_known("operator", name, suite.operators)
        if colon and not count.isdecimal():
            raise SettingsError(f"--operators '{text}': {count!r} is no number.", "Write e.g. clean:40,sloppy:25.")
        shares.append((name, int(count) if colon else n_states))
    total = sum(count for _, count in shares)
    if total != n_states:
        raise SettingsError(
            f"--operators '{text}' shares out {total} initial states, but --initial-states names {n_states}.",
            "Make the two agree, e.g. --initial-states 0-64 --operators clean:40,sloppy:25.",
        )
    return [name for name, count in shares for _ in range(count)]


def describe_plan(groups: Sequence[Group], until: str) -> dict[str, Any]:
    """Counts of a plan and when its episodes end, for a dry run."""
    return {
        "episodes": sum(len(group.episodes) for group in groups),
        "groups": len(groups),
        "tasks": sorted({group.task.name for group in groups}),
        "decisions_at_most": sum(len(group.episodes) * group.task.max_steps for group in groups),
        "until": until,
        "limits": {group.task.name: group.task.max_steps for group in groups},
    }
