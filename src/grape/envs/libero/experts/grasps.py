"""Grasp candidates, from the collision shapes of an object and of its surroundings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Grasp", "best", "pinches", "rims"]

Float64 = npt.NDArray[np.float64]

_OPENING = 0.072  # meters between the open fingers, less a margin
_ANGLES = np.radians(np.arange(0, 180, 10))
_SHIFTS = (0.0, 0.015, -0.015, 0.03, -0.03)  # meters along a thing's longer side
_INSETS = (0.0, 0.01, 0.02)  # meters from a rim towards the middle: closing fingers pull it towards them
_RIM_ANGLES = np.radians(np.arange(-180, 180, 15))

# The hand seen from its fingers' end: half lengths along and across the fingers' motion, lowest point, meters.
_FINGERS = (0.075, 0.02, -0.012)
_PALM = (0.115, 0.042, 0.022)

_PRICE_OF_TURNING = 0.3  # a radian
_PRICE_OF_WIDTH = 5.0  # a meter
_PRICE_OF_SHIFT = 10.0  # a meter
_PRICE_OF_BLOCKING = 2.0
_PRICE_OF_INTRUSION = 50.0  # a meter


@dataclass(frozen=True, eq=False)
class Grasp:
    """A grasp from above.

    Attributes:
        point: Where the point between the finger tips goes, meters ``(3,)``, at the time of planning.
        closing: Horizontal direction in which the fingers move, ``(2,)``.
        price: What speaks against it besides turning and what is in the way.
    """

    point: Float64
    closing: Float64
    price: float = 0.0


def pinches(outline: Float64, depth: float) -> list[Grasp]:
    """Grasps of an object between the fingers.

    Args:
        outline: Points of the thing, meters ``(n, 3)``.
        depth: How far below its top, meters; not deeper than 1 cm over its bottom.

    Returns:
        At least one: the narrowest, where all are too wide.
    """
    top, bottom = float(outline[:, 2].max()), float(outline[:, 2].min())
    height = max(top - depth, bottom + 0.01)
    grasps: list[tuple[float, Grasp]] = []
    for angle in _ANGLES:
        closing = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-closing[1], closing[0]])
        along = outline[:, :2] @ closing
        beside = outline[:, :2] @ across
        width, length = float(np.ptp(along)), float(np.ptp(beside))
        for shift in _SHIFTS:
            if abs(shift) > max(0.0, length / 2 - 0.02):
                continue
            middle = (along.max() + along.min()) / 2 * closing + ((beside.max() + beside.min()) / 2 + shift) * across
            price = _PRICE_OF_WIDTH * width + _PRICE_OF_SHIFT * abs(shift)
            grasps.append((width, Grasp(np.array([*middle, height]), closing, price)))
    fitting = [grasp for width, grasp in grasps if width <= _OPENING]
    return fitting or [min(grasps, key=lambda one: one[0])[1]]


def rims(outline: Float64, depth: float, angles: Sequence[float] | None = None) -> list[Grasp]:
    """Grasps of a bowl, mug or plate by its rim, one finger inside.

    Args:
        outline: Points of the thing, meters ``(n, 3)``.
        depth: How far below its top, meters.
        angles: Where on the rim, radians from the x axis; None for all around.
    """
    middle = (outline.max(axis=0) + outline.min(axis=0)) / 2
    top = float(outline[:, 2].max())
    upper = outline[outline[:, 2] > top - 0.02, :2] - middle[:2]
    grasps = []
    for angle in _RIM_ANGLES if angles is None else angles:
        closing = np.array([np.cos(angle), np.sin(angle)])
        radius = float((upper @ closing).max())
        for inset in _INSETS:
            point = np.array([*(middle[:2] + (radius - inset) * closing), top - depth])
            grasps.append(Grasp(point, closing, _PRICE_OF_SHIFT * inset))
    return grasps


def best(grasps: Sequence[Grasp], hand: Float64, others: Float64, nth: int = 0) -> Grasp:
    """The grasp with the lowest cost of turning and obstruction.

    Args:
        grasps: What there is to choose from.
        hand: How the hand is turned now, ``(3, 3)``.
        others: Points of everything else, meters ``(n, 3)``.
        nth: Take the next best but so many instead.
    """

    def price(grasp: Grasp) -> float:
        turn = float(np.arccos(min(1.0, abs(float(grasp.closing @ hand[:2, 1])))))
        blocked = sum(_intrusion(grasp, others, *shape) for shape in (_FINGERS, _PALM))
        return grasp.price + _PRICE_OF_TURNING * turn + blocked

    ranked = sorted(grasps, key=price)
    return ranked[min(nth, len(ranked) - 1)]


def _intrusion(grasp: Grasp, others: Float64, length: float, width: float, lowest: float) -> float:
    """How far other objects reach into a part of the hand's volume."""
    near = others[others[:, 2] > grasp.point[2] + lowest, :2] - grasp.point[:2]
    if not len(near):
        return 0.0
    along, across = near @ grasp.closing, near @ np.array([-grasp.closing[1], grasp.closing[0]])
    depth = float(np.minimum(length - np.abs(along), width - np.abs(across)).max())
    return _PRICE_OF_BLOCKING + _PRICE_OF_INTRUSION * depth if depth > 0 else 0.0
