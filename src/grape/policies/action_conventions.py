"""A policy's contract against a suite's, its decisions against its contract, and the conversion of its actions.

A rotation is converted to the suite's convention once, before an action is executed and recorded, so that collection,
evaluation and the stored episodes agree: an episode's actions, executed again, lead through the same states. Roll,
pitch and yaw are angles about the fixed x, y and z axes, applied in this order, as BridgeData has them and as
SimplerEnv's script for OpenVLA reads them.
"""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from grape.core.errors import CompatibilityError, PolicyError
from grape.core.tasks import ActionSpace, GripperConvention, RotationConvention
from grape.policies.base import FIX_POLICY, ActionBatch, PolicySpec

__all__ = [
    "axis_angle_from_roll_pitch_yaw",
    "check_batch",
    "check_policy",
    "roll_pitch_yaw_from_axis_angle",
    "to_env_action",
]

Float32 = npt.NDArray[np.float32]

_DIMENSIONS = slice(3, 6)
_ORDER = "xyz"


def check_policy(
    spec: PolicySpec,
    space: ActionSpace,
    name: str,
    *,
    cameras: Collection[str] = (),
    proprio_dim: int | None = None,
) -> None:
    """Compare a policy's contract with an environment's.

    Args:
        spec: The policy's contract.
        space: What the suite takes.
        name: What messages call the policy.
        cameras: Names of the suite's cameras beside the main one.
        proprio_dim: Numbers of the robot's state that the suite gives; None where it does not say.

    Raises:
        CompatibilityError: Dimension or gripper convention differ, rotations cannot be converted, or the policy reads
            a camera that the suite has not or a robot state of another dimension.
    """
    if missing := [camera for camera in spec.cameras[1:] if camera not in cameras]:
        raise CompatibilityError(
            f"{name} reads images of {len(spec.cameras)} cameras ({', '.join(spec.cameras)}), the suite has no "
            f"{', '.join(missing)}.",
            "Use a policy that reads the main camera alone, or a suite with these cameras.",
        )
    if spec.proprio_dim and proprio_dim not in (None, spec.proprio_dim):
        raise CompatibilityError(
            f"{name} reads {spec.proprio_dim} numbers of the robot's state, the suite gives {proprio_dim}.",
            "Use a policy trained for this suite, or one that reads images alone.",
        )
    if spec.action_dim != space.dim:
        raise CompatibilityError(
            f"{name} decides {spec.action_dim} dimensions, the suite takes {space.dim} ({', '.join(space.names)}).",
            "Use a policy trained for this suite.",
        )
    if spec.gripper and spec.gripper != space.gripper:
        hint = "Use a policy trained for this suite; a wrong sign would open where it should close."
        if space.gripper == GripperConvention.NONE:
            hint = (
                "If the last dimension of the suite's actions is a gripper, the suite must say so: a 'gym:' suite in "
                f'its YAML file, e.g. gripper: "{spec.gripper}". Else use a policy trained for this suite.'
            )
        raise CompatibilityError(
            f"Gripper conventions differ: {name} means '{spec.gripper}', the suite means '{space.gripper}'.", hint
        )
    if spec.rotation in ("", space.rotation) or space.rotation == RotationConvention.NONE:
        return
    if (spec.rotation, space.rotation) != (RotationConvention.ROLL_PITCH_YAW, RotationConvention.AXIS_ANGLE):
        raise CompatibilityError(
            f"{name} gives rotations as {spec.rotation}, the suite takes {space.rotation}.",
            "Use a policy trained for this suite.",
        )


def check_batch(batch: ActionBatch, spec: PolicySpec, rows: int) -> None:
    """Refuse decisions that are not what the policy's contract says, before any is executed or recorded.

    Args:
        batch: What the policy gave.
        spec: Its contract.
        rows: Number of observations it was given.

    Raises:
        PolicyError: Another number of rows, actions or dimensions, another support or temperature, tokens missing, or
            a log-probability that is not finite.
    """
    if not isinstance(batch, ActionBatch):
        raise PolicyError(f"A policy's act gave {type(batch).__name__}, not an ActionBatch.", FIX_POLICY)
    due = (rows, spec.chunk, spec.action_dim)
    if batch.actions.shape != due:
        raise PolicyError(
            f"A policy gave actions of the shape {batch.actions.shape} for {rows} observations; its contract says "
            f"{due}.",
            FIX_POLICY,
        )
    given, stated = (batch.support, batch.temperature), (spec.support, spec.logp_temperature)
    if given != stated:
        names = [f"{name!r} at {heat:g}" if name else "none" for name, heat in (given, stated)]
        raise PolicyError(f"A policy gave log-probabilities over {names[0]}; its contract says {names[1]}.", FIX_POLICY)
    if batch.logps is not None and not np.isfinite(batch.logps).all():
        raise PolicyError(
            "A policy gave a log-probability that is not finite.",
            "Its weights are damaged or its training diverged; go back to an earlier checkpoint.",
        )


def to_env_action(action: npt.NDArray[np.float32], spec: PolicySpec, space: ActionSpace) -> npt.NDArray[np.float32]:
    """Convert a policy's actions to the suite's convention, float32 of the same shape.

    Args:
        action: Un-normalized, float32 ``(D,)`` or ``(n, D)``.
        spec: The policy's contract.
        space: The suite's.
    """
    if spec.rotation != RotationConvention.ROLL_PITCH_YAW or space.rotation != RotationConvention.AXIS_ANGLE:
        return action
    return axis_angle_from_roll_pitch_yaw(action)


def axis_angle_from_roll_pitch_yaw(actions: Float32) -> Float32:
    """Actions whose dimensions 3 to 5 are an axis-angle, of some whose are roll, pitch and yaw; float32 ``(..., D)``.

    Args:
        actions: ``(D,)`` or ``(N, D)``, radians.
    """
    from scipy.spatial.transform import Rotation

    changed = actions.copy()
    changed[..., _DIMENSIONS] = Rotation.from_euler(_ORDER, actions[..., _DIMENSIONS].astype(np.float64)).as_rotvec()
    return changed


def roll_pitch_yaw_from_axis_angle(actions: Float32) -> Float32:
    """Inverse of :func:`axis_angle_from_roll_pitch_yaw`, for pitch within a quarter turn, the others within a half.

    Other angles come back as other angles of the same rotation.

    Args:
        actions: ``(D,)`` or ``(N, D)``, radians.
    """
    from scipy.spatial.transform import Rotation

    changed = actions.copy()
    changed[..., _DIMENSIONS] = Rotation.from_rotvec(actions[..., _DIMENSIONS].astype(np.float64)).as_euler(_ORDER)
    return changed
