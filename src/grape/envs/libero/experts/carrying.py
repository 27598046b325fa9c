"""Plans that take a thing and put it somewhere."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grape.envs.libero.experts.grasps import Grasp, pinch, rim
from grape.envs.libero.experts.motion import CLOSED, OPEN, Hand, Plan, downward
from grape.envs.libero.goals import Part

__all__ = ["Carrying", "carry"]

Float64 = npt.NDArray[np.float64]

_TRIES = 4
_CLOSING_STEPS = 8  # the fingers take that long from open to closed
_OPENING_STEPS = 5
_FINGER_REACH = 0.045  # metres from the middle between the fingers to the outside of an open one
_FINGER_ROOM = 0.03  # metres of room that a finger wants around it

# Things that are wider than the fingers open are taken by the rim.
_BY_THE_RIM = ("akita_black_bowl", "plate", "porcelain_mug", "white_yellow_mug", "red_coffee_mug", "ramekin")


@dataclass(frozen=True)
class Carrying:
    """How a thing is carried.

    Attributes:
        depth: How far below its top it is taken, metres.
        rim_angle: Where on the rim, radians from the x axis; None chooses where there is most room.
        hover: How far above the grasp the hand comes to, metres.
        clearance: How far above what is on the way and at the goal the thing is carried, metres.
        above_goal: Height of the thing's origin over the goal where it is let go, metres.
        shift: Added to the goal, metres.
        slow: Share of the full speed near things.
    """

    depth: float = 0.03
    rim_angle: float | None = None
    hover: float = 0.08
    clearance: float = 0.06
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
        return np.asarray(scene.goal_point(part) + np.array(how.shift))

    for attempt in range(_TRIES):
        grasp = _choose(hand, part, how, attempt)
        yield from _take(hand, grasp, thing, how)
        if _near(hand, thing(), grasp) or attempt == _TRIES - 1:
            yield from _bring(hand, part, thing, goal, how)
            if scene.holds(part):
                break
        yield from hand.straight_up(how.hover, OPEN, most=15)


def _take(hand: Hand, grasp: Grasp, thing: Callable[[], Float64], how: Carrying) -> Plan:
    offset = grasp.point - thing()
    above = np.array([0.0, 0.0, how.hover])
    rotation = downward(grasp.closing)
    yield from hand.move(lambda: thing() + offset + above, OPEN, rotation=rotation, within=0.015, turned_within=0.12)
    yield from hand.move(lambda: thing() + offset, OPEN, within=0.006, most=25, speed=how.slow)
    yield from hand.hold(CLOSED, _CLOSING_STEPS)


def _bring(hand: Hand, part: Part, thing: Callable[[], Float64], goal: Callable[[], Float64], how: Carrying) -> Plan:
    scene = hand.scene
    hanging = float(hand.position[2] - scene.outline(part.geoms)[:, 2].min())  # the thing's bottom below the hand
    place = scene.outline(part.place_geoms)
    highest = max(
        float(place[:, 2].max()) if len(place) else goal()[2], goal()[2], scene.outline(part.geoms)[:, 2].min()
    )
    travel = highest + hanging + how.clearance
    start = hand.position
    yield from hand.move(
        lambda: np.array([*start[:2], travel]), CLOSED, until=lambda: hand.position[2] > travel - 0.03, most=30
    )

    def over_goal() -> Float64:
        return np.array([*(hand.position + goal() - thing())[:2], travel])

    yield from hand.move(over_goal, CLOSED, within=0.012, most=70)

    def at_goal() -> Float64:
        return np.asarray(hand.position + goal() - thing() + np.array([0.0, 0.0, how.above_goal]))

    yield from hand.move(at_goal, CLOSED, within=0.006, most=40, speed=how.slow, until=lambda: scene.holds(part))
    yield from hand.hold(OPEN, _OPENING_STEPS)


def _near(hand: Hand, thing: Float64, grasp: Grasp) -> bool:
    """Whether something is between the fingers."""
    return hand.scene.finger_width > min(0.004, grasp.width / 2)


def _choose(hand: Hand, part: Part, how: Carrying, attempt: int) -> Grasp:
    scene = hand.scene
    outline = scene.outline(part.geoms)
    if not part.predicate.subject.startswith(_BY_THE_RIM):
        return pinch(outline, how.depth)
    middle = (outline.max(axis=0) + outline.min(axis=0)) / 2
    if how.rim_angle is not None and attempt == 0:
        return rim(outline, middle, how.rim_angle, how.depth)
    others = scene.outline_of_others(part.geoms)
    grasps = [rim(outline, middle, float(angle), how.depth) for angle in np.radians(np.arange(-180, 180, 15))]
    ranked = sorted(grasps, key=lambda grasp: _price(grasp, middle, others))
    return ranked[min(attempt, len(ranked) - 1)]


def _price(grasp: Grasp, middle: Float64, others: Float64) -> float:
    """Turning that a grasp needs, and lack of room for the outer finger."""
    outward = grasp.point[:2] - middle[:2]
    outward /= np.linalg.norm(outward)
    finger = grasp.point[:2] + _FINGER_REACH * outward
    blocking = others[others[:, 2] > grasp.point[2] - 0.01]
    room = np.linalg.norm(blocking[:, :2] - finger, axis=1).min() if len(blocking) else 1.0
    turn = np.arccos(min(1.0, abs(float(grasp.closing[1]))))
    return float(turn + 20.0 * max(0.0, _FINGER_ROOM - room) / _FINGER_ROOM)
