"""The policy protocol, and the conversion of a policy's actions to a suite's.

numpy and scipy only: torch stays inside the implementations. A rotation is converted to the suite's convention once,
before an action is executed and recorded, so that collection, evaluation and the stored episodes agree: an episode's
actions, executed again, lead through the same states. Roll, pitch and yaw are angles about the fixed x, y and z axes,
applied in this order, as BridgeData has them and as SimplerEnv's script for OpenVLA reads them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from grape.core.chunks import DEFAULT_SUPPORT
from grape.core.errors import CompatibilityError
from grape.core.tasks import ActionSpace, GripperConvention, RotationConvention, parse_convention
from grape.core.trajectories import Observation

__all__ = [
    "ActionBatch",
    "ChunkBatch",
    "Policy",
    "PolicySpec",
    "axis_angle_from_roll_pitch_yaw",
    "check_policy",
    "roll_pitch_yaw_from_axis_angle",
    "to_env_action",
]


Float32 = npt.NDArray[np.float32]

_DIMENSIONS = slice(3, 6)
_ORDER = "xyz"


@dataclass(frozen=True)
class PolicySpec:
    """Contract of a policy, compared with an environment's before the first decision.

    Attributes:
        action_dim: Dimensions of an action.
        image_size: Side of the square image the network reads; images of other sizes are resized by the policy.
        gripper: What the last dimension of an un-normalized action means; empty if unknown. Plain text of the same
            characters is accepted.
        unnorm_key: Which normalization statistics are in use.
        policy_hash: Hash of weights and configuration.
        preprocessing_hash: Hash of prompt template, image preprocessing, tokenizer, action bins and normalization.
        computation: Device, number type and attention, which decide the last bits of log-probabilities; empty if
            unknown.
        rotation: What dimensions 3 to 5 of an un-normalized action mean; empty for what the suite takes.
        proprio_dim: Numbers of the robot's state that it reads; 0 for none.
        chunk: Actions ``K`` a decision.
        cameras: Names of the cameras whose images the network reads; the first is the suite's main camera.
        support: Token ids that the softmax of its log-probabilities runs over, as
            :class:`~grape.core.chunks.Chunks` has it; empty for a policy without tokens.
        logp_temperature: Their temperature; 0 for a policy without tokens.

    Raises:
        SettingsError: A convention is unknown.
    """

    action_dim: int
    image_size: int
    gripper: GripperConvention | str
    unnorm_key: str
    policy_hash: str
    preprocessing_hash: str
    computation: str = ""
    rotation: RotationConvention | str = ""
    proprio_dim: int = 0
    chunk: int = 1
    cameras: tuple[str, ...] = ("agentview",)
    support: str = DEFAULT_SUPPORT
    logp_temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.gripper:
            object.__setattr__(self, "gripper", parse_convention(GripperConvention, self.gripper))
        if self.rotation:
            object.__setattr__(self, "rotation", parse_convention(RotationConvention, self.rotation))


@dataclass(frozen=True, eq=False)
class ActionBatch:
    """Decisions for a batch of observations.

    Attributes:
        actions: Un-normalized actions, float32 ``(B, D)``.
        tokens: Token ids as sampled (before any clipping), int32 ``(B, D)``.
        logps: Log-probability of each token under temperature 1 over the whole vocabulary, float32 ``(B, D)``.
    """

    actions: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.int32]
    logps: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ChunkBatch:
    """Decisions on several actions each for a batch of observations.

    Attributes:
        actions: Un-normalized actions, float64 ``(B, K, D)``.
        normalized: The same before un-normalization: bin centers float64, or what an L1 head gives, float32.
        tokens: Token ids as chosen (before any clipping), int32 ``(B, K, D)``; None for an L1 head.
        logps: Log-probability of each token under ``support`` and ``temperature``, float32 ``(B, K, D)``, or None.
        support: ``"vocabulary"`` or ``"window"``: what the softmax of ``logps`` ran over; empty without tokens.
        temperature: Temperature of ``logps``; 0 without tokens.
    """

    actions: npt.NDArray[np.float64]
    normalized: npt.NDArray[np.floating[Any]]
    tokens: npt.NDArray[np.int32] | None
    logps: npt.NDArray[np.float32] | None
    support: str
    temperature: float

    def row(self, row: int) -> "ChunkBatch":
        """One decision, still with its axis of length 1."""
        part = slice(row, row + 1)
        return ChunkBatch(
            self.actions[part],
            self.normalized[part],
            None if self.tokens is None else self.tokens[part],
            None if self.logps is None else self.logps[part],
            self.support,
            self.temperature,
        )


class Policy(Protocol):
    """Maps observations to actions, many at a time."""

    @property
    def spec(self) -> PolicySpec:
        """The policy's contract."""

    def prompt(self, instruction: str) -> str:
        """The text the network reads for an instruction."""

    def act(
        self, observations: Sequence[Observation], *, temperature: float = 0.0, seeds: Sequence[int] | None = None
    ) -> ActionBatch | ChunkBatch:
        """Compute a decision for each observation.

        Args:
            observations: ``B`` observations; instructions may differ.
            temperature: 0 decodes greedily; otherwise each token is sampled from ``softmax(logits / temperature)``.
            seeds: One seed a row, needed when sampling; a row's random numbers depend on its seed alone.
        """


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
        raise CompatibilityError(
            f"Gripper conventions differ: {name} means '{spec.gripper}', the suite means '{space.gripper}'.",
            "Use a policy trained for this suite; a wrong sign would open where it should close.",
        )
    if spec.rotation in ("", space.rotation) or space.rotation == RotationConvention.NONE:
        return
    if (spec.rotation, space.rotation) != (RotationConvention.ROLL_PITCH_YAW, RotationConvention.AXIS_ANGLE):
        raise CompatibilityError(
            f"{name} gives rotations as {spec.rotation}, the suite takes {space.rotation}.",
            "Use a policy trained for this suite.",
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
