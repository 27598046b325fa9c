"""Where a policy's actions meet a suite: a rotation said in the policy's words, in the suite's.

Done once, before an action is executed and recorded, so that collection, evaluation and the stored episodes agree: an
episode's actions, executed again, lead through the same states.
"""

import numpy as np
import numpy.typing as npt

from grape.core.errors import CompatibilityError
from grape.core.tasks import ActionSpace, RotationConvention
from grape.policies.base import PolicySpec
from grape.policies.rotations import axis_angle_from_roll_pitch_yaw

__all__ = ["check_rotation", "to_env_action"]


def check_rotation(spec: PolicySpec, space: ActionSpace, name: str) -> None:
    """Make sure that the suite can be told what the policy says about rotations.

    Raises:
        CompatibilityError: It cannot.
    """
    if spec.rotation in ("", space.rotation) or space.rotation == "none":
        return
    if (spec.rotation, space.rotation) != (RotationConvention.ROLL_PITCH_YAW, RotationConvention.AXIS_ANGLE):
        raise CompatibilityError(
            f"{name} gives rotations as {spec.rotation}, the suite takes {space.rotation}.",
            "Use a policy trained for this suite.",
        )


def to_env_action(action: npt.NDArray[np.float32], spec: PolicySpec, space: ActionSpace) -> npt.NDArray[np.float32]:
    """A policy's action as the suite takes it, float32 ``(D,)``.

    Args:
        action: Un-normalised, float32 ``(D,)``.
        spec: The policy's contract.
        space: The suite's.
    """
    if spec.rotation != RotationConvention.ROLL_PITCH_YAW or space.rotation != RotationConvention.AXIS_ANGLE:
        return action
    return axis_angle_from_roll_pitch_yaw(action)
