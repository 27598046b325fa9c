"""Comparison of a written LeRobotDataset with its source, read by its own metadata as a reader does."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from grape.core.errors import DataError
from grape.core.files import read_json
from grape.store.h264 import load_av
from grape.store.lerobot.layout import EPISODES_FILE, IMAGES, Shape, columns_of
from grape.store.lerobot.writer import ExportEpisode

__all__ = ["ImageLoss", "compare_dataset", "read_video"]


def read_video(path: Path) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """Seconds and pixels, uint8 ``(H, W, 3)``, of each image of a file.

    Raises:
        DataError: The file cannot be read as a video.
    """
    av = load_av("lerobot")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                yield float(frame.pts * frame.time_base), frame.to_ndarray(format="rgb24")
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


def compare_dataset(folder: Path, episodes: Iterable[ExportEpisode], shape: Shape) -> ImageLoss:
    """Read a data set back: every number must be the same bit for bit, every image in its place.

    Args:
        folder: The data set.
        episodes: What was written, in order.
        shape: What all of them share.

    Raises:
        DataError: Something differs, is missing or cannot be read.
    """
    facts = read_json(folder / "meta" / "info.json")
    rows = pq.read_table(folder / EPISODES_FILE).to_pylist()
    names = pq.read_table(folder / "meta" / "tasks.parquet").to_pydict()
    tasks = dict(zip(names["task"], names["task_index"], strict=True))
    reader = _Reader(folder, facts)
    errors: list[float] = []
    first = number = 0
    for number, episode in enumerate(episodes, start=1):
        where = f"{folder}, episode {number - 1}"
        steps, meta = episode.trajectory.steps, episode.trajectory.meta
        if number > len(rows):
            raise DataError(f"{where} did not come back.", _FIX)
        row = rows[number - 1]
        expected_columns = columns_of(
            episode.trajectory,
            shape,
            actions=episode.actions,
            episode=number - 1,
            first=first,
            task=tasks.get(meta.instruction, -1),
        )
        first += steps
        if (row["length"], row["dataset_to_index"], row["tasks"]) != (steps, first, [meta.instruction]):
            raise DataError(f"{where}: its row in {EPISODES_FILE} does not fit.", _FIX)
        _compare_numbers(reader.numbers(row), expected_columns, where)
        images = episode.trajectory.each_state(episode.trajectory.frames)[:steps]
        errors += _compare_images(reader.images(row), images, row, shape, where)
    if (number, number, first) != (len(rows), facts["total_episodes"], facts["total_frames"]):
        raise DataError(f"{folder}: {len(rows)} episodes came back, {number} were written.", _FIX)
    return ImageLoss(_decibels(float(np.mean(errors))), _decibels(max(errors)))


class _Reader:
    """Parts of the files that belong to an episode; episodes are asked for in order."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._folder, self._facts = folder, facts
        self._data_path, self._video_path = Path(), Path()
        self._table: pa.Table | None = None
        self._table_first = 0
        self._video: Iterator[tuple[float, npt.NDArray[np.uint8]]] = iter(())

    def numbers(self, row: Mapping[str, Any]) -> pa.Table:
        """The rows of an episode."""
        path = self._path("data_path", row, "data")
        if path != self._data_path or self._table is None:
            self._data_path, self._table, self._table_first = path, pq.read_table(path), row["dataset_from_index"]
        return self._table.slice(row["dataset_from_index"] - self._table_first, row["length"])

    def images(self, row: Mapping[str, Any]) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
        """The images from where the last episode's ended."""
        path = self._path("video_path", row, f"videos/{IMAGES}")
        if path != self._video_path:
            self._video_path, self._video = path, read_video(path)
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
