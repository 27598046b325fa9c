"""Pinhole cameras: where a point of the world falls into an image, and where a pixel with depth lies in the world.

One convention throughout. The camera's frame has x to the right, y downwards and z away from it; ``pose`` leads from
there to the world. Pixel coordinates are continuous and begin at the image's upper left corner: the pixel of column
``i`` covers ``[i, i + 1)``, its center is ``i + 0.5``. Depth is measured along the camera's z axis, not along the ray.
A negative focal length is allowed: it stands for a mirrored image, as LIBERO's policies see it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError

__all__ = ["Camera", "camera_from_dict"]

Float64 = npt.NDArray[np.float64]

_NEAR = 1e-6  # meters in front of the camera below which nothing is seen
_ROTATION_TOLERANCE = 1e-3
_LARGEST_SIDE = 65_536  # pixels


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera without distortion.

    Attributes:
        intrinsic: ``[[fx, s, cx], [0, fy, cy], [0, 0, 1]]`` in pixels, float64 ``(3, 3)``.
        pose: From the camera's frame to the world's, rigid, meters, float64 ``(4, 4)``.
        size: Height and width of its images in pixels.
        name: For people.
    """

    intrinsic: Float64
    pose: Float64
    size: tuple[int, int]
    name: str = ""

    @property
    def position(self) -> Float64:
        """Where the camera stands, meters ``(3,)``."""
        return self.pose[:3, 3]

    def project(self, points: npt.ArrayLike) -> tuple[Float64, Float64]:
        """Where points of the world fall.

        Args:
            points: Meters, ``(..., 3)``; NaN stays NaN.

        Returns:
            Pixel coordinates (column, row) ``(..., 2)`` and depths in meters ``(...)``. Points that are not in front
            of the camera have NaN coordinates.
        """
        world = np.asarray(points, dtype=np.float64)
        local = (world - self.position) @ self.pose[:3, :3]
        depth: Float64 = local[..., 2]
        safe = np.where(depth > _NEAR, depth, np.nan)[..., None]
        pixels: Float64 = (local / safe) @ self.intrinsic[:2].T
        return pixels, depth

    def lift(self, pixels: npt.ArrayLike, depth: npt.ArrayLike) -> Float64:
        """The points that pixels with depth show: the inverse of :meth:`project`.

        Args:
            pixels: Coordinates (column, row), ``(..., 2)``.
            depth: Meters along the camera's z axis, ``(...)``; what is not positive gives NaN.

        Returns:
            Meters in the world's frame, ``(..., 3)``.
        """
        places = np.asarray(pixels, dtype=np.float64)
        distance = np.asarray(depth, dtype=np.float64)
        distance = np.where(distance > 0, distance, np.nan)
        homogeneous = np.concatenate([places, np.ones((*places.shape[:-1], 1))], axis=-1)
        rays = homogeneous @ np.linalg.inv(self.intrinsic).T
        world: Float64 = (rays * distance[..., None]) @ self.pose[:3, :3].T + self.position
        return world

    def sees(self, pixels: npt.ArrayLike, margin: float = 0.0) -> npt.NDArray[np.bool_]:
        """Whether pixel coordinates ``(..., 2)`` lie in the image, ``margin`` pixels or more from its edge."""
        places = np.asarray(pixels, dtype=np.float64)
        height, width = self.size
        inside = (places >= margin) & (places <= np.array([width, height]) - margin)
        return np.asarray(inside.all(axis=-1))

    def resized(self, height: int, width: int) -> "Camera":
        """The camera of the same images scaled to another size."""
        scale = np.array([[width / self.size[1]], [height / self.size[0]], [1.0]])
        return Camera(self.intrinsic * scale, self.pose, (height, width), self.name)

    def to_dict(self) -> dict[str, Any]:
        """JSON value, as episodes keep it."""
        return {
            "name": self.name,
            "size": list(self.size),
            "intrinsic": self.intrinsic.tolist(),
            "pose": self.pose.round(9).tolist(),
        }


def camera_from_dict(value: Any, where: str = "camera") -> Camera:
    """Camera from its JSON value.

    Args:
        value: ``size`` (height and width, or one number for both), ``intrinsic`` and ``pose``, perhaps ``name``.
        where: What the value is called in messages.

    Raises:
        DataError: Something is missing, or no pinhole camera.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"{where} is no mapping.", "It needs size, intrinsic and pose.")
    missing = [key for key in ("size", "intrinsic", "pose") if key not in value]
    if missing:
        raise DataError(f"{where} lacks {', '.join(missing)}.", "It needs size, intrinsic and pose.")
    size = value["size"]
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(map(_is_side, sides)):
        raise DataError(f"{where}: size is {size!r}.", "Give [height, width] in pixels.")
    intrinsic, pose = (_matrix(value[key], shape, f"{where}: {key}") for key, shape in (("intrinsic", 3), ("pose", 4)))
    if (intrinsic[2] != [0, 0, 1]).any() or intrinsic[1, 0] != 0 or 0 in (intrinsic[0, 0], intrinsic[1, 1]):
        raise DataError(
            f"{where}: intrinsic is no matrix of a pinhole camera: {intrinsic.tolist()}.",
            "It is [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels, row by row.",
        )
    turn = pose[:3, :3]
    with np.errstate(all="ignore"):  # entries near the largest floating-point number
        rigid = np.abs(turn @ turn.T - np.eye(3)).max() < _ROTATION_TOLERANCE and np.linalg.det(turn) > 0
    if not rigid or (pose[3] != [0, 0, 0, 1]).any():
        raise DataError(
            f"{where}: pose is no rigid motion: {pose.tolist()}.",
            "It leads from the camera's frame (x right, y down, z away) to the robot's or world's: a rotation, a "
            "translation in meters and the last row 0 0 0 1.",
        )
    return Camera(intrinsic, pose, (sides[0], sides[1]), str(value.get("name", "")))


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST_SIDE


def _matrix(value: Any, side: int, where: str) -> Float64:
    try:
        matrix = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where} is no matrix of numbers.", f"Give {side} rows of {side} numbers.") from error
    if matrix.shape != (side, side) or not np.isfinite(matrix).all():
        raise DataError(f"{where} is no {side} x {side} matrix of numbers.", f"Give {side} rows of {side} numbers.")
    return matrix
