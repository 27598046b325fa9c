"""Right and behind, as the axes of a frame: that of the world, or of the camera that recorded the episode."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.core.trajectories import EpisodeMeta

__all__ = ["frame_axes"]

Float64 = npt.NDArray[np.float64]

_WORLD = np.eye(2)


def frame_axes(frame: str, meta: EpisodeMeta) -> Float64:
    """Directions "right" and "behind" of a frame as rows of unit length in the world's x and y, ``(2, 2)``.

    For the camera, "right" is where things move to the right in the recorded image (whose columns may run against the
    camera's x axis: then the first focal length is negative), and "behind" is the way the camera looks, level with the
    ground; for a camera that looks straight down, the way its image's upper edge points.

    Args:
        frame: One of :data:`grape.costs.vocabulary.FRAMES`.
        meta: Facts of the episode; ``extra["camera"]`` holds ``pose``, 4 x 4, from the camera's axes (x right, y down,
            z forward) to the world, and ``intrinsic``, 3 x 3.

    Raises:
        DataError: The camera is asked for and the episode does not hold a sound one.
    """
    if frame == "world":
        return _WORLD
    camera = meta.extra.get("camera")
    try:
        return _level_axes(camera if isinstance(camera, Mapping) else {})
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"Episode {meta.episode_id} holds no sound camera pose, which the cost specification speaks of.",
            "Use frame 'world', or record episodes with a suite that notes its camera.",
        ) from error


def _level_axes(camera: Mapping[str, Any]) -> Float64:
    rotation = np.asarray(camera["pose"], dtype=np.float64)[:3, :3]
    mirrored = float(np.asarray(camera["intrinsic"], dtype=np.float64)[0, 0]) < 0.0
    right = rotation[:2, 0] * (-1.0 if mirrored else 1.0)
    away = rotation[:2, 2] - rotation[:2, 1]  # forward and image-up point the same way once level
    axes = np.stack([right, away])
    length = np.linalg.norm(axes, axis=1, keepdims=True)
    if not np.isfinite(axes).all() or (length < 1e-6).any():
        raise ValueError("the camera's axes are not level with anything")
    level: Float64 = axes / length
    return level
