"""The plan of a collection: its episodes, and which of them run in lock-step.

A group is the unit of work and of resumption: the same settings always give the same groups, so a batch seen by the
policy never depends on timing, on the number of workers or on an interruption. Further rounds, where they are asked
for, follow from the outcomes of the rounds before them alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grape.collect.settings import CollectSettings
from grape.core.errors import SettingsError, require_known
from grape.core.selections import parse_numbers
from grape.core.settings import check_ranges
from grape.core.tasks import Task
from grape.core.trajectories import rollout_id, rollout_seed
from grape.envs.base import SuiteBase
from grape.envs.registry import missing_state_hint, select_tasks

__all__ = [
    "Group",
    "PlannedEpisode",
    "added_groups",
    "describe_plan",
    "make_plan",
    "mixed_episodes_at_most",
    "next_round",
]

_MOST_EPISODES = 1_000_000  # a store is a folder with a file an episode
_MOST_SECONDS = 1e6  # sockets refuse much longer timeouts


@dataclass(frozen=True)
class PlannedEpisode:
    """One episode to be played.

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

    @classmethod
    def of(cls, task: Task, initial_state: int, sample: int, run_seed: int, operator: str = "") -> "PlannedEpisode":
        """A rollout of a task; name and seed follow from what it is, whatever else is played."""
        return cls(
            episode_id=rollout_id(task.name, initial_state, sample),
            initial_state=initial_state,
            sample=sample,
            seed=rollout_seed(run_seed, task.suite, task.name, initial_state, sample),
            operator=operator,
        )


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
    """Groups of episodes for the settings; of the first round, where the settings ask for further ones.

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
    if len(tasks) * len(states) * settings.samples + settings.mixed_episodes > _MOST_EPISODES:
        more = f" and --mixed-episodes {settings.mixed_episodes}" if settings.mixed_episodes else ""
        raise SettingsError(
            f"{len(tasks)} tasks, {len(states)} initial states and --samples {settings.samples}{more} make more than "
            f"{_MOST_EPISODES} episodes.",
            "Collect them in parts.",
        )
    _check_mixed(settings)
    expert = settings.policy == "expert"
    if expert:
        for task in tasks:
            suite.check_expert(task)
    operators = _operators_of_states(settings.operators, suite, len(states)) if expert else ("",) * len(states)
    episodes = {
        task: [
            PlannedEpisode.of(task, state, sample, settings.seed, operator)
            for state, operator in zip(states, operators, strict=True)
            for sample in range(settings.samples)
        ]
        for task in tasks
    }
    return _grouped(episodes, settings.lanes, 0)


def added_groups(groups: Sequence[Group], planned: Sequence[Group], lanes: int) -> tuple[Group, ...]:
    """Groups of those episodes that are not planned yet, numbered behind ``planned``.

    Args:
        groups: Of a larger plan.
        planned: All groups so far; without any, the larger plan's groups are as they were.
        lanes: Most episodes of a group.
    """
    known = {episode.episode_id for group in planned for episode in group.episodes}
    episodes: dict[Task, list[PlannedEpisode]] = {}
    for group in groups:
        new = [episode for episode in group.episodes if episode.episode_id not in known]
        if new:
            episodes.setdefault(group.task, []).extend(new)
    return _grouped(episodes, lanes, len(planned))


def next_round(settings: CollectSettings, planned: Sequence[Group], solved: Mapping[str, bool]) -> tuple[Group, ...]:
    """More episodes from initial states of mixed outcome, after all of ``planned`` were played.

    A state is of mixed outcome while its success rate lies between 10 and 90 %, both included. Each gets ``samples``
    more, one after the other, the most even state first, until a state has as many as the settings allow or the budget
    is spent.

    Args:
        settings: The collection's settings.
        planned: All groups of the rounds so far.
        solved: Whether an episode succeeded, by its id; of every planned one.

    Returns:
        The round's groups, numbered behind ``planned``; none where nothing is left to play.
    """
    played: dict[tuple[Task, int], list[PlannedEpisode]] = {}
    for group in planned:
        for episode in group.episodes:
            played.setdefault((group.task, episode.initial_state), []).append(episode)
    remaining_budget = settings.mixed_episodes - sum(max(0, len(some) - settings.samples) for some in played.values())
    counts = {key: (len(some), sum(solved[episode.episode_id] for episode in some)) for key, some in played.items()}
    mixed = [key for key, (n, k) in counts.items() if n <= 10 * k <= 9 * n]
    even_first = sorted(mixed, key=lambda key: abs(2 * counts[key][1] / counts[key][0] - 1))
    candidates = [
        (key, sample)
        for turn in range(settings.samples)
        for key in even_first
        if (sample := counts[key][0] + turn) < settings.most_samples
    ]
    more: dict[tuple[Task, int], list[int]] = {}
    for key, sample in candidates[: max(0, remaining_budget)]:
        more.setdefault(key, []).append(sample)
    episodes: dict[Task, list[PlannedEpisode]] = {}
    for (task, state), some in played.items():
        for sample in more.get((task, state), ()):
            episodes.setdefault(task, []).append(
                PlannedEpisode.of(task, state, sample, settings.seed, some[0].operator)
            )
    return _grouped(episodes, settings.lanes, len(planned))


def mixed_episodes_at_most(settings: CollectSettings, first: Sequence[Group]) -> int:
    """How many episodes all further rounds can add to the first one's."""
    states = {(group.task, episode.initial_state) for group in first for episode in group.episodes}
    return min(settings.mixed_episodes, len(states) * (settings.most_samples - settings.samples))


def _check_mixed(settings: CollectSettings) -> None:
    """Refuse settings with which no state can be of mixed outcome, or none can get more."""
    if not settings.mixed_episodes:
        if settings.mixed_samples:
            raise SettingsError(
                f"--mixed-samples {settings.mixed_samples} has no effect without --mixed-episodes.",
                "Say how many episodes more there may be, e.g. --mixed-episodes 100.",
            )
        return
    if settings.shard:
        raise SettingsError(
            f"--mixed-episodes {settings.mixed_episodes} with --shard {settings.shard}: where more is played depends "
            "on the outcomes of all shards.",
            "Play the shards without it, merge them, and add it to the whole: grape collect --extend --mixed-episodes.",
        )
    if settings.samples < 2:
        raise SettingsError(
            f"--mixed-episodes {settings.mixed_episodes} with --samples {settings.samples}: one rollout is no mixed "
            "outcome.",
            "Play 2 or more from each initial state first, e.g. --samples 8.",
        )
    if settings.policy != "expert" and settings.temperature == 0:
        raise SettingsError(
            f"--mixed-episodes {settings.mixed_episodes} at --temperature 0: all rollouts of an initial state would be "
            "the same.",
            "Sample, e.g. with --temperature 0.7.",
        )
    if settings.most_samples <= settings.samples:
        raise SettingsError(
            f"--mixed-samples is {settings.mixed_samples}, and --samples {settings.samples} are played anyway.",
            "It must be above --samples.",
        )


def _grouped(episodes: Mapping[Task, Sequence[PlannedEpisode]], lanes: int, number: int) -> tuple[Group, ...]:
    """Groups of at most ``lanes`` episodes of one task, numbered from ``number`` on."""
    parts = [
        (task, some[start : start + lanes]) for task, some in episodes.items() for start in range(0, len(some), lanes)
    ]
    return tuple(Group(number + place, task, tuple(part)) for place, (task, part) in enumerate(parts))


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


def describe_plan(groups: Sequence[Group], settings: CollectSettings) -> dict[str, Any]:
    """Counts of a plan and when its episodes end, for a dry run."""
    mixed = mixed_episodes_at_most(settings, groups)
    executed = settings.execute or 1
    longest = max((group.task.max_steps for group in groups), default=0)
    episodes = [(len(group.episodes), group.task.max_steps) for group in groups] + [(mixed, longest)]
    return {
        "episodes": sum(len(group.episodes) for group in groups),
        **({"mixed_episodes_at_most": mixed} if mixed else {}),
        "groups": len(groups),
        "tasks": sorted({group.task.name for group in groups}),
        "decisions_at_most": sum(count * -(-steps // executed) for count, steps in episodes),
        "control_steps_at_most": sum(count * steps for count, steps in episodes),
        "until": settings.until,
        "limits": {group.task.name: group.task.max_steps for group in groups},
    }
