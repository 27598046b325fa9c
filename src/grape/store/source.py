"""What a trainer of demonstrations asks of a collection of episodes, wherever they lie."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from grape.core.trajectories import EpisodeMeta, Trajectory

__all__ = ["EpisodeSource"]


class EpisodeSource(Protocol):
    """Episodes to read: an :class:`~grape.store.EpisodeStore`, or an RLDS data set in its place."""

    @property
    def path(self) -> Path:
        """Where they lie, for messages."""

    @property
    def suite(self) -> str:
        """Registered name of the suite."""

    @property
    def contract(self) -> Mapping[str, Any]:
        """JSON facts on which all episodes agree, e.g. the action space."""

    def meta(self, episode_id: str) -> EpisodeMeta:
        """Facts of one episode."""

    def metas(self) -> tuple[EpisodeMeta, ...]:
        """Facts of all episodes."""

    def read(self, episode_id: str, *, frames: bool = True) -> Trajectory:
        """One episode; without images ``frames`` is ``(T+1, 0, 0, 3)``."""

    def digest(self) -> str:
        """Hash of what the episodes are."""
