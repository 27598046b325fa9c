"""How far a thing moved between two images, from what is seen of it in both."""

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from grape.core.cameras import Camera

__all__ = ["aligning_shift", "seen_points"]

Float64 = npt.NDArray[np.float64]

_MOST_POINTS = 600
_ROUNDS = 50
_SETTLED = 1e-5  # metres
_OUTLIER = 3.0  # times the median distance


def seen_points(mask: npt.NDArray[np.bool_], depth: npt.NDArray[np.float32], camera: Camera) -> Float64:
    """What a mask shows, as points in the world, metres ``(n, 3)``; of many every n-th.

    Args:
        mask: ``(H, W)``.
        depth: Metres, ``(H, W)``; pixels without depth are left out.
        camera: Of both.
    """
    rows, columns = np.nonzero(mask & np.isfinite(depth) & (depth > 0))
    every = max(1, -(-len(rows) // _MOST_POINTS))
    rows, columns = rows[::every], columns[::every]
    return camera.lift(np.stack([columns, rows], axis=1) + 0.5, depth[rows, columns])


def aligning_shift(before: Float64, after: Float64) -> tuple[Float64, float]:
    """The translation that lays the points seen now upon those seen before (iterative closest points).

    What is seen now may be a part of what was seen before: every point now looks for its nearest before, not the other
    way round, and the mean over those that found one close by decides.

    Args:
        before: Metres, ``(n, 3)``, at least one.
        after: Metres, ``(m, 3)``, at least one.

    Returns:
        The shift from ``before`` to ``after``, metres ``(3,)``, and the median distance that is left between them,
        metres: large where the thing turned or another one was found.
    """
    tree = cKDTree(before)
    shift: Float64 = np.median(after, axis=0) - np.median(before, axis=0)
    left = np.zeros(len(after))
    for _ in range(_ROUNDS):
        left, nearest = tree.query(after - shift)
        close = left <= _OUTLIER * max(float(np.median(left)), _SETTLED)  # masks take in some of what is behind
        step = (after - shift - before[nearest])[close].mean(axis=0)
        shift = shift + step
        if float(np.linalg.norm(step)) < _SETTLED:
            break
    return shift, float(np.median(left))
