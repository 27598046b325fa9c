"""Rotations in numpy alone: the other interpreter need not have anything else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["axis_angle", "rotation_matrix"]

Float64 = npt.NDArray[np.float64]


def rotation_matrix(quaternion: npt.ArrayLike) -> Float64:
    """Rotation of a unit quaternion ``(w, x, y, z)``, float64 ``(3, 3)``."""
    w, x, y, z = np.asarray(quaternion, dtype=np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def axis_angle(rotation: Float64) -> Float64:
    """Axis times angle in radians, of length at most pi, float64 ``(3,)``.

    Args:
        rotation: ``(3, 3)``.
    """
    # The largest of the four components of the quaternion is found first, so that nothing is divided by almost zero.
    trace = float(np.trace(rotation))
    squares = np.array([trace, *np.diag(rotation)])
    largest = int(np.argmax(squares))
    quaternion = np.empty(4)
    if largest == 0:
        quaternion[0] = 1.0 + trace
        quaternion[1:] = [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    else:
        i = largest - 1
        j, k = (i + 1) % 3, (i + 2) % 3
        quaternion[0] = rotation[k, j] - rotation[j, k]
        quaternion[1 + i] = 1.0 - trace + 2.0 * rotation[i, i]
        quaternion[1 + j] = rotation[j, i] + rotation[i, j]
        quaternion[1 + k] = rotation[k, i] + rotation[i, k]
    quaternion /= np.linalg.norm(quaternion)
    if quaternion[0] < 0:
        quaternion = -quaternion
    length = float(np.linalg.norm(quaternion[1:]))
    if length < 1e-12:
        return np.zeros(3)
    return np.asarray(quaternion[1:] * (2.0 * np.arctan2(length, quaternion[0]) / length))
