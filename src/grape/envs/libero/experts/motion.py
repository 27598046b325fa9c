"""The hand's motion: from a target pose to an action, and from a plan to a sequence of target poses.

A *plan* is a generator of :class:`Pose`: it yields the next target pose, is resumed after each
decision, and reads the scene as it is then.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grape.envs.libero.scene import Scene

__all__ = ["CLOSED", "OPEN", "Hand", "Plan", "Pose", "action_towards", "downward", "facing"]

Float64 = npt.NDArray[np.float64]

OPEN, CLOSED = 1.0, 0.0
"""The gripper in the policy's convention."""

_POSITION_UNIT = 0.05  # meters of an action of 1
_ROTATION_UNIT = 0.5  # radians of an action of 1
_POSITION_GAIN = 1.8  # the arm covers a third of what an action asks for within its step
_ROTATION_GAIN = 1.0
_FORESIGHT = 1.0  # steps by which the arm's own speed carries it on

# Where an action is held for n > 1 steps, the arm comes by 0.265 n - 0.235 times what one step asks for, and goes on by
# 0.89 / n of its last way by itself (measured along all axes for n from 4 to 10; turning alike).
_SPEED, _START = 0.265, 0.235
_COASTING = 0.89

_FIRST_CLOSING_AXIS = np.array([0.0, -1.0, 0.0])  # of the hand as every episode begins


@dataclass(frozen=True, eq=False)
class Pose:
    """Where the hand should be.

    Attributes:
        position: Of the point between the finger tips, meters ``(3,)``.
        rotation: Of the hand, ``(3, 3)``.
        gripper: :data:`OPEN` or :data:`CLOSED`.
        speed: Largest share of the full action that may be used, in (0, 1].
    """

    position: Float64
    rotation: Float64
    gripper: float
    speed: float = 1.0


Plan = Iterator[Pose]


def downward(closing: Float64) -> Float64:
    """Orientation of a hand that points down and whose fingers move along a horizontal direction, ``(3, 3)``.

    Of the two hands that do, the one less turned from how every episode begins.

    Args:
        closing: Direction in which the fingers move, ``(2,)`` or ``(3,)``.
    """
    y = np.array([closing[0], closing[1], 0.0])
    y /= np.linalg.norm(y)
    if y @ _FIRST_CLOSING_AXIS < -1e-9:
        y = -y
    z = np.array([0.0, 0.0, -1.0])
    return np.stack([np.cross(y, z), y, z], axis=1)


def facing(direction: Float64, *, up: bool) -> Float64:
    """Orientation of a hand that points in a horizontal direction, ``(3, 3)``.

    Args:
        direction: Where the fingers point, unit vector ``(3,)``.
        up: Whether the fingers move up and down; else sideways.
    """
    z = np.asarray(direction, dtype=np.float64)
    upward = np.array([0.0, 0.0, 1.0])
    y = upward if up else np.cross(z, upward)
    return np.stack([np.cross(y, z), y, z], axis=1)


def action_towards(pose: Pose, position: Float64, rotation: Float64, motion: Float64, held: int = 1) -> Float64:
    """The action that moves the hand towards a pose, ``(7,)``; may exceed [-1, 1] where ``speed`` is 1.

    Args:
        pose: The target pose.
        position: Where the hand is, meters ``(3,)``.
        rotation: How it is turned, ``(3, 3)``.
        motion: How far it came in the last decision, meters ``(3,)``.
        held: For how many steps the action will be held.
    """
    if held == 1:
        position_gain, rotation_gain, foresight = _POSITION_GAIN, _ROTATION_GAIN, _FORESIGHT
    else:
        position_gain = rotation_gain = 1.0 / (_SPEED * held - _START)
        foresight = _COASTING / held
    shift = position_gain * (pose.position - position - foresight * motion) / _POSITION_UNIT
    shift /= max(1.0, float(np.abs(shift).max()) / pose.speed)
    turn = rotation_gain * _rotation_vector(pose.rotation @ rotation.T) / _ROTATION_UNIT
    turn /= max(1.0, float(np.abs(turn).max()))
    return np.concatenate([shift, turn, [pose.gripper]])


def _rotation_vector(rotation: Float64) -> Float64:
    """Axis times angle of a rotation matrix, radians ``(3,)``."""
    axis = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    sine, cosine = np.linalg.norm(axis) / 2.0, (np.trace(rotation) - 1.0) / 2.0
    if sine < 1e-9:
        return np.zeros(3)
    return np.asarray(axis / (2.0 * sine) * np.arctan2(sine, cosine))


class Hand:
    """The hand as a plan sees it: its true pose minus the operator's aiming offset.

    Args:
        scene: The episode.
        aim_offset: Where the operator aims relative to the true target, meters ``(3,)``.
        held: For how many steps of 50 ms each decision is held. Plans count in steps.
    """

    def __init__(self, scene: Scene, aim_offset: Float64, held: int = 1) -> None:
        self.scene = scene
        self.aim_offset = aim_offset
        self.held = held
        self.rotation = downward(_FIRST_CLOSING_AXIS)
        self._first_position = self.position

    @property
    def position(self) -> Float64:
        """Believed position, meters ``(3,)``."""
        return self.scene.gripper - self.aim_offset

    def move(
        self,
        target: Callable[[], Float64],
        gripper: float,
        *,
        rotation: Float64 | None = None,
        within: float = 0.01,
        turned_within: float = 0.1,
        most: int = 60,
        speed: float = 1.0,
        until: Callable[[], bool] | None = None,
    ) -> Plan:
        """Move to a position that may change.

        Args:
            target: The place, meters ``(3,)``, asked for anew each step.
            gripper: :data:`OPEN` or :data:`CLOSED`.
            rotation: New orientation; None keeps the last one.
            within: Distance that counts as there, meters.
            turned_within: Angle that counts as turned, radians.
            most: Steps after which it is given up.
            speed: Share of the full speed.
            until: Ends the motion early.
        """
        if rotation is not None:
            self.rotation = rotation
        for _ in range(math.ceil(most / self.held)):
            place = target()
            off = np.linalg.norm(_rotation_vector(self.rotation @ self.scene.hand.T))
            if (np.linalg.norm(place - self.position) <= within and off <= turned_within) or (until and until()):
                return
            yield Pose(place, self.rotation, gripper, speed)

    def hold(self, gripper: float, steps: int) -> Plan:
        """Stay where it is while the fingers move."""
        place = self.position
        for _ in range(math.ceil(steps / self.held)):
            yield Pose(place, self.rotation, gripper)

    def straight_up(self, by: float, gripper: float, *, most: int = 30, speed: float = 1.0) -> Plan:
        """Rise by a distance in meters."""
        place = self.position + np.array([0.0, 0.0, by])
        yield from self.move(lambda: place, gripper, most=most, speed=speed)

    def return_home(self) -> Plan:
        """Return to the episode's first position, pointing down: from there the arm reaches everything."""
        rotation = downward(_FIRST_CLOSING_AXIS)
        yield from self.move(
            lambda: self._first_position, OPEN, rotation=rotation, within=0.06, turned_within=0.25, most=60
        )
