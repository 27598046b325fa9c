"""Reading a LeRobotDataset: numbers of an episode, and its images when they are asked for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.core.files import content_hash, file_hash
from grape.store.frames import MAX_EPISODE_BYTES
from grape.store.lerobot.description import ACTION, STATE, CameraFeature, read_info
from grape.store.lerobot.episode_index import EpisodeEntry, episode_files, read_episodes, read_tasks
from grape.store.lerobot.parquet_files import bytes_column, number_column
from grape.store.opening import check_links, open_data
from grape.store.rlds.images import EncodedImages
from grape.store.table_files import parquet_size, read_rows
from grape.store.video.decoding import images_at
from grape.store.video.episode_list import MAX_RECORDING_BYTES

__all__ = ["TOLERANCE", "EpisodeNumbers", "LeRobotDataset"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

TOLERANCE = 1e-4
"""Seconds by which LeRobot's readers let times differ."""

_OTHER_RATE = 0.02  # share by which the usual distance of rows may differ from what fps says
_FIX = "Fetch the data set again, or leave the episode out of it."


@dataclass(frozen=True, eq=False)
class EpisodeNumbers:
    """All of an episode but its images.

    Attributes:
        actions: Float32 ``(T, D)``.
        state: Robot state before each action, float32 ``(T, P)``; ``P`` is 0 where none was recorded.
        time: Seconds since the episode began, ``(T,)``.
        tasks: Text of the task at each row.
        further: Other features that were asked for, ``(T,)``.
    """

    actions: Float32
    state: Float32
    time: Float64
    tasks: tuple[str, ...]
    further: Mapping[str, Float64]


class LeRobotDataset:
    """A LeRobotDataset of version 2.0, 2.1 or 3.0 in a folder. At any time one episode is in memory.

    Args:
        folder: The folder with ``meta/`` and ``data/``.
        tolerance: Seconds by which times may be off, see :data:`TOLERANCE`.

    Attributes:
        folder: The folder.
        description: ``meta/info.json``.

    Raises:
        DataError: There is no data set, or its description is damaged.
        CompatibilityError: It is of an unknown version.
    """

    def __init__(self, folder: Path, tolerance: float = TOLERANCE) -> None:
        self.folder = folder
        self.description = read_info(folder)
        self._tolerance = tolerance

    @cached_property
    def episodes(self) -> tuple[EpisodeEntry, ...]:
        """All episodes in order.

        Raises:
            DataError: The tables in ``meta/`` are missing, damaged or contradict one another.
        """
        return read_episodes(self.description)

    @cached_property
    def tasks(self) -> Mapping[int, str]:
        """Text of each task by its number; errors as :attr:`episodes`."""
        return read_tasks(self.description)

    def numbers(self, episode: EpisodeEntry, further: Sequence[str] = ()) -> EpisodeNumbers:
        """Actions, states and times of an episode, checked.

        Args:
            episode: Which one.
            further: Names of further features with one number a row.

        Raises:
            DataError: The file is missing, truncated or damaged, holds other rows, or values that cannot be used.
        """
        facts = self.description
        widths = {ACTION: len(facts.action_names), "timestamp": 1}
        widths |= dict.fromkeys(("frame_index", "episode_index", "task_index", *further), 1)
        if facts.state_width:
            widths[STATE] = facts.state_width
        where = self._where(episode)
        if facts.version != "v3.0" and (count := parquet_size(episode.data, self.folder)) != episode.length:
            raise DataError(f"{where} has {count} rows; meta/episodes.jsonl says {episode.length}.", _FIX)
        rows = read_rows(episode.data, self.folder, list(widths), episode.first_row, episode.length)
        values = {name: number_column(rows[name], width, f"{where}, column {name!r}") for name, width in widths.items()}
        for name in (ACTION, STATE):
            if name in values and not np.isfinite(values[name]).all():
                row, number = np.argwhere(~np.isfinite(values[name]))[0]
                raise DataError(f"{where}: number {number} of {name!r} at row {row} is not finite.", _FIX)
        flat = {name: value[:, 0] for name, value in values.items() if name not in (ACTION, STATE)}
        self._check_order(episode, flat)
        self._check_times(episode, flat["timestamp"])
        numbered = flat["task_index"]
        if unknown := sorted({float(number) for number in numbered} - {float(number) for number in self.tasks}):
            raise DataError(f"{where}: task {unknown[0]:g} is not in {episode_files(facts)[-1]}.", _FIX)
        state = values[STATE] if facts.state_width else np.zeros((episode.length, 0))
        return EpisodeNumbers(
            actions=values[ACTION].astype(np.float32),
            state=state.astype(np.float32),
            time=flat["timestamp"],
            tasks=tuple(self.tasks[int(number)] for number in numbered),
            further={name: flat[name] for name in further},
        )

    def images(
        self, episode: EpisodeEntry, camera: CameraFeature, time: Float64, rows: Sequence[int]
    ) -> npt.NDArray[np.uint8]:
        """Images of some rows of an episode in that order, uint8 ``(N, H, W, 3)``; of the others as few as possible.

        Args:
            episode: Which one.
            camera: Whose images.
            time: See :class:`EpisodeNumbers`.
            rows: Numbers of rows.

        Raises:
            DataError: A file is missing or damaged, has no image near enough to a row's time, or one of another size;
                or so many images do not fit into memory.
            SettingsError: PyAV is not installed.
        """
        needed = sorted(set(rows))
        shape = (len(needed), camera.height, camera.width, 3)
        if np.prod(shape, dtype=np.float64) > MAX_EPISODE_BYTES:
            raise DataError(
                f"{self._where(episode)}: {len(needed)} images of {camera.height} x {camera.width} pixels are more "
                "than an episode may hold.",
                "Write the data set with smaller images or shorter episodes.",
            )
        images = np.empty(shape, dtype=np.uint8)
        decoded = self._video_images if camera.video else self._stored_images
        for place, image in enumerate(decoded(episode, camera, time, needed)):
            if image.shape != shape[1:]:
                raise DataError(
                    f"{self._where(episode)}: camera {camera.key!r} has images of {image.shape[0]} x {image.shape[1]} "
                    f"pixels, {self.description.path} says {camera.height} x {camera.width}.",
                    _FIX,
                )
            images[place] = image
        order: npt.NDArray[np.uint8] = images if list(rows) == needed else images[np.searchsorted(needed, rows)]
        return order

    def digest(self) -> str:
        """Hash of the description and the tables, which say what is in all other files, and of those files' sizes."""
        tables = [file_hash(path) for path in (self.description.path, *episode_files(self.description))]
        files = {entry.data for entry in self.episodes}
        files |= {part.path for entry in self.episodes for part in entry.videos.values()}
        sizes = {str(path.relative_to(self.folder)): path.stat().st_size for path in sorted(files) if path.is_file()}
        return content_hash([tables, sizes])

    def check_files(self) -> None:
        """Refuse a data set of which a file is missing; nothing is read.

        Raises:
            DataError: One is; it is named.
        """
        for episode in self.episodes:
            for path in (episode.data, *(part.path for part in episode.videos.values())):
                check_links(path, self.folder)
                if not path.is_file():
                    raise DataError(
                        f"{path}, with what episode {episode.index} recorded, does not exist.",
                        "Fetch the data set again, with its videos: a download without large files leaves them out.",
                    )

    def _where(self, episode: EpisodeEntry) -> str:
        return f"{episode.data}, episode {episode.index}"

    def _check_order(self, episode: EpisodeEntry, flat: Mapping[str, Float64]) -> None:
        for name, expected in (("episode_index", episode.index), ("frame_index", np.arange(episode.length))):
            wrong = np.flatnonzero(flat[name] != expected)
            if len(wrong):
                raise DataError(
                    f"{self._where(episode)}: row {wrong[0]} of it has {name} {flat[name][wrong[0]]:g}; the file does "
                    "not fit the tables in meta/.",
                    _FIX,
                )

    def _check_times(self, episode: EpisodeEntry, time: Float64) -> None:
        """Rows must be as far apart as ``fps`` says, as LeRobot's own check has it."""
        if not np.isfinite(time).all() or (len(time) and time[0] < 0):
            raise DataError(f"{self._where(episode)}: some timestamps are no seconds from 0 on.", _FIX)
        fps, steps = self.description.fps, np.diff(time)
        rounding = np.spacing(np.abs(time[1:]).astype(np.float32)).astype(np.float64)
        wrong = np.flatnonzero(np.abs(steps - 1 / fps) > self._tolerance + rounding)
        if not len(wrong):
            return
        usual = float(np.median(steps))
        if usual <= 0 or abs(usual * fps - 1) > _OTHER_RATE:
            rate = f"{1 / usual:.4g} rows a second" if usual > 0 else "time that does not go on"
            raise DataError(
                f"{self._where(episode)}: its timestamps are those of {rate}, where {self.description.path} says fps "
                f"{fps:g}.",
                "Correct the wrong one of the two.",
            )
        row = int(wrong[0])
        raise DataError(
            f"{self._where(episode)}: between rows {row} and {row + 1} {steps[row]:.6g} s go by, where {1 / fps:.6g} s "
            f"are due and {self._tolerance:g} s are tolerated ({len(wrong)} such places).",
            "If the times are only inexact, raise the tolerance; else leave the episode out.",
        )

    def _video_images(
        self, episode: EpisodeEntry, camera: CameraFeature, time: Float64, rows: Sequence[int]
    ) -> Iterator[npt.NDArray[np.uint8]]:
        part = episode.videos[camera.key]
        open_data(part.path, within=self.folder, max_bytes=MAX_RECORDING_BYTES).close()
        moments = [part.start + float(time[row]) for row in rows]
        rounding = float(np.spacing(np.float32(max(moments, default=0))))
        return images_at(part.path, moments, self._tolerance + rounding, "lerobot")

    def _stored_images(
        self, episode: EpisodeEntry, camera: CameraFeature, time: Float64, rows: Sequence[int]
    ) -> Iterator[npt.NDArray[np.uint8]]:
        where = f"{self._where(episode)}, column {camera.key!r}"
        first, last = rows[0], rows[-1]
        column = read_rows(episode.data, self.folder, [camera.key], episode.first_row + first, last - first + 1)
        blobs = bytes_column(column[camera.key], where)
        encoded = EncodedImages(blobs, (camera.height, camera.width, 3), where, "meta/info.json")
        return (encoded[row - first] for row in rows)
