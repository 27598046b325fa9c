"""Lifting of tracks to points in the world; NaN where a point is not visible."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grape.core.cameras import Camera
from grape.perception.patches import depth_at, patch_offsets
from grape.perception.tracking import Tracks

__all__ = ["LOST", "LiftedPoints", "lift_tracks", "mask_point"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LOST = ("found", "unsure", "out of view", "no depth", "hidden")
"""What became of a point in an image, by code: all but the first mean that its keypoint is NaN there.

``unsure``: the tracker's confidence is too low. ``hidden``: something nearer stands where the point should be, or the
surface it lay on is gone.
"""


@dataclass(frozen=True, eq=False)
class LiftedPoints:
    """Tracked points in the world.

    Attributes:
        points: Meters in the world's frame, float32 ``(T+1, K, 3)``; NaN where the point is lost.
        fate: Code of :data:`LOST` for each, int8 ``(T+1, K)``.
    """

    points: Float32
    fate: npt.NDArray[np.int8]

    def losses(self, point: int) -> Mapping[str, int]:
        """How many images a point was lost in, by reason; reasons that did not occur are left out."""
        counts = np.bincount(self.fate[:, point], minlength=len(LOST))
        return {LOST[code]: int(count) for code, count in enumerate(counts) if code and count}


def lift_tracks(
    tracks: Tracks, depth: Float32, camera: Camera, *, confidence: float = 0.5, band: float = 0.03
) -> LiftedPoints:
    """Lift tracks to the world.

    A point's depth is the median of those of the 3 x 3 pixels around it that go on from its last depth; at the edge of
    an object the others belong to what is behind. Depth may change from image to image by ``band`` and by as much
    as the point moved sideways. Where none goes on, the point is hidden.

    Args:
        tracks: Of ``K`` points.
        depth: Meters along the camera's axis, ``(T+1, H, W)``; not positive or not finite where nothing was measured.
        camera: The camera of images and depth.
        confidence: Below it a point counts as lost.
        band: Meters.
    """
    count = tracks.pixels.shape[1]
    points = np.full((len(depth), count, 3), np.nan)
    fate = np.zeros((len(depth), count), dtype=np.int8)
    around = patch_offsets(1)
    focal = float(np.abs(np.diag(camera.intrinsic)[:2]).mean())
    last_depth, last_pixel = np.full(count, np.nan), tracks.pixels[0].copy()
    for step in range(len(depth)):
        pixels = tracks.pixels[step]
        near = depth_at(depth[step], pixels[:, None, :] + around)
        near = np.where(np.isfinite(near) & (near > 0), near, np.nan)
        start = np.where(np.isnan(last_depth), near[:, len(around) // 2], last_depth)
        sideways = np.linalg.norm(pixels - last_pixel, axis=1) * start / focal
        goes_on = np.abs(near - start[:, None]) <= (band + sideways)[:, None]
        near_depth = _median(np.where(goes_on, near, np.nan))
        sure, in_view = tracks.confidence[step] >= confidence, camera.sees(pixels)
        unmeasured = np.isnan(near).all(axis=1) | np.isnan(start)
        fate[step] = np.select([~sure, ~in_view, unmeasured, np.isnan(near_depth)], [1, 2, 3, 4], 0)
        is_found = fate[step] == 0
        points[step, is_found] = camera.lift(pixels[is_found], near_depth[is_found])
        last_depth, last_pixel = (
            np.where(is_found, near_depth, last_depth),
            np.where(is_found[:, None], pixels, last_pixel),
        )
    return LiftedPoints(points.astype(np.float32), fate)


def mask_point(mask: Mask, depth: Float32, camera: Camera) -> Float64 | None:
    """The middle of what a mask shows: its pixel whose point in the world is nearest to the median of all.

    The middle of a ring or a bent thing lies beside it; a pixel of the mask always shows the thing itself. Pixels at
    the mask's rim are left out where enough others remain: their depth is often that of what is behind.

    Args:
        mask: ``(H, W)``.
        depth: Meters, ``(H, W)``.
        camera: Of both.

    Returns:
        Continuous coordinates (column, row), ``(2,)``; None where no pixel of the mask has a depth.
    """
    inner = mask & ~(_shifted(~mask, 1, 0) | _shifted(~mask, -1, 0) | _shifted(~mask, 1, 1) | _shifted(~mask, -1, 1))
    measured = np.isfinite(depth) & (depth > 0)
    chosen = inner & measured if int((inner & measured).sum()) >= _ENOUGH_PIXELS else mask & measured
    rows, columns = np.nonzero(chosen)
    if not len(rows):
        return None
    pixels = np.stack([columns, rows], axis=1) + 0.5
    points = camera.lift(pixels, depth[rows, columns])
    distance = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    middle: Float64 = pixels[int(distance.argmin())]
    return middle


_ENOUGH_PIXELS = 9


def _median(values: Float64) -> Float64:
    """Median of each row's numbers, NaN where there is none."""
    is_known = ~np.isnan(values)
    result = np.full(len(values), np.nan)
    some = is_known.any(axis=1)
    result[some] = np.nanmedian(values[some], axis=1)
    return result


def _shifted(mask: Mask, by: int, axis: int) -> Mask:
    """The mask moved by a pixel; what comes in from outside is True."""
    shifted = np.roll(mask, by, axis=axis)
    edge: list[slice | int] = [slice(None), slice(None)]
    edge[axis] = 0 if by > 0 else -1
    shifted[tuple(edge)] = True
    return shifted
