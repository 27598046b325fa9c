"""Writing a LeRobotDataset v3.0, one episode after the other; at any time one episode is in memory.

The folder should not carry its final name while it grows: see :mod:`grape.core.atomic_folders`.
"""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import CompatibilityError
from grape.core.files import sync_folder, write_json
from grape.core.trajectories import Trajectory
from grape.store.h264 import VideoWriter
from grape.store.lerobot.layout import (
    DATA_MB,
    DATA_PATH,
    EPISODES_FILE,
    IMAGES,
    STATE,
    VIDEO_MB,
    VIDEO_PATH,
    Shape,
    chunk_and_file,
    columns_of,
    info,
)
from grape.store.lerobot.tables import (
    StepTables,
    count_values,
    image_statistics,
    number_statistics,
    write_episodes,
    write_tasks,
)

__all__ = ["ExportEpisode", "write_dataset"]

_MEGABYTE = 1024**2
_KEY_FRAME_EVERY = 2  # as LeRobot has it: readers reach any step quickly


@dataclass(frozen=True, eq=False)
class ExportEpisode:
    """An episode to export.

    Attributes:
        trajectory: With its images.
        actions: Executed actions or labels, float32 ``(T, D)``.
        facts: Further columns of the episode's row in ``meta/episodes``; the same names for all episodes.
    """

    trajectory: Trajectory
    actions: npt.NDArray[np.float32]
    facts: Mapping[str, Any]


class _Files:
    """The data file and the video file that are being written, with their numbers."""

    def __init__(self, folder: Path, shape: Shape, crf: int, stack: contextlib.ExitStack) -> None:
        self._folder, self._shape, self._crf, self._stack = folder, shape, crf, stack
        self.data_number = self.video_number = -1
        self.data: StepTables | None = None
        self.video: VideoWriter | None = None

    def ready(self) -> tuple[StepTables, VideoWriter]:
        """Files with room for one more episode; full ones are closed."""
        if self.data is None or self.data.bytes >= DATA_MB * _MEGABYTE:
            if self.data is not None:
                self.data.close()
            self.data_number += 1
            chunk, file = chunk_and_file(self.data_number)
            path = self._folder / DATA_PATH.format(chunk_index=chunk, file_index=file)
            self.data = self._stack.enter_context(StepTables(path))
        if self.video is None or self.video.bytes >= VIDEO_MB * _MEGABYTE:
            if self.video is not None:
                self.video.close()
            self.video_number += 1
            chunk, file = chunk_and_file(self.video_number)
            path = self._folder / VIDEO_PATH.format(video_key=IMAGES, chunk_index=chunk, file_index=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            size = (self._shape.height, self._shape.width)
            self.video = self._stack.enter_context(
                VideoWriter(path, size, self._shape.fps, self._crf, key_frame_every=_KEY_FRAME_EVERY, extra="lerobot")
            )
        return self.data, self.video


def write_dataset(
    folder: Path, episodes: Iterable[ExportEpisode], shape: Shape, *, robot: str, crf: int
) -> Mapping[str, int]:
    """Write a data set.

    Args:
        folder: Where ``data/``, ``videos/`` and ``meta/`` are made.
        episodes: In the order of the data set.
        shape: What all of them share.
        robot: Name of the suite.
        crf: See :class:`~grape.store.h264.VideoWriter`.

    Returns:
        Numbers of ``episodes``, ``frames`` and ``tasks``.

    Raises:
        CompatibilityError: An episode is of another shape.
        SettingsError: PyAV is not installed.
        OSError: The disk is full or the folder cannot be written.
    """
    rows: list[dict[str, Any]] = []
    tasks: dict[str, int] = {}
    numbers: dict[str, list[npt.NDArray[Any]]] = {}
    counts = np.zeros((3, 256), dtype=np.int64)
    first = 0
    with contextlib.ExitStack() as stack:
        files = _Files(folder, shape, crf, stack)
        for number, episode in enumerate(episodes):
            meta, steps = episode.trajectory.meta, episode.trajectory.steps
            _check(episode, shape)
            task = tasks.setdefault(meta.instruction, len(tasks))
            columns = columns_of(
                episode.trajectory, shape, actions=episode.actions, episode=number, first=first, task=task
            )
            images = episode.trajectory.each_state(episode.trajectory.frames)[:steps]
            data, video = files.ready()
            begin = video.frames / shape.fps
            data.add(columns)
            video.add(images)
            own = count_values(images)
            counts += own
            for name, values in columns.items():
                numbers.setdefault(name, []).append(values)
            statistics = {name: number_statistics(values) for name, values in columns.items()}
            statistics[IMAGES] = image_statistics(own, steps)
            rows.append(
                {
                    "episode_index": number,
                    "tasks": [meta.instruction],
                    "length": steps,
                    **_place("data", files.data_number),
                    "dataset_from_index": first,
                    "dataset_to_index": first + steps,
                    **_place(f"videos/{IMAGES}", files.video_number),
                    f"videos/{IMAGES}/from_timestamp": begin,
                    f"videos/{IMAGES}/to_timestamp": video.frames / shape.fps,
                    **_flat(statistics),
                    "meta/episodes/chunk_index": 0,
                    "meta/episodes/file_index": 0,
                    **episode.facts,
                }
            )
            first += steps
    totals = {"episodes": len(rows), "frames": first, "tasks": len(tasks)}
    write_episodes(folder / EPISODES_FILE, rows)
    write_tasks(folder / "meta" / "tasks.parquet", list(tasks))
    overall = {name: number_statistics(np.concatenate(parts)) for name, parts in numbers.items()}
    write_json(folder / "meta" / "stats.json", {IMAGES: image_statistics(counts, first), **overall})
    write_json(folder / "meta" / "info.json", info(shape, robot, totals))
    sync_folder(folder / "meta")
    return totals


def _place(kind: str, number: int) -> dict[str, int]:
    chunk, file = chunk_and_file(number)
    return {f"{kind}/chunk_index": chunk, f"{kind}/file_index": file}


def _flat(statistics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"stats/{column}/{name}": value for column, figures in statistics.items() for name, value in figures.items()
    }


def _check(episode: ExportEpisode, shape: Shape) -> None:
    trajectory = episode.trajectory
    shapes = (trajectory.frames.shape[1:], trajectory.proprio.shape[1], episode.actions.shape[1])
    expected = ((shape.height, shape.width, 3), shape.state, len(shape.action_names))
    if shapes != expected:
        raise CompatibilityError(
            f"Episode {trajectory.meta.episode_id} has images, state and actions of {shapes}, the first one of "
            f"{expected}{f' (column {STATE})' if shapes[1] != expected[1] else ''}.",
            "One data set holds one kind of episodes: export the kinds separately.",
        )
