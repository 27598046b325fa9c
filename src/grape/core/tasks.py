"""Tasks, the contract of their actions, and what the dimensions of an action mean.

Members of a convention equal the text that files hold. Workers in other interpreters import this module: it keeps to
Python 3.9.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from grape.core.errors import SettingsError

__all__ = [
    "ActionSpace",
    "GripperConvention",
    "RotationConvention",
    "Task",
    "parse_convention",
    "plain_name",
    "same_instruction",
]

_LONGEST_NAME = 120


@dataclass(frozen=True)
class Task:
    """One task of a suite.

    Attributes:
        suite: Registered name of the suite, e.g. ``"metaworld"``.
        index: Position within the suite, what ``--tasks`` counts by.
        name: Name within the suite, e.g. ``"drawer-open"``.
        instruction: What the policy is told, e.g. ``"open the drawer"``.
        max_steps: Decisions after which an episode ends without success.
    """

    suite: str
    index: int
    name: str
    instruction: str
    max_steps: int

    @property
    def id(self) -> str:
        """Name across suites, e.g. ``"metaworld/drawer-open"``."""
        return f"{self.suite}/{self.name}"


@dataclass(frozen=True)
class ActionSpace:
    """Contract of an environment's actions, compared with the policy's before the first decision.

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


def same_instruction(first: str, second: str) -> bool:
    """Whether two instructions are equal, ignoring case."""
    return first.strip().lower() == second.strip().lower()


class GripperConvention(str, Enum):  # noqa: UP042 (StrEnum is not in Python 3.9)
    """What the last dimension of an un-normalized action means."""

    PLUS_ONE_CLOSES = "+1 closes"
    """And -1 opens: Meta-World, robosuite."""
    PLUS_ONE_OPENS = "+1 opens"
    """And -1 closes."""
    ONE_OPENS = "1 opens, 0 closes"
    """OpenVLA's data sets."""
    ONE_CLOSES = "1 closes, 0 opens"
    NONE = "none"
    """No dimension is a gripper's."""

    __str__ = str.__str__

    @property
    def opened(self) -> float:
        """The value of an open gripper.

        Raises:
            SettingsError: There is no gripper.
        """
        return self._values[0]

    @property
    def closed(self) -> float:
        """The value of a closed gripper.

        Raises:
            SettingsError: There is no gripper.
        """
        return self._values[1]

    @property
    def _values(self) -> tuple[float, float]:
        if self is GripperConvention.NONE:
            raise SettingsError("These actions have no gripper.", "Say what their last dimension means.")
        return _OPENED_AND_CLOSED[self.value]


_OPENED_AND_CLOSED = {
    "+1 closes": (-1.0, 1.0),
    "+1 opens": (1.0, -1.0),
    "1 opens, 0 closes": (1.0, 0.0),
    "1 closes, 0 opens": (0.0, 1.0),
}


class RotationConvention(str, Enum):  # noqa: UP042 (StrEnum is not in Python 3.9)
    """How dimensions 3 to 5 of an action encode a rotation, in radians."""

    NONE = "none"
    """They are ignored."""
    AXIS_ANGLE = "axis-angle"
    """The axis of a turn, as long as its angle."""
    ROLL_PITCH_YAW = "roll-pitch-yaw"
    """Angles about the fixed x, y and z axes, applied in this order: BridgeData and SimplerEnv's script for OpenVLA."""

    __str__ = str.__str__


Convention = TypeVar("Convention", GripperConvention, RotationConvention)


def parse_convention(kind: type[Convention], text: str) -> Convention:
    """The convention that ``text`` names.

    Raises:
        SettingsError: There is none of this name; the hint lists them.
    """
    try:
        return kind(text)
    except ValueError:
        raise SettingsError(
            f"Unknown convention of a {kind.__name__[: -len('Convention')].lower()}: {text!r}.",
            f"Known: {', '.join(repr(member.value) for member in kind)}.",
        ) from None


def plain_name(text: str) -> str:
    """A name for file names, episode ids and flags: what is no letter, digit, or one of ``._+-`` becomes a hyphen.

    Texts in other scripts and long ones, of which too little is left to tell them apart, end in a hash.
    """
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).lstrip("._+-").rstrip("-.")
    if name and text.isascii() and len(name) <= _LONGEST_NAME:
        return name
    digits = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - 9].rstrip('-.') or 'task'}-{digits}"
