"""The YAML file that says which recordings there are and what they mean; ``docs/perception.md`` describes it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from grape.core.cameras import Camera, camera_from_dict
from grape.core.errors import DataError, SettingsError
from grape.core.files import file_hash, read_yaml_mapping
from grape.core.settings import settings_from_dict
from grape.store.opening import check_links

__all__ = ["EpisodeList", "LogFormat", "VideoEpisode", "read_camera", "read_episode_list"]

VERSION = 1
MOST_BYTES = 4_000_000
MAX_RECORDING_BYTES = 16 * 2**30
"""Of a video or an array of depth."""

LENGTHS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@dataclass(frozen=True)
class LogFormat:
    """What the numbers of the robot logs mean.

    Attributes:
        time: ComparisonItem of time: s, ms, us or ns.
        length: ComparisonItem of the gripper's position: m, cm or mm.
        angle: ComparisonItem of a rotation vector: rad or deg.
        columns: Names of the log's columns by ours (time, x, y, z, qw, qx, qy, qz, rx, ry, rz, gripper), where they
            differ.
        gripper: The log's gripper numbers for closed and for open.
        actions: Columns of the action in order, e.g. dx, dy, dz, droll, dpitch, dyaw, grip; none if empty.
        signals: Further columns to keep as signals, e.g. force.
    """

    time: Literal["s", "ms", "us", "ns"] = "s"
    length: Literal["m", "cm", "mm"] = "m"
    angle: Literal["rad", "deg"] = "rad"
    columns: Mapping[str, str] = field(default_factory=dict)
    gripper: tuple[float, float] = (0.0, 1.0)
    actions: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Defaults:
    """Fields of the list that hold for every episode unless it says otherwise."""

    task: str = ""
    instruction: str = ""
    initial_state: int | None = None
    outcome: str = ""
    solved_at: float | None = None
    video: str = ""
    depth: str = ""
    depth_unit: float = 0.001
    camera: str = ""
    log: str = ""
    offset: float = 0.0
    operator: str = ""


@dataclass(frozen=True)
class _File(_Defaults):
    """The whole file."""

    version: int = 0
    suite: str = "video"
    robot_log: LogFormat = field(default_factory=LogFormat)
    episodes: tuple[_Defaults, ...] = ()


@dataclass(frozen=True)
class VideoEpisode:
    """One recording.

    Attributes:
        task: Name of the task.
        instruction: The task in words.
        initial_state: Number of the arrangement it began from; only episodes that share it are paired.
        success: Whether the task was solved.
        solved_at: Time of the log at which it was solved, in the log's unit; None where not known.
        video: The color video.
        depth: Depth: a folder of 16-bit PNG files, a .npy array, or a video of 16-bit gray; None if there is none.
        depth_unit: Meters a level of the depth; arrays of floating-point numbers are meters times this as well.
        camera: The camera, of the video's size; None if not given.
        log: The robot's log.
        offset: Seconds to add to the video's time to get the log's.
        operator: Who or what acted, for people.
        where: Which episode of which file, for messages.
    """

    task: str
    instruction: str
    initial_state: int
    success: bool
    solved_at: float | None
    video: Path
    depth: Path | None
    depth_unit: float
    camera: Camera | None
    log: Path
    offset: float
    operator: str
    where: str


@dataclass(frozen=True)
class EpisodeList:
    """What an episode list holds.

    Attributes:
        path: The file.
        suite: Name that the store's episodes get as their suite.
        format: Meaning of the logs.
        episodes: In the file's order.
    """

    path: Path
    suite: str
    format: LogFormat
    episodes: tuple[VideoEpisode, ...]

    def digests(self) -> dict[str, str]:
        """Hash of every file that the list speaks of, and of the list itself, by path seen from the list."""
        paths = {self.path}
        for episode in self.episodes:
            paths |= {episode.video, episode.log}
            if episode.depth is not None:
                paths |= set(episode.depth.glob("*.png")) if episode.depth.is_dir() else {episode.depth}
        folder = self.path.parent.resolve()
        return {_seen_from(folder, path): file_hash(path, MAX_RECORDING_BYTES) for path in sorted(paths)}


def read_episode_list(path: Path) -> EpisodeList:
    """Read an episode list; paths in it are seen from its folder.

    Raises:
        DataError: The list or a file of it is missing, or says something that cannot be used; the episode is named.
    """
    data = read_yaml_mapping(path, MOST_BYTES)
    try:
        file = settings_from_dict(_File, data)
    except SettingsError as error:
        raise DataError(f"{path}: {error.message}", error.hint or "docs/perception.md describes the file.") from error
    if file.version != VERSION:
        raise DataError(f"{path}: version is {file.version}; {VERSION} is known here.", "Write 'version: 1'.")
    if not file.episodes:
        raise DataError(f"{path} lists no episodes.", "Add an entry under 'episodes'.")
    cameras: dict[Path, Camera] = {}
    given = {item.name for item in dataclasses.fields(_Defaults)}
    episodes = []
    for number, own in enumerate(data["episodes"], start=1):
        merged = {key: data[key] for key in given if key in data} | dict(own)
        episode = settings_from_dict(_Defaults, merged)
        episodes.append(_episode(path, f"{path}, episode {number}", episode, cameras))
    return EpisodeList(path, file.suite, file.robot_log, tuple(episodes))


def read_camera(path: Path) -> Camera:
    """Camera from a YAML or JSON file.

    Besides ``size``, ``intrinsic`` and ``pose`` it may say ``pixel_origin``: ``center`` (the default), where the center
    of the first pixel is at 0, 0, as OpenCV calibrates, or ``corner``, where it is at 0.5, 0.5.

    Raises:
        DataError: The file is missing or holds no pinhole camera without distortion.
    """
    data = read_yaml_mapping(path, MOST_BYTES)
    distortion = data.pop("distortion", None)
    if distortion is not None and any(float(value) != 0.0 for value in distortion):
        raise DataError(
            f"{path}: the camera has lens distortion, which is not undone here.",
            "Rectify the video (and depth) first, give the rectified intrinsic, and leave out distortion.",
        )
    origin = data.pop("pixel_origin", "center")
    if origin not in ("center", "centre", "corner"):
        raise DataError(f"{path}: pixel_origin is {origin!r}.", "Write center (as OpenCV) or corner.")
    camera = camera_from_dict(data, str(path))
    if origin == "corner":
        return camera
    shifted = camera.intrinsic.copy()
    shifted[:2, 2] += 0.5
    return dataclasses.replace(camera, intrinsic=shifted)


def _episode(path: Path, where: str, given: _Defaults, cameras: dict[Path, Camera]) -> VideoEpisode:
    for name in ("task", "instruction", "outcome", "video", "log"):
        if not getattr(given, name).strip():
            raise DataError(f"{where} lacks {name}.", "Give it in the episode, or at the top of the file for all.")
    if given.initial_state is None or given.initial_state < 0:
        raise DataError(
            f"{where} lacks initial_state.",
            "Number the arrangements that episodes began from (0, 1, ...): only episodes of the same one are paired.",
        )
    if given.outcome not in ("success", "failure"):
        raise DataError(f"{where}: outcome is {given.outcome!r}.", "Write success or failure.")
    if not given.depth_unit > 0:
        raise DataError(f"{where}: depth_unit is {given.depth_unit}.", "Give meters a level, e.g. 0.001.")
    folder = path.parent
    depth = folder / given.depth if given.depth else None
    for file in (folder / given.video, folder / given.log, *([depth] if depth else [])):
        if not file.exists():
            raise DataError(f"{where}: {file} does not exist.", "Paths are seen from the list's folder.")
        check_links(file, folder)
    camera = None
    if given.camera:
        file = folder / given.camera
        check_links(file, folder)
        if file not in cameras:
            cameras[file] = read_camera(file)
        camera = cameras[file]
    return VideoEpisode(
        task=given.task.strip(),
        instruction=given.instruction.strip(),
        initial_state=given.initial_state,
        success=given.outcome == "success",
        solved_at=given.solved_at,
        video=folder / given.video,
        depth=depth,
        depth_unit=given.depth_unit,
        camera=camera,
        log=folder / given.log,
        offset=given.offset,
        operator=given.operator,
        where=where,
    )


def _seen_from(folder: Path, path: Path) -> str:
    resolved = path.resolve()
    return resolved.relative_to(folder).as_posix() if resolved.is_relative_to(folder) else str(resolved)
