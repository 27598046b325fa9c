"""What the dimensions of an action mean: conventions that a policy, a suite and a data set agree on, or convert.

Members equal the text that files hold. Workers in other interpreters import this module: it keeps to Python 3.9.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from grape.core.errors import SettingsError

__all__ = ["GripperConvention", "RotationConvention", "parse_convention"]


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
    """How dimensions 3 to 5 of an action tell a rotation, in radians."""

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
