"""Comparison of a written LeRobotDataset with its source, read by its own metadata as a reader does."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from grape.core.errors import DataError
from grape.core.events import Progress
from grape.core.files import read_json
from grape.mapping.mapper import Mapper
from grape.store.h264 import load_av
from grape.store.lerobot.episodes import ExportedEpisode, read_episode
from grape.store.lerobot.layout import EPISODES_FILE, IMAGES, Shape, columns_of
from grape.store.opened import OpenedStores

__all__ = ["EPISODES_PER_SHARD", "ImageLoss", "compare_dataset", "read_video"]

EPISODES_PER_SHARD = 4
"""Episodes that a process reads at once."""


def read_video(path: Path, start: float = 0.0) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """Seconds and pixels, uint8 ``(H, W, 3)``, of each image of a file.

    Args:
        path: The file.
        start: Seconds of the first image that is of interest.

    Raises:
        DataError: The file cannot be read as a video.
    """
    av = load_av("lerobot")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            if start:
                container.seek(round(start / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if (seconds := float(frame.pts * frame.time_base)) > start - _TOLERANCE:
                    yield seconds, frame.to_ndarray(format="rgb24")
    except (OSError, ValueError, IndexError, av.FFmpegError) as error:
        raise DataError(f"{path} cannot be read as a video: {error}.", "Export again.") from error


_TOLERANCE = 1e-4  # seconds; LeRobot's reader refuses images that are further away
_FIX = "The disk or the memory of this machine may be faulty; the export was given up."


@dataclass(frozen=True)
class ImageLoss:
    """Loss of the video as peak signal-to-noise ratio in decibels: higher is better, infinity is lossless.

    Attributes:
        mean: Over all images, of their mean squared error.
        worst: Of the worst image.
    """

    mean: float
    worst: float


@dataclass(frozen=True)
class _Written:
    """An episode and what the data set says of it.

    Attributes:
        episode: Where it came from.
        row: Its row in ``meta/episodes``.
        number: Its number.
        first: Number of its first row in the data set.
    """

    episode: ExportedEpisode
    row: Mapping[str, Any]
    number: int
    first: int


def compare_dataset(
    folder: Path, episodes: Sequence[ExportedEpisode], shape: Shape, mapper: Mapper, progress: Progress
) -> ImageLoss:
    """Read a data set back: every number must be the same bit for bit, every image in its place.

    Args:
        folder: The data set.
        episodes: What was written, in order.
        shape: What all of them share.
        mapper: Where episodes are compared.
        progress: Advanced once an episode.

    Raises:
        DataError: Something differs, is missing or cannot be read.
    """
    facts = read_json(folder / "meta" / "info.json")
    rows = pq.read_table(folder / EPISODES_FILE).to_pylist()
    names = pq.read_table(folder / "meta" / "tasks.parquet").to_pydict()
    tasks = dict(zip(names["task"], names["task_index"], strict=True))
    total = sum(row["length"] for row in rows)
    if (len(episodes), len(episodes), total) != (len(rows), facts["total_episodes"], facts["total_frames"]):
        raise DataError(f"{folder}: {len(rows)} episodes came back, {len(episodes)} were written.", _FIX)
    firsts = itertools.accumulate((row["length"] for row in rows), initial=0)
    written = [
        _Written(episode, row, number, first)
        for number, (episode, row, first) in enumerate(zip(episodes, rows, firsts, strict=False))
    ]
    errors: list[float] = []
    shards = mapper.shards(written, EPISODES_PER_SHARD)
    compare = _CompareEpisodes(folder.absolute(), facts, tasks, shape)
    for shard, part in zip(shards, mapper.map(compare, shards), strict=True):
        errors += part
        progress.advance(len(shard), note=shard[0].episode.facts["grape/task"])
    return ImageLoss(_decibels(float(np.mean(errors))), _decibels(max(errors)))


class _CompareEpisodes:
    """Compares episodes with what was written; files stay open from one shard to the next.

    Args:
        folder: The data set.
        facts: Content of its ``meta/info.json``.
        tasks: Number of each instruction.
        shape: What all episodes share.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], tasks: Mapping[str, int], shape: Shape) -> None:
        self._folder, self._facts, self._tasks, self._shape = folder, facts, tasks, shape
        self._stores = OpenedStores()
        self._reader: _Reader | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}

    def __call__(self, shard: Sequence[_Written]) -> list[float]:
        """Mean squared error of each image."""
        self._reader = self._reader or _Reader(self._folder, self._facts)
        errors: list[float] = []
        for written in shard:
            where = f"{self._folder}, episode {written.number}"
            numbers, images = read_episode(written.episode, self._shape, self._stores)
            row, steps, instruction = written.row, numbers.steps, numbers.meta.instruction
            expected = columns_of(
                numbers,
                self._shape,
                episode=written.number,
                first=written.first,
                task=self._tasks.get(instruction, -1),
            )
            ends = written.first, written.first + steps
            if (row["dataset_from_index"], row["dataset_to_index"], row["tasks"]) != (*ends, [instruction]):
                raise DataError(f"{where}: its row in {EPISODES_FILE} does not fit.", _FIX)
            _compare_numbers(self._reader.numbers(row), expected, where)
            errors += _compare_images(self._reader.images(row), images, row, self._shape, where)
        return errors


class _Reader:
    """Parts of the files that belong to an episode; files stay open where episodes are asked for in order."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._folder, self._facts = folder, facts
        self._data_path = Path()
        self._table: pa.Table | None = None
        self._table_first = 0
        self._video: Iterator[tuple[float, npt.NDArray[np.uint8]]] = iter(())
        self._video_end: tuple[Path, float] | None = None

    def numbers(self, row: Mapping[str, Any]) -> pa.Table:
        """The rows of an episode."""
        path = self._path("data_path", row, "data")
        if path != self._data_path or self._table is None:
            self._data_path, self._table = path, pq.read_table(path)
            self._table_first = self._table.column("index")[0].as_py()
        return self._table.slice(row["dataset_from_index"] - self._table_first, row["length"])

    def images(self, row: Mapping[str, Any]) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
        """The images from where the episode begins."""
        path, video = self._path("video_path", row, f"videos/{IMAGES}"), f"videos/{IMAGES}"
        begin = row[f"{video}/from_timestamp"]
        if self._video_end != (path, begin):
            self._video = read_video(path, begin)
        self._video_end = path, row[f"{video}/to_timestamp"]
        return self._video

    def _path(self, template: str, row: Mapping[str, Any], kind: str) -> Path:
        place = {"chunk_index": row[f"{kind}/chunk_index"], "file_index": row[f"{kind}/file_index"]}
        return self._folder / str(self._facts[template]).format(video_key=IMAGES, **place)


def _compare_numbers(table: pa.Table, expected: Mapping[str, npt.NDArray[Any]], where: str) -> None:
    if set(table.column_names) != set(expected):
        raise DataError(
            f"{where}: columns {sorted(set(table.column_names) ^ set(expected))} are missing or unknown.", _FIX
        )
    for name, values in expected.items():
        column = table.column(name).combine_chunks()
        back = (column.flatten() if values.ndim == 2 else column).to_numpy(zero_copy_only=False)
        if back.dtype != values.dtype or back.tobytes() != np.ascontiguousarray(values).tobytes():
            raise DataError(f"{where}: column '{name}' does not come back as it was written.", _FIX)


def _compare_images(
    decoded: Iterator[tuple[float, npt.NDArray[np.uint8]]],
    expected: npt.NDArray[np.uint8],
    row: Mapping[str, Any],
    shape: Shape,
    where: str,
) -> list[float]:
    """Mean squared error of each image."""
    errors = []
    for step, image in enumerate(expected):
        seconds, back = next(decoded, (math.nan, None))
        expected_seconds = row[f"videos/{IMAGES}/from_timestamp"] + step / shape.fps
        if back is None or back.shape != image.shape or not abs(seconds - expected_seconds) < _TOLERANCE:
            raise DataError(f"{where}: its video has no image of step {step} at {expected_seconds:.3f} s.", _FIX)
        errors.append(float(np.mean((back.astype(np.float32) - image) ** 2)))
    return errors


def _decibels(error: float) -> float:
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
