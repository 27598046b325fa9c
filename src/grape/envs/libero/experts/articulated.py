"""Plans that pull, push or turn articulated objects: drawers, doors, knobs."""

import numpy as np
import numpy.typing as npt

from grape.envs.libero.experts.grasps import best, pinches
from grape.envs.libero.experts.motion import CLOSED, OPEN, Hand, Plan, downward, facing
from grape.envs.libero.goals import Part

__all__ = ["pull_open", "push_closed", "turn_knob"]

Float64 = npt.NDArray[np.float64]

_TRIES = 3
_CLOSING_STEPS = 8
_APPROACH = 0.09  # meters in front of a handle from which the hand comes to it
_KNOB_TURN = 1.1  # radians, twice what switches a stove on
_STEP_OF_TURN = 0.12  # radians


def pull_open(hand: Hand, part: Part) -> Plan:
    """Take a drawer's handle from the front, fingers above and below it, and pull the drawer out.

    Args:
        hand: The hand.
        part: A part with the drawer's joint.
    """
    scene = hand.scene
    outward = _outward(hand, part)
    rotation = facing(-outward, up=True)

    def handle() -> Float64:
        return scene.joint_point(part)

    for _ in range(_TRIES):
        yield from hand.move(
            lambda: handle() + _APPROACH * outward, OPEN, rotation=rotation, within=0.015, turned_within=0.15, most=80
        )
        yield from hand.move(lambda: handle() + 0.002 * outward, OPEN, within=0.008, most=25, speed=0.5)
        yield from hand.hold(CLOSED, _CLOSING_STEPS)
        yield from hand.move(
            lambda: handle() + 0.06 * outward, CLOSED, most=40, speed=0.5, until=lambda: scene.openness(part) >= 1.0
        )
        if scene.openness(part) >= 1.0:
            break
        yield from hand.hold(OPEN, _CLOSING_STEPS)
    yield from hand.hold(OPEN, _CLOSING_STEPS)
    yield from hand.move(lambda: handle() + _APPROACH * outward, OPEN, within=0.02, most=15)


def push_closed(hand: Hand, part: Part) -> Plan:
    """Push a drawer shut at its handle with closed fingers that point down.

    Args:
        hand: The hand.
        part: A part with the drawer's joint.
    """
    scene = hand.scene
    outward = _outward(hand, part)
    rotation = downward(np.array([-outward[1], outward[0]]))

    def handle() -> Float64:
        return scene.joint_point(part)

    over, before = np.array([0.0, 0.0, 0.15]), _APPROACH * outward
    for _ in range(_TRIES):
        yield from hand.straight_up(over[2], CLOSED, most=15)
        yield from hand.move(lambda: handle() + before + over, CLOSED, rotation=rotation, within=0.03, most=60)
        yield from hand.move(lambda: handle() + before, CLOSED, within=0.015, most=40)
        yield from hand.move(
            lambda: handle() - 0.05 * outward, CLOSED, most=40, speed=0.7, until=lambda: scene.holds(part)
        )
        if scene.holds(part):
            break


def turn_knob(hand: Hand, part: Part) -> Plan:
    """Take a knob's lever from above and turn the hand with it.

    Args:
        hand: The hand.
        part: A part with the knob's joint, which turns about a vertical axis.
    """
    scene = hand.scene
    for _ in range(_TRIES):
        outline = scene.outline(part.geoms)
        lever = outline[outline[:, 2] > outline[:, 2].max() - 0.012]
        grasp = best(pinches(lever, depth=0.012), hand.rotation, np.zeros((0, 3)))
        anchor, axis = scene.joint_axis(part)
        place = np.array([*anchor[:2], grasp.point[2]])
        rotation = downward(grasp.closing)
        above = np.array([0.0, 0.0, 0.1])
        yield from hand.move(lambda at=place + above: at, OPEN, rotation=rotation, within=0.01, most=80)  # type: ignore[misc]
        yield from hand.move(lambda at=place: at, OPEN, within=0.006, most=25, speed=0.5)  # type: ignore[misc]
        yield from hand.hold(CLOSED, _CLOSING_STEPS)
        for _ in range(int(_KNOB_TURN / _STEP_OF_TURN)):
            rotation = turned(rotation, axis, _STEP_OF_TURN)
            yield from hand.move(lambda at=place: at, CLOSED, rotation=rotation, turned_within=0.15, most=5)  # type: ignore[misc]
            if scene.holds(part):
                break
        yield from hand.hold(OPEN, _CLOSING_STEPS)
        yield from hand.straight_up(0.1, OPEN)
        if scene.holds(part):
            break


def turned(rotation: Float64, axis: Float64, angle: float) -> Float64:
    """A rotation followed by one about a unit axis, ``(3, 3)``."""
    cross = np.array([[0.0, -axis[2], axis[1]], [axis[2], 0.0, -axis[0]], [-axis[1], axis[0], 0.0]])
    by = np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross
    return np.asarray(by @ rotation)


def _outward(hand: Hand, part: Part) -> Float64:
    """Horizontal direction in which a drawer opens, a unit vector ``(3,)``."""
    assert part.joint is not None
    _, axis = hand.scene.joint_axis(part)
    return np.asarray(axis * np.sign(part.joint.opened))
