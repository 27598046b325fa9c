"""Plans that pick an object and place it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grape.envs.libero.experts.grasps import Grasp, best, pinches, rims
from grape.envs.libero.experts.motion import CLOSED, OPEN, Hand, Plan, downward
from grape.envs.libero.goals import Part

__all__ = ["Carrying", "carry"]

Float64 = npt.NDArray[np.float64]

_TRIES = 4
_TRIAL_LIFT = 0.06  # meters of lift after which the grasp is checked
_LOST = 0.05  # meters that an object may slip in the hand before it counts as lost
_LOOK_AHEAD = 0.12  # meters of the way ahead over which things are carried clear
_BREADTH = 0.11  # meters on both sides of it
_TOO_LOW = 0.025  # meters below the height asked for at which a thing is first lifted
_CLOSING_STEPS = 10  # the fingers take that long from open to closed
_OPENING_STEPS = 5

# Objects wider than the open fingers are grasped by the rim.
_BY_THE_RIM = ("akita_black_bowl", "plate", "porcelain_mug", "white_yellow_mug", "red_coffee_mug", "ramekin")


@dataclass(frozen=True)
class Carrying:
    """How an object is carried.

    Attributes:
        depth: How far below its top it is taken, meters.
        rim_angles: Where on the rim, radians from the x axis, at the first try; empty for anywhere.
        hover: How far above the grasp the hand comes to, meters.
        clearance: How far above what is on the way the thing is carried, meters.
        above_goal: Height of the thing's origin over the goal where it is let go, meters.
        shift: Added to the goal, meters.
        slow: Share of the full speed near things.
    """

    depth: float = 0.028
    rim_angles: tuple[float, ...] = ()
    hover: float = 0.08
    clearance: float = 0.05
    above_goal: float = 0.015
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    slow: float = 0.5


def carry(hand: Hand, part: Part, how: Carrying) -> Plan:
    """Take a part's object and put it to its goal; if it slips, take it again.

    Args:
        hand: The hand.
        part: A part about an object.
        how: How it is carried.
    """
    scene = hand.scene

    def thing() -> Float64:
        return scene.object_point(part)

    def goal() -> Float64:
        return np.asarray(scene.goal_point(part) + np.array(how.shift) + hand.aim_offset)

    tries = 1 if hand.aim_offset.any() else _TRIES  # the aiming offset hides the slip, too
    for attempt in range(tries):
        lying = float(thing()[2])
        grasp = _choose(hand, part, how, attempt)
        yield from _take(hand, grasp, thing, how)
        yield from hand.straight_up(_TRIAL_LIFT, CLOSED, most=12)
        lifted = thing()[2] > lying + _TRIAL_LIFT / 5
        if lifted or attempt == tries - 1:
            yield from _bring(hand, part, thing, goal, how)
        else:
            yield from hand.hold(OPEN, _OPENING_STEPS)
        yield from hand.straight_up(how.hover, OPEN, most=15)
        if scene.holds(part):
            return


def _take(hand: Hand, grasp: Grasp, thing: Callable[[], Float64], how: Carrying) -> Plan:
    offset = grasp.point - thing()
    above = np.array([0.0, 0.0, how.hover])
    rotation = downward(grasp.closing)
    yield from hand.move(lambda: thing() + offset + above, OPEN, rotation=rotation, within=0.015, turned_within=0.12)
    yield from hand.move(lambda: thing() + offset, OPEN, within=0.006, most=25, speed=how.slow)
    yield from hand.hold(CLOSED, _CLOSING_STEPS)


def _bring(hand: Hand, part: Part, thing: Callable[[], Float64], goal: Callable[[], Float64], how: Carrying) -> Plan:
    scene = hand.scene
    others = scene.outline_of_others(part.geoms)
    below = float(hand.position[2] - scene.outline(part.geoms)[:, 2].min())  # how far the thing hangs down
    first_grip = hand.position - thing()

    def grip() -> Float64:
        """From the thing to the hand; as at first where the thing was lost."""
        now = hand.position - thing()
        return now if np.linalg.norm(now - first_grip) < _LOST else first_grip

    def waypoint() -> Float64:
        """Towards the goal, as high as what lies below and ahead asks for."""
        target = goal() + grip()
        ahead = target[:2] - hand.position[:2]
        distance = float(np.linalg.norm(ahead))
        ahead *= min(1.0, _LOOK_AHEAD / max(distance, 1e-6))
        height = _highest(others, thing()[:2], thing()[:2] + ahead) + below + how.clearance
        if hand.position[2] < height - _TOO_LOW:
            return np.array([*hand.position[:2], height])
        return np.array([*target[:2], height])

    yield from hand.move(waypoint, CLOSED, most=100, until=lambda: bool(np.linalg.norm((goal() - thing())[:2]) < 0.012))

    def down_to(height: float, within: float, speed: float) -> Plan:
        def place() -> Float64:
            return np.asarray(goal() + grip() + np.array([0.0, 0.0, height]))

        return hand.move(place, CLOSED, within=within, most=40, speed=speed, until=lambda: scene.holds(part))

    yield from down_to(how.above_goal + 0.05, 0.012, 1.0)
    yield from down_to(how.above_goal, 0.006, how.slow)
    yield from hand.hold(OPEN, _OPENING_STEPS)


def _highest(others: Float64, here: Float64, there: Float64) -> float:
    """Height of the highest point near the way from one place to another, meters."""
    way = there - here
    share = np.clip((others[:, :2] - here) @ way / max(float(way @ way), 1e-9), 0.0, 1.0)
    near = np.linalg.norm(others[:, :2] - here - share[:, None] * way, axis=1) < _BREADTH
    return float(others[near, 2].max()) if near.any() else float(others[:, 2].min())


def _choose(hand: Hand, part: Part, how: Carrying, attempt: int) -> Grasp:
    scene = hand.scene
    outline = scene.outline(part.geoms)
    if not part.predicate.subject.startswith(_BY_THE_RIM):
        grasps = pinches(outline, how.depth)
    elif how.rim_angles and attempt == 0:
        grasps = rims(outline, how.depth, how.rim_angles)
    else:
        grasps = rims(outline, how.depth)
    return best(grasps, hand.rotation, scene.outline_of_others(part.geoms), 2 * attempt)
