"""The plan of all tasks: take the source from above, carry it over the target, put it down, let go."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grape.envs.simpler.experts.motion import CLOSED, OPEN, Hand, Plan, downward
from grape.envs.simpler.world import World

__all__ = ["Carrying", "carry", "closing_direction"]

Float64 = npt.NDArray[np.float64]

_TRIES = 4
_CLOSING_STEPS = 2  # decisions from open to closed around a thing
_OPENING_STEPS = 2
_TRIAL_LIFT = 0.05  # meters of lift after which the grasp is checked
_ROUND = 1.2  # ratio of lengths below which a thing is taken as square
_UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Carrying:
    """How an object is carried.

    Attributes:
        depth: Height of the tool over the thing's center when it is taken, meters.
        along: Where along the thing's longest axis it is taken, meters from the center.
        lowest: Height of the tool over the thing's support below which it does not go, meters.
        hover: How far above the grasp the hand comes to, meters.
        clearance: How far above its place the thing is carried, meters.
        above: How far above its place the thing is let go, meters.
    """

    depth: float = 0.0
    along: float = 0.0
    lowest: float = 0.012
    hover: float = 0.06
    clearance: float = 0.06
    above: float = 0.008


def carry(hand: Hand, how: Carrying) -> Plan:
    """Take the source and put it on the target; if it slips, take it again.

    Args:
        hand: The hand.
        how: How it is carried.
    """
    world = hand.world
    tries = 1 if hand.aim_offset.any() else _TRIES  # the aiming offset hides the slip, too
    for attempt in range(tries):
        lying = float(world.source_pose.position[2])
        yield from _take(hand, how)
        yield from hand.straight_up(_TRIAL_LIFT, CLOSED, most=5)
        lifted = world.source_pose.position[2] > lying + _TRIAL_LIFT / 3
        if lifted or attempt == tries - 1:
            yield from _bring(hand, how)
        yield from hand.hold(OPEN, _OPENING_STEPS)
        yield from hand.straight_up(how.hover, OPEN, most=5)
        if _is_on_target(world):
            return


def closing_direction(world: World) -> Float64:
    """Horizontal direction in which the source is narrow, ``(2,)``; of equally narrow ones, any."""
    body, pose = world.source, world.source_pose
    longest = int(np.argmax(body.half_extents))
    axis = pose.rotation[:2, longest]
    others = np.delete(body.half_extents, longest)
    if body.half_extents[longest] < _ROUND * others.max():  # a cube: any of its level axes will do
        level = int(np.argmax(np.linalg.norm(pose.rotation[:2], axis=0)))
        axis = pose.rotation[:2, level]
    return np.array([-axis[1], axis[0]])


def _take(hand: Hand, how: Carrying) -> Plan:
    world = hand.world
    rotation = _turned_little(hand, closing_direction(world))
    floor = float(world.source_pose.position[2] - _half_height(world)) + how.lowest

    def grasp() -> Float64:
        pose, longest = world.source_pose, int(np.argmax(world.source.half_extents))
        point = pose.position + how.along * pose.rotation[:, longest] + how.depth * _UP
        return np.array([*point[:2], max(point[2], floor)])

    yield from hand.move(lambda: grasp() + how.hover * _UP, OPEN, rotation=rotation, within=0.012, most=20)
    yield from hand.move(grasp, OPEN, within=0.006, most=8, speed=0.7)
    yield from hand.hold(CLOSED, _CLOSING_STEPS)


def _bring(hand: Hand, how: Carrying) -> Plan:
    world = hand.world
    first = hand.tool.position - world.source_pose.position

    def place(height: float) -> Float64:
        """Position of the hand that holds the object at a height above its goal."""
        grip = hand.tool.position - world.source_pose.position
        if np.linalg.norm(grip - first) > 0.03:  # it was lost: go on as if not
            grip = first
        target = world.target_pose.position + hand.aim_offset
        rest = world.target.half_extents[2] + _half_height(world)
        return np.asarray(target + grip + (rest + height) * _UP)

    def over() -> Float64:
        """Waypoint: first up, then across."""
        goal_point = place(how.clearance)
        here = hand.tool.position
        if here[2] < goal_point[2] - 0.02 and np.linalg.norm((goal_point - here)[:2]) > 0.03:
            return np.array([*(here[:2] + 0.2 * (goal_point - here)[:2]), goal_point[2]])
        return goal_point

    yield from hand.move(over, CLOSED, within=0.012, most=25)
    yield from hand.move(lambda: place(how.above), CLOSED, within=0.006, most=8, speed=0.6)


def _turned_little(hand: Hand, closing: Float64) -> Float64:
    """The orientation for a closing direction that the wrist reaches without turning far."""
    return downward(closing, hand.tool.rotation)


def _half_height(world: World) -> float:
    """Half of the source's height as it is turned now, meters."""
    return float(np.abs(world.source_pose.rotation[2]) @ world.source.half_extents)


def _is_on_target(world: World) -> bool:
    offset = world.source_pose.position - world.target_pose.position
    reach = float(np.linalg.norm(world.target.half_extents[:2]))
    return bool(np.linalg.norm(offset[:2]) < 0.8 * reach and -0.01 < offset[2] < 0.08)
