"""Names, paths and columns of LeRobotDataset v3.0, as its documentation and its reader have them.

Source: "LeRobotDataset v3.0" in the documentation of huggingface/lerobot, and the reader of its releases 0.4 and 0.6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.trajectories import EpisodeMeta

__all__ = [
    "ACTION",
    "EPISODES_FILE",
    "IMAGES",
    "STATE",
    "Columns",
    "EpisodeNumbers",
    "Shape",
    "chunk_and_file",
    "columns_of",
]

ACTION, STATE, IMAGES = "action", "observation.state", "observation.images.image"

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_FILE = "meta/episodes/chunk-000/file-000.parquet"
FILES_A_CHUNK = 1000
DATA_MB, VIDEO_MB = 100, 200

Columns = dict[str, npt.NDArray[Any]]
"""One array a column, a row a step."""


@dataclass(frozen=True, eq=False)
class EpisodeNumbers:
    """What is exported of an episode, its images apart.

    Attributes:
        meta: Its facts.
        actions: Executed actions or labels, float32 ``(T, D)``, in the suite's own convention.
        proprio: Robot state before each action, float32 ``(T, P)``.
    """

    meta: EpisodeMeta
    actions: npt.NDArray[np.float32]
    proprio: npt.NDArray[np.float32]

    @property
    def steps(self) -> int:
        """Control steps ``T``."""
        return len(self.actions)


@dataclass(frozen=True)
class Shape:
    """Shapes and rates that all episodes of a data set share.

    Attributes:
        height: Of the images, pixels.
        width: Of the images, pixels.
        state: Numbers of robot state; 0 leaves the column out.
        action_names: One name a dimension of the action.
        fps: Steps a second.
    """

    height: int
    width: int
    state: int
    action_names: tuple[str, ...]
    fps: int

    def features(self) -> dict[str, Any]:
        """The entry ``features`` of ``meta/info.json``."""
        image = {
            "dtype": "video",
            "shape": [self.height, self.width, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": self.height,
                "video.width": self.width,
                "video.codec": "h264",
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "is_depth_map": False,
                "video.fps": self.fps,
                "video.channels": 3,
                "has_audio": False,
            },
        }
        state = (
            {STATE: _numbers("float32", self.state, [f"state_{i}" for i in range(self.state)])} if self.state else {}
        )
        return {
            IMAGES: image,
            **state,
            ACTION: _numbers("float32", len(self.action_names), list(self.action_names)),
            "next.reward": _numbers("float32"),
            "next.done": _numbers("bool"),
            "next.success": _numbers("bool"),
            "timestamp": _numbers("float32"),
            "frame_index": _numbers("int64"),
            "episode_index": _numbers("int64"),
            "index": _numbers("int64"),
            "task_index": _numbers("int64"),
        }


def _numbers(dtype: str, count: int = 1, names: Sequence[str] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [count], "names": names}


def columns_of(numbers: EpisodeNumbers, shape: Shape, *, episode: int, first: int, task: int) -> Columns:
    """The rows of an episode, images apart.

    Args:
        numbers: What is exported of the episode.
        shape: What all episodes share.
        episode: Number of the episode.
        first: Number of its first row in the data set.
        task: Number of its instruction.
    """
    steps = numbers.steps
    count = np.arange(steps, dtype=np.int64)
    last = count == steps - 1
    solved = last & (numbers.meta.success is True)
    columns: Columns = {
        ACTION: numbers.actions,
        "next.reward": solved.astype(np.float32),
        "next.done": last,
        "next.success": solved,
        "timestamp": (count / shape.fps).astype(np.float32),
        "frame_index": count,
        "episode_index": np.full(steps, episode, dtype=np.int64),
        "index": first + count,
        "task_index": np.full(steps, task, dtype=np.int64),
    }
    return {STATE: numbers.proprio, **columns} if shape.state else columns


def chunk_and_file(number: int) -> tuple[int, int]:
    """Chunk and place within it of the file with this number."""
    return number // FILES_A_CHUNK, number % FILES_A_CHUNK


def info(shape: Shape, robot: str, totals: Mapping[str, int]) -> dict[str, Any]:
    """Content of ``meta/info.json``.

    Args:
        shape: What all episodes share.
        robot: Name of the suite.
        totals: Numbers of ``episodes``, ``frames`` and ``tasks``.
    """
    return {
        "codebase_version": "v3.0",
        "robot_type": robot,
        "total_episodes": totals["episodes"],
        "total_frames": totals["frames"],
        "total_tasks": totals["tasks"],
        "chunks_size": FILES_A_CHUNK,
        "data_files_size_in_mb": DATA_MB,
        "video_files_size_in_mb": VIDEO_MB,
        "fps": shape.fps,
        "splits": {"train": f"0:{totals['episodes']}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": shape.features(),
    }
