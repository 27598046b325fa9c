"""What a LeRobotDataset says of itself in ``meta/``: versions 2.0, 2.1 and 3.0, brought to one form and checked.

Sources: the documentation of huggingface/lerobot on both layouts, and the readers of its releases 0.3.3 (2.1) and
0.4.4 (3.0).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grape.core.errors import CompatibilityError, DataError
from grape.core.files import read_json_mapping
from grape.core.reading import allowed_root

__all__ = ["ACTION", "STATE", "VERSIONS", "CameraFeature", "Description", "is_lerobot_folder", "place_of", "read_info"]

VERSIONS = ("v2.0", "v2.1", "v3.0")
ACTION, STATE = "action", "observation.state"

_FIX = "Fetch the data set again; meta/info.json must be as LeRobot wrote it."
_MOST_NUMBERS = 4096  # of an action or a state
_LARGEST_SIDE = 16_384
_FASTEST = 10_000.0
_MOST_FEATURES = 1000
_CHANNELS = ("channel", "channels", "c")
_FIELD = re.compile(r"\{(\w+)(?::0?([1-9]))?d?\}")


@dataclass(frozen=True)
class CameraFeature:
    """Images of one camera.

    Attributes:
        key: Name of the feature, e.g. ``observation.images.wrist``.
        name: Its last part, e.g. ``wrist``.
        height: Pixels.
        width: Pixels.
        video: Whether they lie in videos; otherwise in the Parquet files.
    """

    key: str
    name: str
    height: int
    width: int
    video: bool


@dataclass(frozen=True)
class Description:
    """``meta/info.json``.

    Attributes:
        folder: The data set.
        version: Of the layout, e.g. ``v3.0``.
        fps: Rows a second.
        robot: Kind of robot; may be empty.
        episodes: How many there should be.
        frames: How many rows there should be.
        chunk_size: Episodes in a folder; of versions before 3.0.
        data_path: Template of the Parquet files' paths.
        video_path: Template of the videos' paths; empty where there are none.
        action_names: One name a dimension of the action.
        state_width: Numbers of robot state; 0 for none.
        cameras: Those whose images are RGB, in the order of the file.
        left_out: Features with images that are no RGB, e.g. depth.
        widths: Numbers a row of each feature that holds numbers.
    """

    folder: Path
    version: str
    fps: float
    robot: str
    episodes: int
    frames: int
    chunk_size: int
    data_path: str
    video_path: str
    action_names: tuple[str, ...]
    state_width: int
    cameras: tuple[CameraFeature, ...]
    left_out: tuple[str, ...] = ()
    widths: Mapping[str, int] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file, for messages."""
        return self.folder / "meta" / "info.json"


def is_lerobot_folder(folder: Path) -> bool:
    """Whether a folder looks like a LeRobotDataset."""
    return (folder / "meta" / "info.json").is_file()


def read_info(folder: Path) -> Description:
    """Read and check ``meta/info.json``.

    Raises:
        DataError: It is missing or damaged, or lacks what is needed.
        CompatibilityError: The data set is of an unknown version.
    """
    path = folder / "meta" / "info.json"
    if not folder.exists():
        raise DataError(f"{folder} does not exist.", "Check the path.")
    if not is_lerobot_folder(folder):
        raise DataError(
            f"{folder} is no LeRobotDataset: it has no file meta/info.json.",
            "Give the folder with meta/ and data/ in it; data sets of version 1 must be converted with LeRobot.",
        )
    info = read_json_mapping(path, hint=_FIX, within=allowed_root(folder))
    version = info.get("codebase_version")
    if version not in VERSIONS:
        newer = isinstance(version, str) and re.fullmatch(r"v?([3-9]|\d\d+)(\.\d+)*", version)
        raise CompatibilityError(
            f"{path} says codebase_version {version!r:.40}; {', '.join(VERSIONS)} are read here.",
            "Install a newer release of GRAPE." if newer else "Convert the data set with LeRobot's own converter.",
        )
    features = info.get("features")
    if not isinstance(features, dict) or not 0 < len(features) <= _MOST_FEATURES:
        raise DataError(f"{path} lists no features.", _FIX)
    widths = {name: width for name, spec in features.items() if (width := _width(path, name, spec))}
    if ACTION not in widths:
        raise DataError(f"{path} has no feature 'action' that holds numbers.", "Only data sets with actions are read.")
    cameras, left_out = _cameras(path, features)
    robot = info.get("robot_type")
    description = Description(
        folder=folder,
        version=version,
        fps=_rate(path, info.get("fps")),
        robot=robot if isinstance(robot, str) else "",
        episodes=_count(path, info, "total_episodes"),
        frames=_count(path, info, "total_frames"),
        chunk_size=_count(path, info, "chunks_size", least=1),
        data_path=_template(path, info, "data_path"),
        video_path=_template(path, info, "video_path") if any(camera.video for camera in cameras) else "",
        action_names=_names(features[ACTION], widths[ACTION]),
        state_width=widths.get(STATE, 0),
        cameras=cameras,
        left_out=left_out,
        widths=widths,
    )
    _check_video_rates(path, features, description)
    return description


def place_of(description: Description, template: str, values: Mapping[str, int | str]) -> Path:
    """The path that a template of ``meta/info.json`` gives, within the data set's folder.

    Raises:
        DataError: The template holds a field that is unknown, or the path leads out of the folder.
    """

    def value(match: "re.Match[str]") -> str:
        if match[1] not in values:
            raise DataError(f"{description.path}: path {template!r:.120} has the unknown field {match[1]!r}.", _FIX)
        return str(values[match[1]]).zfill(int(match[2] or 0))

    text = _FIELD.sub(value, template)
    parts = Path(text).parts
    if re.search(r"[{}\0]", text) or Path(text).is_absolute() or ".." in parts or not parts:
        raise DataError(f"{description.path}: path {template!r:.120} leads to no file of the data set.", _FIX)
    return description.folder / text


def _width(path: Path, name: str, spec: Any) -> int:
    """Numbers a row of a feature of numbers; 0 of others."""
    shape, kind = _spec(path, name, spec)
    if not re.fullmatch(r"float(16|32|64)|u?int(8|16|32|64)|bool", kind) or len(shape) > 1:
        return 0
    width = shape[0] if shape else 1
    if not 1 <= width <= _MOST_NUMBERS:
        raise DataError(f"{path}: feature {name!r:.60} has the shape {shape!r:.60}.", _FIX)
    return width


def _spec(path: Path, name: str, spec: Any) -> tuple[Sequence[int], str]:
    shape = spec.get("shape") if isinstance(spec, dict) else None
    kind = spec.get("dtype") if isinstance(spec, dict) else None
    if not isinstance(shape, list) or not all(type(side) is int for side in shape) or not isinstance(kind, str):
        raise DataError(f"{path}: feature {name!r:.60} has no sound shape and dtype.", _FIX)
    return shape, kind


def _cameras(path: Path, features: Mapping[str, Any]) -> tuple[tuple[CameraFeature, ...], tuple[str, ...]]:
    """Cameras, and names of other features with images."""
    cameras, left_out = [], []
    keys = [key for key, spec in features.items() if _spec(path, key, spec)[1] in ("image", "video")]
    tails = [key.removeprefix("observation.").removeprefix("images.") for key in keys]
    for key, tail in zip(keys, tails, strict=True):
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", key):
            raise DataError(f"{path}: {key!r:.60} is no name of a camera.", "Rename the feature.")
        shape, kind = _spec(path, key, features[key])
        size = _image_size(shape, features[key].get("names"))
        if size is None or _is_depth(features[key]):
            left_out.append(key)
            continue
        if not all(1 <= side <= _LARGEST_SIDE for side in size):
            raise DataError(f"{path}: feature {key!r} has images of {size[0]} x {size[1]} pixels.", _FIX)
        cameras.append(CameraFeature(key, tail if tails.count(tail) == 1 else key, *size, video=kind == "video"))
    return tuple(cameras), tuple(left_out)


def _image_size(shape: Sequence[int], names: Any) -> tuple[int, int] | None:
    """Height and width of RGB images whose shape is written as (H, W, 3) or (3, H, W); None for others."""
    if len(shape) != 3:
        return None
    place = -1
    if isinstance(names, list) and len(names) == 3:
        place = next((number for number, name in enumerate(names) if str(name).lower() in _CHANNELS), -1)
    if place == -1:
        place = 2 if shape[2] == 3 else 0
    if place == 1 or shape[place] != 3:
        return None
    return (shape[0], shape[1]) if place == 2 else (shape[1], shape[2])


def _facts(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a feature says of its video; version 2.0 called it otherwise."""
    facts = spec.get("info") or spec.get("video_info")
    return facts if isinstance(facts, dict) else {}


def _is_depth(spec: Mapping[str, Any]) -> bool:
    facts = _facts(spec)
    return bool(facts.get("video.is_depth_map") or facts.get("is_depth_map"))


def _check_video_rates(path: Path, features: Mapping[str, Any], description: Description) -> None:
    for camera in description.cameras:
        rate = _facts(features[camera.key]).get("video.fps")
        if camera.video and isinstance(rate, int | float) and abs(rate - description.fps) > 0.01 * description.fps:
            raise DataError(
                f"{path} says fps {description.fps:g}, but its feature {camera.key!r} has videos of {rate:g} images a "
                "second.",
                "Correct the wrong one of the two.",
            )


def _rate(path: Path, fps: Any) -> float:
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= _FASTEST or not math.isfinite(fps):
        raise DataError(f"{path} says fps {fps!r:.40}, no number of rows a second.", _FIX)
    return float(fps)


def _count(path: Path, info: Mapping[str, Any], name: str, least: int = 0) -> int:
    value = info.get(name)
    if type(value) is not int or not least <= value < 2**40:
        raise DataError(f"{path} says {name} {value!r:.40}.", _FIX)
    return value


def _template(path: Path, info: Mapping[str, Any], name: str) -> str:
    value = info.get(name)
    if not isinstance(value, str) or not 0 < len(value) < 1000:
        raise DataError(f"{path} has no {name}.", _FIX)
    return value


def _names(spec: Mapping[str, Any], width: int) -> tuple[str, ...]:
    """Names of the action's dimensions: a list, or a list in a mapping; numbered where there is none that fits."""
    names = spec.get("names")
    if isinstance(names, dict):
        names = next(iter(names.values()), None)
    if isinstance(names, list) and len(names) == width and all(isinstance(name, str) for name in names):
        return tuple(names)
    return tuple(f"action_{index}" for index in range(width))
