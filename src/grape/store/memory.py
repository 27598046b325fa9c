"""Trajectories without a store: in memory, to score and to pair; and written into a store, to train on."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from grape.core.chunks import PLAIN
from grape.core.errors import CompatibilityError, DataError
from grape.core.tasks import ActionSpace
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.store.episode_store import EpisodeStore
from grape.store.source import Episodes

__all__ = ["EpisodesInMemory", "save_trajectories"]


class EpisodesInMemory:
    """Trajectories of one suite, each with a name of its own; see :class:`grape.store.Episodes`.

    Args:
        trajectories: In any order.

    Raises:
        DataError: There are none, or two have one name.
        CompatibilityError: They are of several suites.
    """

    def __init__(self, trajectories: Iterable[Trajectory]) -> None:
        self._trajectories: dict[str, Trajectory] = {}
        for trajectory in trajectories:
            name = trajectory.meta.episode_id
            if name in self._trajectories:
                tasks = {self._trajectories[name].meta.task, trajectory.meta.task}
                raise DataError(
                    f"Two trajectories are called {name}.",
                    "Give each rollout of an initial state a sample of its own."
                    if len(tasks) == 1
                    else f"Give their tasks names that differ in letters or digits: {' and '.join(sorted(tasks))}.",
                )
            self._trajectories[name] = trajectory
        if not self._trajectories:
            raise DataError("There are no trajectories.", "Give at least one; to make pairs, two of an initial state.")
        suites = sorted({trajectory.meta.suite for trajectory in self._trajectories.values()})
        if len(suites) > 1:
            raise CompatibilityError(
                f"The trajectories are of several suites: {', '.join(suites)}.", "Score those of each suite apart."
            )
        self.suite = suites[0]

    def meta(self, episode_id: str) -> EpisodeMeta:
        """Facts of one episode."""
        return self.read(episode_id).meta

    def metas(self) -> tuple[EpisodeMeta, ...]:
        """Facts of all episodes in the order of their ids, as of a store."""
        return tuple(trajectory.meta for _, trajectory in sorted(self._trajectories.items()))

    def read(self, episode_id: str, *, frames: bool = True) -> Trajectory:
        """One trajectory, always with its images.

        Raises:
            DataError: There is none of this name.
        """
        if episode_id not in self._trajectories:
            raise DataError(f"No trajectory is called {episode_id}.", "Give the trajectories that were scored.")
        return self._trajectories[episode_id]


def save_trajectories(
    path: Path, episodes: Episodes | Iterable[Trajectory], *, action_space: ActionSpace | None = None
) -> EpisodeStore:
    """Write trajectories into a store, a new one or the one that is there.

    Args:
        path: The store's folder.
        episodes: Of one suite, with decisions of one kind.
        action_space: What the actions mean; training a new policy on demonstrations needs it, or ``gripper`` in its
            settings.

    Raises:
        DataError: The folder holds something else, or another episode of that name.
        CompatibilityError: Suites, chunk lengths, or what log-probabilities are over differ.
    """
    if not isinstance(episodes, EpisodesInMemory | EpisodeStore):
        episodes = EpisodesInMemory(episodes)  # type: ignore[arg-type]
    names = [meta.episode_id for meta in episodes.metas()]
    first = episodes.read(names[0], frames=False)
    contract: dict[str, Any] = {} if action_space is None else {"action_space": asdict(action_space)}
    contract |= _chunks(first)
    store = EpisodeStore.create(Path(path), episodes.suite, contract)
    for name in names:
        trajectory = episodes.read(name)
        if _chunks(trajectory) != _chunks(first):
            kinds = " and ".join(str(_chunks(item) or "one action each") for item in (first, trajectory))
            raise CompatibilityError(
                f"The decisions of {names[0]} and {name} are of two kinds: {kinds}.",
                "Write the trajectories of each kind into a store of their own.",
            )
        store.write(trajectory)
    return store


def _chunks(trajectory: Trajectory) -> Mapping[str, Any]:
    """What a store's contract says of decisions; nothing of plain ones."""
    if trajectory.chunks is None or trajectory.chunks.facts() == PLAIN:
        return {}
    return {"chunks": dict(zip(("length", "support", "temperature"), trajectory.chunks.facts(), strict=True))}
