"""What training reads of recorded episodes, wherever they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from grape.core.chunks import Chunks
from grape.core.trajectories import EpisodeMeta, Trajectory

__all__ = ["Decisions", "EpisodeSource"]


@dataclass(frozen=True, eq=False)
class Decisions:
    """The decisions of an episode, without its images.

    Attributes:
        tokens: Sampled tokens of the executed actions, int32 ``(T, D)``; -1 where nothing was sampled.
        logps: Log-probability of each token, float32 ``(T, D)``; NaN where nothing was sampled.
        labels: What an imitator should learn, un-normalized, float32 ``(T, D)``.
        image_shape: ``(H, W, 3)`` of the main camera's image before each decision.
        proprio: Robot state before each control step, float32 ``(T, P)``; ``P`` is 0 where none was recorded.
        chunks: The decisions with all that was sampled; None where each of the ``T`` control steps is one, see
            :class:`~grape.core.trajectories.Trajectory`.
    """

    tokens: npt.NDArray[np.int32]
    logps: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    image_shape: tuple[int, int, int]
    proprio: npt.NDArray[np.float32]
    chunks: Chunks | None = None


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

    def decisions(self, episode_id: str) -> Decisions:
        """The decisions of one episode; no image is decoded."""

    def images(self, episode_id: str, decisions: Sequence[int], camera: str = "") -> npt.NDArray[np.uint8]:
        """Images before some decisions of one episode, in that order, uint8 ``(B, H, W, 3)``; no other is decoded.

        ``camera`` names a further camera; empty is the main one.
        """

    def digest(self) -> str:
        """Hash of what the episodes are."""
