"""Episodes on their way into a LeRobotDataset: read, checked and encoded one by one, wherever that is done.

Each episode's video is encoded on its own, so that it does not depend on the episodes before it: several processes may
share the work, and the bytes stay the same.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import CompatibilityError
from grape.store.h264 import VideoWriter
from grape.store.lerobot.layout import STATE, EpisodeNumbers, Shape
from grape.store.lerobot.tables import count_values
from grape.store.opened import OpenedStores

__all__ = ["EncodeEpisodes", "EncodedEpisode", "ExportedEpisode", "read_episode"]

_KEY_FRAME_EVERY = 2  # as LeRobot has it: readers reach any step quickly


@dataclass(frozen=True)
class ExportedEpisode:
    """An episode to export.

    Attributes:
        store: Folder of its store.
        episode_id: Which one.
        executed: Whether its executed actions are exported rather than its labels.
        facts: Further columns of its row in ``meta/episodes``; the same names for all episodes.
    """

    store: Path
    episode_id: str
    executed: bool
    facts: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class EncodedEpisode:
    """An episode whose images are a video.

    Attributes:
        numbers: Everything else.
        facts: See :class:`ExportedEpisode`.
        video: An MP4 file with ``T`` images.
        counts: See :func:`~grape.store.lerobot.tables.count_values`.
    """

    numbers: EpisodeNumbers
    facts: Mapping[str, Any]
    video: bytes
    counts: npt.NDArray[np.int64]


def read_episode(
    episode: ExportedEpisode, shape: Shape, stores: OpenedStores
) -> tuple[EpisodeNumbers, npt.NDArray[np.uint8]]:
    """What is exported of an episode, and its images before each action, uint8 ``(T, H, W, 3)``.

    The last observation, which follows the last action, is not exported.

    Args:
        episode: Which one.
        shape: What it must have.
        stores: Reads it.

    Raises:
        DataError: The episode is missing or damaged.
        CompatibilityError: It is of another shape.
    """
    trajectory = stores.read(episode.store, episode.episode_id)
    actions = trajectory.actions if episode.executed else trajectory.labels
    shapes = (trajectory.frames.shape[1:], trajectory.proprio.shape[1], actions.shape[1])
    expected = ((shape.height, shape.width, 3), shape.state, len(shape.action_names))
    if shapes != expected:
        raise CompatibilityError(
            f"Episode {trajectory.meta.episode_id} has images, state and actions of {shapes}, the first one of "
            f"{expected}{f' (column {STATE})' if shapes[1] != expected[1] else ''}.",
            "One data set holds one kind of episodes: export the kinds separately.",
        )
    steps = trajectory.steps
    images = trajectory.each_state(trajectory.frames)[:steps]
    return EpisodeNumbers(trajectory.meta, actions, trajectory.proprio[:steps]), images


@dataclass(frozen=True)
class EncodeEpisodes:
    """Reads and encodes episodes.

    Attributes:
        shape: What all of them share.
        crf: See :class:`~grape.store.h264.VideoWriter`.
        stores: Reads them.
    """

    shape: Shape
    crf: int
    stores: OpenedStores = field(default_factory=OpenedStores)

    def __call__(self, shard: Sequence[ExportedEpisode]) -> list[EncodedEpisode]:
        """The episodes, encoded.

        Raises:
            DataError: An episode is missing or damaged.
            CompatibilityError: One is of another shape.
            SettingsError: PyAV is not installed.
        """
        return [self._encoded(episode) for episode in shard]

    def _encoded(self, episode: ExportedEpisode) -> EncodedEpisode:
        numbers, images = read_episode(episode, self.shape, self.stores)
        video, size = io.BytesIO(), (self.shape.height, self.shape.width)
        with VideoWriter(
            video, size, self.shape.fps, self.crf, key_frame_every=_KEY_FRAME_EVERY, extra="lerobot"
        ) as writer:
            writer.add(images)
        return EncodedEpisode(numbers, episode.facts, video.getvalue(), count_values(images))
