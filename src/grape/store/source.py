"""What scoring, pairing and training read of recorded episodes, wherever they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from grape.core.chunks import PLAIN, Chunks
from grape.core.trajectories import EpisodeMeta, Trajectory

__all__ = ["Decisions", "EpisodeSource", "Episodes"]


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
        camera_shapes: ``(H, W, 3)`` of each further camera's images, by name.
    """

    tokens: npt.NDArray[np.int32]
    logps: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    image_shape: tuple[int, int, int]
    proprio: npt.NDArray[np.float32]
    chunks: Chunks | None = None
    camera_shapes: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def executed(self) -> npt.NDArray[np.int32]:
        """Executed actions of each of the ``N`` decisions, int32 ``(N,)``."""
        return np.ones(len(self.labels), np.int32) if self.chunks is None else self.chunks.executed

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """First control step of each decision, int64 ``(N,)``."""
        return np.arange(len(self.labels), dtype=np.int64) if self.chunks is None else self.chunks.starts

    def facts(self) -> tuple[int, str, float]:
        """Chunk length, support and temperature, see :meth:`grape.core.chunks.Chunks.facts`."""
        return PLAIN if self.chunks is None else self.chunks.facts()

    def sampled(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Tokens of each decision's chunk, executed or not, int32, and their log-probabilities, float32, ``(N, K, D)``.

        They are -1 and NaN where nothing was sampled.
        """
        if self.chunks is None:
            return self.tokens[:, None], self.logps[:, None]
        if self.chunks.tokens is None or self.chunks.logps is None:
            shape = (len(self.chunks), self.chunks.length, self.labels.shape[1])
            return np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32)
        return self.chunks.tokens, self.chunks.logps


class Episodes(Protocol):
    """Episodes to score and to pair: an :class:`~grape.store.EpisodeStore`, or trajectories in memory."""

    @property
    def suite(self) -> str:
        """Registered name of the suite."""

    def meta(self, episode_id: str) -> EpisodeMeta:
        """Facts of one episode."""

    def metas(self) -> tuple[EpisodeMeta, ...]:
        """Facts of all episodes."""

    def read(self, episode_id: str, *, frames: bool = True) -> Trajectory:
        """One episode; without images ``frames`` is ``(N+1, 0, 0, 3)``."""


class EpisodeSource(Episodes, Protocol):
    """Episodes to train on: an :class:`~grape.store.EpisodeStore`, or a data set of another format in its place."""

    @property
    def path(self) -> Path:
        """Where they lie, for messages."""

    @property
    def contract(self) -> Mapping[str, Any]:
        """JSON facts on which all episodes agree, e.g. the action space."""

    def decisions(self, episode_id: str) -> Decisions:
        """The decisions of one episode; no image is decoded."""

    def images(self, episode_id: str, decisions: Sequence[int], camera: str = "") -> npt.NDArray[np.uint8]:
        """Images before some decisions of one episode, in that order, uint8 ``(B, H, W, 3)``; no other is decoded.

        Args:
            episode_id: Which one.
            decisions: Positions on the decision axis.
            camera: Name of a further camera; empty for the main one.
        """

    def digest(self) -> str:
        """Hash of what the episodes are."""
