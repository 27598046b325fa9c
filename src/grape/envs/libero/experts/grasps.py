"""Where to take hold of things, from the shape of what can be touched of them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Grasp", "pinch", "rim"]

Float64 = npt.NDArray[np.float64]

_OPENING = 0.075  # metres between the open fingers, less a margin
_ANGLES = np.radians(np.arange(0, 180, 5))
_FIRST_CLOSING_ANGLE = np.pi / 2  # the hand of a new episode closes along y


@dataclass(frozen=True, eq=False)
class Grasp:
    """A grasp from above.

    Attributes:
        point: Where the point between the finger tips goes, metres ``(3,)``, at the time of planning.
        closing: Horizontal direction in which the fingers move, ``(2,)``.
        width: Of what is between the fingers, metres.
    """

    point: Float64
    closing: Float64
    width: float


def pinch(outline: Float64, depth: float) -> Grasp:
    """Take a thing between the fingers where it is narrowest.

    Args:
        outline: Corners of the thing, metres ``(n, 3)``.
        depth: How far below its top, metres; not deeper than 1 cm over its bottom.
    """
    top, bottom = float(outline[:, 2].max()), float(outline[:, 2].min())
    height = max(top - depth, bottom + 0.01)
    spans = []
    for angle in _ANGLES:
        along = outline[:, :2] @ np.array([np.cos(angle), np.sin(angle)])
        width = float(along.max() - along.min())
        turn = abs(angle - _FIRST_CLOSING_ANGLE)
        spans.append((width + 0.004 * turn, width, float(angle)))  # of equal widths the one that needs less turning
    _, width, angle = min(spans)
    closing = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-closing[1], closing[0]])
    middles = [(outline[:, :2] @ axis).max() / 2 + (outline[:, :2] @ axis).min() / 2 for axis in (closing, across)]
    return Grasp(np.array([*(middles[0] * closing + middles[1] * across), height]), closing, width)


def rim(outline: Float64, centre: Float64, angle: float, depth: float) -> Grasp:
    """Take a bowl, mug or plate by its rim, one finger inside.

    Args:
        outline: Corners of the thing, metres ``(n, 3)``.
        centre: Its axis, metres ``(2,)`` or ``(3,)``.
        angle: Where on the rim, radians from the x axis.
        depth: How far below its top, metres.
    """
    top = float(outline[:, 2].max())
    upper = outline[outline[:, 2] > top - 0.02, :2] - np.asarray(centre)[:2]
    closing = np.array([np.cos(angle), np.sin(angle)])
    radius = float((upper @ closing).max())
    return Grasp(np.array([*(np.asarray(centre)[:2] + radius * closing), top - depth]), closing, 0.01)
