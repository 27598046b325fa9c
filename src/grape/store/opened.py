"""Stores that stay open from one episode to the next, for what reads episodes by the path of their store."""

from pathlib import Path

from grape.core.trajectories import Trajectory
from grape.store.episode_store import EpisodeStore

__all__ = ["OpenedStores"]


class OpenedStores:
    """Reads episodes of stores that are opened once: to open a store of many packs takes longer than an episode.

    Copies that travel to other processes open stores for themselves.
    """

    def __init__(self) -> None:
        self._stores: dict[Path, EpisodeStore] = {}

    def __reduce__(self) -> tuple[type["OpenedStores"], tuple[()]]:
        return OpenedStores, ()

    def read(self, store: Path, episode_id: str, *, frames: bool = True) -> Trajectory:
        """Read an episode, checked against its checksums.

        Args:
            store: The folder of its store.
            episode_id: Which one.
            frames: See :meth:`~grape.store.episode_store.EpisodeStore.read`.

        Raises:
            DataError: There is no such store or episode, or a file is damaged.
            CompatibilityError: A newer version of the package wrote it.
        """
        if store not in self._stores:
            self._stores[store] = EpisodeStore.open(store)
        return self._stores[store].read(episode_id, frames=frames)
