"""The hand's motion: from a target pose to an action, and from a plan to a sequence of target poses.

A *plan* is a generator of :class:`Aim`: it yields the next target pose, is resumed after each decision,
and reads the scene as it is then.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from grape.envs.simpler.environment import TOOL
from grape.envs.simpler.world import Pose, World

__all__ = ["CLOSED", "OPEN", "ROTATION_UNIT", "TRANSLATION_UNIT", "Aim", "Hand", "Plan", "action_towards", "downward"]

Float64 = npt.NDArray[np.float64]

OPEN, CLOSED = 1.0, 0.0
"""The gripper in the policy's convention."""

TRANSLATION_UNIT = 0.04
"""Furthest that the experts move along an axis in a step, meters: as fast as people did in BridgeData."""

ROTATION_UNIT = 0.35
"""Furthest that they turn about an axis in a step, radians."""


@dataclass(frozen=True, eq=False)
class Aim:
    """Where the hand should be.

    Attributes:
        position: Of the tool, meters ``(3,)``.
        rotation: Of the tool, ``(3, 3)``.
        gripper: :data:`OPEN` or :data:`CLOSED`.
        speed: Largest share of the full step that may be used, in (0, 1].
    """

    position: Float64
    rotation: Float64
    gripper: float
    speed: float = 1.0


Plan = Iterator[Aim]


def downward(closing: Float64, like: Float64) -> Float64:
    """Orientation of a tool that points down and whose fingers move along a horizontal direction, ``(3, 3)``.

    Of the two that do, the one less turned from another orientation.

    Args:
        closing: Direction in which the fingers move, ``(2,)``.
        like: The other orientation, ``(3, 3)``.
    """
    y = np.array([closing[0], closing[1], 0.0])
    y /= np.linalg.norm(y)
    if y @ like[:, 1] < 0:
        y = -y
    x = np.array([0.0, 0.0, -1.0])
    return np.stack([x, y, np.cross(x, y)], axis=1)


def action_towards(aim: Aim, commanded: Pose, base: Pose, steps: int = 1) -> Float64:
    """The decision that leads towards an aim, in units of the experts' largest one, ``(7,)``.

    Args:
        aim: The target pose.
        commanded: What the step is added to.
        base: The base's pose.
        steps: Over how many steps a decision is carried out; it may lead as many times as far.
    """
    shift = base.rotation.T @ (aim.position - commanded.position) / (steps * TRANSLATION_UNIT)
    shift /= max(1.0, float(np.abs(shift).max()) / aim.speed)
    turn = base.rotation.T @ Rotation.from_matrix(aim.rotation @ commanded.rotation.T).as_rotvec()
    turn /= steps * ROTATION_UNIT
    turn /= max(1.0, float(np.abs(turn).max()))
    return np.concatenate([shift, turn, [aim.gripper]])


class Hand:
    """The hand as a plan sees it: its true pose minus the operator's aiming offset.

    Args:
        world: The episode's world.
        aim_offset: Where the operator aims relative to the true target, meters ``(3,)``.
    """

    def __init__(self, world: World, aim_offset: Float64) -> None:
        self.world = world
        self.aim_offset = aim_offset
        self.rotation = self.tool.rotation

    @property
    def tool(self) -> Pose:
        """Believed pose of the tool."""
        return self._believed(self.world.link_pose(TOOL))

    @property
    def commanded(self) -> Pose:
        """Believed commanded pose, to which the next change is added; the arm itself may lag behind it."""
        return self._believed(self.world.commanded)

    def _believed(self, true: Pose) -> Pose:
        return Pose(true.position - self.aim_offset, true.rotation)

    def move(
        self,
        target: Callable[[], Float64],
        gripper: float,
        *,
        rotation: Float64 | None = None,
        within: float = 0.008,
        turned_within: float = 0.12,
        most: int = 15,
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
        for _ in range(most):
            place, tool = target(), self.tool
            off = Rotation.from_matrix(self.rotation @ tool.rotation.T).magnitude()
            there = np.linalg.norm(place - tool.position) <= within and off <= turned_within
            if there or (until is not None and until()):
                return
            yield Aim(place, self.rotation, gripper, speed)

    def hold(self, gripper: float, steps: int) -> Plan:
        """Stay where it is while the fingers move."""
        place = self.tool.position
        for _ in range(steps):
            yield Aim(place, self.rotation, gripper)

    def straight_up(self, by: float, gripper: float, *, most: int = 8, speed: float = 1.0) -> Plan:
        """Rise by a distance in meters."""
        place = self.tool.position + np.array([0.0, 0.0, by])
        yield from self.move(lambda: place, gripper, most=most, speed=speed, within=0.015)
