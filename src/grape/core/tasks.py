"""Tasks and the contract of their actions."""

from __future__ import annotations

from dataclasses import dataclass, field

from grape.core.action_conventions import GripperConvention, RotationConvention, parse_convention

__all__ = ["ActionSpace", "Task"]


@dataclass(frozen=True)
class Task:
    """One task of a suite.

    Attributes:
        suite: Registered name of the suite, e.g. ``"metaworld"``.
        index: Position within the suite, what ``--tasks`` counts by.
        name: Name within the suite, e.g. ``"drawer-open"``.
        instruction: What the policy is told, e.g. ``"open the drawer"``.
        max_steps: Decisions after which an episode ends without success.
        horizon_note: Free remark, e.g. where the limit comes from.
    """

    suite: str
    index: int
    name: str
    instruction: str
    max_steps: int
    horizon_note: str = ""

    @property
    def id(self) -> str:
        """Name across suites, e.g. ``"metaworld/drawer-open"``."""
        return f"{self.suite}/{self.name}"


@dataclass(frozen=True)
class ActionSpace:
    """Contract of an environment's actions, compared with the policy's before the first step.

    Attributes:
        names: One name a dimension, e.g. ``("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")``.
        low: Lower bound a dimension.
        high: Upper bound a dimension.
        gripper: What the last dimension means; plain text of the same characters is accepted.
        rotation: What dimensions 3 to 5 mean; plain text, too.
        control_hz: Decisions a second.

    Raises:
        SettingsError: A convention is unknown.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    gripper: GripperConvention
    rotation: RotationConvention
    control_hz: float
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "gripper", parse_convention(GripperConvention, self.gripper))
        object.__setattr__(self, "rotation", parse_convention(RotationConvention, self.rotation))

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return len(self.names)
