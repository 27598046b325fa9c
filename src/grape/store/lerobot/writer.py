"""Writing a LeRobotDataset v3.0, one episode after the other; at any time one episode is in memory.

The folder should not carry its final name while it grows: see :mod:`grape.core.atomic_folders`.
"""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.files import sync_folder, write_json
from grape.store.h264 import VideoJoiner
from grape.store.lerobot.episodes import EncodedEpisode
from grape.store.lerobot.layout import (
    DATA_MB,
    DATA_PATH,
    EPISODES_FILE,
    IMAGES,
    VIDEO_MB,
    VIDEO_PATH,
    Shape,
    chunk_and_file,
    columns_of,
    info,
)
from grape.store.lerobot.tables import (
    StepTables,
    image_statistics,
    number_statistics,
    write_episodes,
    write_tasks,
)

__all__ = ["write_dataset"]

_MEGABYTE = 1024**2


class _Files:
    """The data file and the video file that are being written, with their numbers."""

    def __init__(self, folder: Path, shape: Shape, stack: contextlib.ExitStack) -> None:
        self._folder, self._shape, self._stack = folder, shape, stack
        self.data_number = self.video_number = -1
        self.data: StepTables | None = None
        self.video: VideoJoiner | None = None

    def ready(self) -> tuple[StepTables, VideoJoiner]:
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
            self.video = self._stack.enter_context(VideoJoiner(path, self._shape.fps, extra="lerobot"))
        return self.data, self.video


def write_dataset(folder: Path, episodes: Iterable[EncodedEpisode], shape: Shape, *, robot: str) -> Mapping[str, int]:
    """Write a data set.

    Args:
        folder: Where ``data/``, ``videos/`` and ``meta/`` are made.
        episodes: In the order of the data set.
        shape: What all of them share.
        robot: Name of the suite.

    Returns:
        Numbers of ``episodes``, ``frames`` and ``tasks``.

    Raises:
        SettingsError: PyAV is not installed.
        OSError: The disk is full or the folder cannot be written.
    """
    rows: list[dict[str, Any]] = []
    tasks: dict[str, int] = {}
    numbers: dict[str, list[npt.NDArray[Any]]] = {}
    counts = np.zeros((3, 256), dtype=np.int64)
    first = 0
    with contextlib.ExitStack() as stack:
        files = _Files(folder, shape, stack)
        for number, episode in enumerate(episodes):
            steps, instruction = episode.numbers.steps, episode.numbers.meta.instruction
            task = tasks.setdefault(instruction, len(tasks))
            columns = columns_of(episode.numbers, shape, episode=number, first=first, task=task)
            data, video = files.ready()
            begin = video.frames / shape.fps
            data.add(columns)
            video.add(episode.video)
            counts += episode.counts
            for name, values in columns.items():
                numbers.setdefault(name, []).append(values)
            statistics = {name: number_statistics(values) for name, values in columns.items()}
            statistics[IMAGES] = image_statistics(episode.counts, steps)
            rows.append(
                {
                    "episode_index": number,
                    "tasks": [instruction],
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
