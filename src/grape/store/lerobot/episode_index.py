"""Where each episode of a LeRobotDataset lies, and the texts of its tasks: the tables in ``meta/``, checked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from grape.core.errors import DataError
from grape.core.files import read_jsonl
from grape.core.reading import allowed_root
from grape.store.lerobot.description import CameraFeature, Description, place_of
from grape.store.opening import MIB, check_links
from grape.store.table_files import parquet_columns, read_rows

__all__ = ["EpisodeEntry", "VideoPart", "episode_files", "read_episodes", "read_tasks"]

_FIX = "Fetch the data set again; its tables in meta/ must be as LeRobot wrote them."
_MOST_TABLE_BYTES = 512 * MIB
_MOST_EPISODES = 1_000_000
_MOST_TASKS = 1_000_000
_LONGEST_TASK = 10_000
_OWN = "grape/"  # columns that `grape export lerobot` adds
_TASK_COLUMNS = ("task", "__index_level_0__")  # pandas' index, with its name or without


@dataclass(frozen=True)
class VideoPart:
    """Where the images of one camera lie.

    Attributes:
        path: The video.
        start: Seconds of the episode's first image in it.
    """

    path: Path
    start: float


@dataclass(frozen=True)
class EpisodeEntry:
    """One episode.

    Attributes:
        index: Its number.
        length: Its rows.
        data: The Parquet file with its rows.
        first_row: Number of its first row in this file.
        videos: By the camera's key.
        facts: What ``grape export lerobot`` noted of it, by column name without its prefix.
    """

    index: int
    length: int
    data: Path
    first_row: int
    videos: Mapping[str, VideoPart]
    facts: Mapping[str, Any] = field(default_factory=dict)


def episode_files(description: Description) -> tuple[Path, ...]:
    """The files in ``meta/`` that list episodes and tasks.

    Raises:
        DataError: There are none.
    """
    meta = description.folder / "meta"
    if description.version != "v3.0":
        return meta / "episodes.jsonl", meta / "tasks.jsonl"
    files = sorted((meta / "episodes").glob("*/*.parquet"))
    if not files:
        raise DataError(f"{meta / 'episodes'} holds no Parquet file.", _FIX)
    return *files, meta / "tasks.parquet"


def read_episodes(description: Description) -> tuple[EpisodeEntry, ...]:
    """All episodes in order.

    Raises:
        DataError: A table is missing, damaged or contradicts ``meta/info.json``.
    """
    cameras = [camera for camera in description.cameras if camera.video]
    entries = _of_version_3(description, cameras) if description.version == "v3.0" else _of_version_2(description)
    entries.sort(key=lambda entry: entry.index)
    where = description.folder / "meta"
    if [entry.index for entry in entries] != list(range(len(entries))):
        raise DataError(f"The episodes in {where} are not numbered 0, 1, 2, ... without repeats.", _FIX)
    frames = sum(entry.length for entry in entries)
    if (len(entries), frames) != (description.episodes, description.frames):
        raise DataError(
            f"{description.path} says {description.episodes} episodes of {description.frames} rows; the tables beside "
            f"it list {len(entries)} of {frames}.",
            _FIX,
        )
    return tuple(entries)


def read_tasks(description: Description) -> Mapping[int, str]:
    """Text of each task by its number.

    Raises:
        DataError: The table is missing or damaged.
    """
    path = episode_files(description)[-1]
    if description.version == "v3.0":
        within = description.folder
        names = parquet_columns(path, within)
        column = next((name for name in _TASK_COLUMNS if name in names), _TASK_COLUMNS[0])
        table = read_rows(path, within, ["task_index", column])
        rows = list(zip(table["task_index"].to_pylist(), table[column].to_pylist(), strict=True))
    else:
        rows = [(_item(row, "task_index", path), _item(row, "task", path)) for row in _lines(path, description)]
    if len(rows) > _MOST_TASKS:
        raise DataError(f"{path} lists {len(rows):,} tasks; at most {_MOST_TASKS:,} are read.", _FIX)
    tasks: dict[int, str] = {}
    for number, text in rows:
        if type(number) is not int or not isinstance(text, str) or len(text) > _LONGEST_TASK or number in tasks:
            raise DataError(f"{path}: task {number!r:.40} is no text of its own: {text!r:.60}.", _FIX)
        tasks[number] = " ".join(text.split())
    return tasks


def _of_version_2(description: Description) -> list[EpisodeEntry]:
    path = episode_files(description)[0]
    entries = []
    for row in _lines(path, description):
        index, length = (_number(_item(row, name, path), name, path) for name in ("episode_index", "length"))
        values: dict[str, int | str] = {"episode_chunk": index // description.chunk_size, "episode_index": index}
        videos = {
            camera.key: VideoPart(place_of(description, description.video_path, values | {"video_key": camera.key}), 0)
            for camera in description.cameras
            if camera.video
        }
        data = place_of(description, description.data_path, values)
        entries.append(EpisodeEntry(index, length, data, 0, videos))
    return entries


def _of_version_3(description: Description, cameras: Sequence[CameraFeature]) -> list[EpisodeEntry]:
    rows = [row for path in episode_files(description)[:-1] for row in _table(path, description, cameras)]
    if len(rows) > _MOST_EPISODES:
        raise DataError(f"{description.folder / 'meta'} lists {len(rows):,} episodes.", _FIX)
    starts: dict[tuple[int, int], int] = {}
    for row in rows:
        key = (row["data/chunk_index"], row["data/file_index"])
        starts[key] = min(starts.get(key, row["dataset_from_index"]), row["dataset_from_index"])
    entries = []
    for row in rows:
        chunk, file = row["data/chunk_index"], row["data/file_index"]
        first = row["dataset_from_index"]
        if row["dataset_to_index"] - first != row["length"]:
            raise DataError(
                f"{description.folder / 'meta' / 'episodes'}: episode {row['episode_index']} has {row['length']} rows, "
                f"but spans rows {first} to {row['dataset_to_index']}.",
                _FIX,
            )
        videos = {}
        for camera in cameras:
            prefix = f"videos/{camera.key}/"
            values: dict[str, int | str] = {
                "video_key": camera.key,
                **{name: row[prefix + name] for name in ("chunk_index", "file_index")},
            }
            start = row[prefix + "from_timestamp"]
            videos[camera.key] = VideoPart(place_of(description, description.video_path, values), start)
        entries.append(
            EpisodeEntry(
                index=row["episode_index"],
                length=row["length"],
                data=place_of(description, description.data_path, {"chunk_index": chunk, "file_index": file}),
                first_row=first - starts[chunk, file],
                videos=videos,
                facts={name.removeprefix(_OWN): value for name, value in row.items() if name.startswith(_OWN)},
            )
        )
    return entries


def _table(path: Path, description: Description, cameras: Sequence[CameraFeature]) -> list[dict[str, Any]]:
    """Rows of one table of episodes with checked numbers; statistics and the like are not read."""
    whole = ["episode_index", "length", "dataset_from_index", "dataset_to_index"]
    whole += ["data/chunk_index", "data/file_index"]
    times = []
    for camera in cameras:
        whole += [f"videos/{camera.key}/chunk_index", f"videos/{camera.key}/file_index"]
        times.append(f"videos/{camera.key}/from_timestamp")
    names = parquet_columns(path, description.folder)
    own = [name for name in names if name.startswith(_OWN)]
    table: dict[str, pa.ChunkedArray] = read_rows(path, description.folder, [*whole, *times, *own])
    columns = {name: column.to_pylist() for name, column in table.items()}
    for name in whole:
        for value in columns[name]:
            _number(value, name, path)
    for name in times:
        if not all(isinstance(value, float | int) and 0 <= value < math.inf for value in columns[name]):
            raise DataError(f"{path}: column {name!r} does not hold seconds in every row.", _FIX)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _lines(path: Path, description: Description) -> list[Any]:
    check_links(path, description.folder)
    rows = read_jsonl(
        path,
        hint=_FIX,
        max_bytes=_MOST_TABLE_BYTES,
        allow_nonfinite=True,  # older releases kept statistics here
        within=allowed_root(description.folder),
    )
    if len(rows) > _MOST_EPISODES:
        raise DataError(f"{path} has {len(rows):,} lines; at most {_MOST_EPISODES:,} are read.", _FIX)
    return rows


def _item(row: Any, name: str, path: Path) -> Any:
    if not isinstance(row, dict) or name not in row:
        raise DataError(f"{path} has a line without {name!r}: {row!r:.80}.", _FIX)
    return row[name]


def _number(value: Any, name: str, path: Path) -> int:
    if type(value) is not int or not 0 <= value < 2**40:
        raise DataError(f"{path}: {name} is {value!r:.40}, no number from 0 on.", _FIX)
    return value
