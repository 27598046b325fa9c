"""Rotations in actions, said in two ways: roll, pitch and yaw, or an axis-angle.

Roll, pitch and yaw are angles about the fixed x, y and z axes, applied in this order, as BridgeData has them and as
SimplerEnv's script for OpenVLA reads them.
"""

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

__all__ = ["axis_angle_from_roll_pitch_yaw", "roll_pitch_yaw_from_axis_angle"]

Float32 = npt.NDArray[np.float32]

_DIMENSIONS = slice(3, 6)
_ORDER = "xyz"


def axis_angle_from_roll_pitch_yaw(actions: Float32) -> Float32:
    """Actions whose dimensions 3 to 5 are an axis-angle, of some whose are roll, pitch and yaw; float32 ``(..., D)``.

    Args:
        actions: ``(D,)`` or ``(N, D)``, radians.
    """
    changed = actions.copy()
    changed[..., _DIMENSIONS] = Rotation.from_euler(_ORDER, actions[..., _DIMENSIONS].astype(np.float64)).as_rotvec()
    return changed


def roll_pitch_yaw_from_axis_angle(actions: Float32) -> Float32:
    """Inverse of :func:`axis_angle_from_roll_pitch_yaw`, for pitch within a quarter turn, the others within a half.

    Other angles come back as other angles of the same rotation.

    Args:
        actions: ``(D,)`` or ``(N, D)``, radians.
    """
    changed = actions.copy()
    changed[..., _DIMENSIONS] = Rotation.from_rotvec(actions[..., _DIMENSIONS].astype(np.float64)).as_euler(_ORDER)
    return changed
