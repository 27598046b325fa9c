"""Tasks and the contract of their actions."""

from dataclasses import dataclass, field

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
        gripper: What the last dimension means, e.g. ``"+1 closes"``.
        rotation: ``"none"`` where rotations are ignored, else their format, e.g. ``"axis-angle"``.
        control_hz: Decisions a second.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    gripper: str
    rotation: str
    control_hz: float
    notes: tuple[str, ...] = field(default=())

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return len(self.names)
