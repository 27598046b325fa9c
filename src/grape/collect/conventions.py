"""Where a policy's actions meet a suite: a rotation said in the policy's words, in the suite's.

Done once, before an action is executed and recorded, so that collection, evaluation and the stored episodes agree: an
episode's actions, executed again, lead through the same states.
"""

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from grape.core.errors import CompatibilityError
from grape.core.tasks import ActionSpace
from grape.policies.base import ROLL_PITCH_YAW, PolicySpec

__all__ = ["check_rotation", "in_words_of_suite"]

_ROTATION = slice(3, 6)


def check_rotation(spec: PolicySpec, space: ActionSpace, name: str) -> None:
    """Make sure that the suite can be told what the policy says about rotations.

    Raises:
        CompatibilityError: It cannot.
    """
    if spec.rotation in ("", space.rotation) or space.rotation == "none":
        return
    if (spec.rotation, space.rotation) != (ROLL_PITCH_YAW, "axis-angle"):
        raise CompatibilityError(
            f"{name} gives rotations as {spec.rotation}, the suite takes {space.rotation}.",
            "Use a policy trained for this suite.",
        )


def in_words_of_suite(action: npt.NDArray[np.float32], spec: PolicySpec, space: ActionSpace) -> npt.NDArray[np.float32]:
    """A policy's action as the suite takes it, float32 ``(D,)``.

    Roll, pitch and yaw are angles about the fixed x, y and z axes, applied in this order, as BridgeData has them and as
    SimplerEnv's script for OpenVLA reads them.

    Args:
        action: Un-normalised, float32 ``(D,)``.
        spec: The policy's contract.
        space: The suite's.
    """
    if spec.rotation != ROLL_PITCH_YAW or space.rotation != "axis-angle":
        return action
    changed = action.copy()
    changed[_ROTATION] = Rotation.from_euler("xyz", action[_ROTATION].astype(np.float64)).as_rotvec()
    return changed
