"""Patches of images around points: sampled between pixels, registered by translation, compared by color."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

__all__ = [
    "Patches",
    "color_pyramid",
    "cut_patches",
    "depth_at",
    "likeness",
    "most_alike",
    "own_pixels",
    "patch_offsets",
    "register",
    "sample",
]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_ITERATIONS = 12
_LARGEST_STEP = 2.0  # pixels an iteration: a solution beyond lies outside the gradient's reach
_RIDGE = 1e-3  # of the trace: patches without texture stay where they are
_CONVERGED = 0.03  # pixels
_BACKGROUND_WEIGHT = 0.1


def patch_offsets(radius: int) -> Float64:
    """Offsets (column, row) of a patch's pixels from its center, ``(N, 2)`` with ``N = (2 radius + 1)^2``."""
    steps = np.arange(-radius, radius + 1, dtype=np.float64)
    return np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)


def color_pyramid(pixels: npt.NDArray[np.uint8], levels: int) -> list[Float32]:
    """The image and its halvings by means of 2 x 2 pixels, float32 ``(H, W, 3)`` from fine to coarse.

    Continuous coordinates halve with each level.
    """
    pyramid = [pixels.astype(np.float32)]
    for _ in range(levels - 1):
        image = pyramid[-1]
        if min(image.shape[:2]) < 16:
            break
        image = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
        pyramid.append((image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / np.float32(4.0))
    return pyramid


def sample(image: Float32, places: Float64) -> Float32:
    """Values between pixels, bilinear; beyond the edge those of the edge.

    Args:
        image: ``(H, W, C)``.
        places: Continuous coordinates (column, row), ``(..., 2)``.

    Returns:
        float32 ``(..., C)``.
    """
    height, width = image.shape[:2]
    column = np.clip(places[..., 0] - 0.5, 0.0, width - 1.0)
    row = np.clip(places[..., 1] - 0.5, 0.0, height - 1.0)
    left, top = np.minimum(column.astype(np.intp), width - 2), np.minimum(row.astype(np.intp), height - 2)
    right_share = (column - left).astype(np.float32)[..., None]
    low_share = (row - top).astype(np.float32)[..., None]
    flat, corner = image.reshape(height * width, -1), top * width + left
    first, second = flat.take(corner, axis=0), flat.take(corner + 1, axis=0)
    upper = first + (second - first) * right_share
    corner += width
    first, second = flat.take(corner, axis=0), flat.take(corner + 1, axis=0)
    lower = first + (second - first) * right_share
    mixed: Float32 = upper + (lower - upper) * low_share
    return mixed


def own_pixels(depth: Float32 | None, points: Float64, offsets: Float64, band: float) -> Float32:
    """How much each pixel of a patch counts.

    Args:
        depth: Meters ``(H, W)``; None where all pixels count alike.
        points: Centers, ``(K, 2)``.
        offsets: ``(N, 2)`` in pixels of ``depth``.
        band: Meters.

    Returns:
        float32 ``(K, N)``: 1 for pixels about as far away as the center, 0 for nearer ones, a little for those behind,
        which show where the object ends; 1 throughout where the center's depth is unknown.
    """
    if depth is None:
        return np.ones((len(points), len(offsets)), dtype=np.float32)
    center = depth_at(depth, points)[:, None]
    around = depth_at(depth, points[:, None, :] + offsets)
    is_measured = np.isfinite(around) & (around > 0)
    beyond = np.where(is_measured, around - center, np.inf)
    weights = np.where(np.abs(beyond) <= band, 1.0, np.where(beyond > 0, _BACKGROUND_WEIGHT, 0.0))
    measured = np.isfinite(center) & (center > 0)
    return np.where(measured, weights, 1.0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Patches:
    """Patches around ``K`` points of an image at every size of it.

    Attributes:
        colors: By level, float32 ``(K, N, 3)``.
        slopes: Derivatives of the colors along columns and rows by level, float32 ``(K, N, 3, 2)``.
        weights: How much each pixel counts by level, float32 ``(K, N)``.
    """

    colors: list[Float32]
    slopes: list[Float32]
    weights: list[Float32]

    def of(self, members: npt.NDArray[np.intp], levels: int | None = None) -> "Patches":
        """Some of the points, at the finest levels."""
        colors, slopes, weights = (
            [array[members] for array in part[:levels]] for part in (self.colors, self.slopes, self.weights)
        )
        return Patches(colors, slopes, weights)

    def replace(self, members: npt.NDArray[np.intp], other: "Patches") -> None:
        """Take the patches of some points from ``other``, which holds these only."""
        for own_arrays, other_arrays in (
            (self.colors, other.colors),
            (self.slopes, other.slopes),
            (self.weights, other.weights),
        ):
            for array, new in zip(own_arrays, other_arrays, strict=True):
                array[members] = new


def cut_patches(
    pyramid: list[Float32], points: Float64, offsets: Float64, depth: Float32 | None, band: float
) -> Patches:
    """Patches around points ``(K, 2)``; see :func:`own_pixels` for the weights."""
    colors, slopes, weights = [], [], []
    for level, image in enumerate(pyramid):
        places = (points * 2.0**-level)[:, None, :] + offsets
        colors.append(sample(image, places))
        along = [sample(image, places + step) - sample(image, places - step) for step in np.eye(2)]
        slopes.append((np.stack(along, axis=-1) / 2.0).astype(np.float32))
        weights.append(own_pixels(depth, points, offsets * 2.0**level, band))
    return Patches(colors, slopes, weights)


def register(patches: Patches, pyramid: list[Float32], guesses: Float64, offsets: Float64) -> Float64:
    """Where patches are in another image, by translation, from coarse to fine (Lucas and Kanade 1981).

    Args:
        patches: Of ``K`` points, at no more levels than ``pyramid`` has.
        pyramid: The image to find them in.
        guesses: First guesses of their centers, ``(K, 2)``.
        offsets: Of a patch's pixels at every level, ``(N, 2)``.

    Returns:
        Centers, ``(K, 2)``.
    """
    positions = guesses.copy()
    for level in reversed(range(len(patches.colors))):
        scale = 2.0**-level
        slope = patches.slopes[level]
        weighted = slope * patches.weights[level][..., None, None]
        count = len(slope)
        system = (weighted.reshape(count, -1, 2).transpose(0, 2, 1) @ slope.reshape(count, -1, 2)).astype(np.float64)
        system += (_RIDGE * np.trace(system, axis1=1, axis2=2) + 1.0)[:, None, None] * np.eye(2)
        # One matrix a point leads from differences of color to the step: (K, 2, 3N).
        solver = np.linalg.inv(system).astype(np.float32) @ weighted.reshape(count, -1, 2).transpose(0, 2, 1)
        center = positions * scale
        moving = np.arange(count)
        for _ in range(_ITERATIONS):
            difference = patches.colors[level][moving] - sample(pyramid[level], center[moving, None, :] + offsets)
            step = (solver[moving] @ difference.reshape(len(moving), -1, 1))[..., 0].astype(np.float64)
            length = np.linalg.norm(step, axis=1)
            center[moving] += step * np.minimum(1.0, _LARGEST_STEP / np.maximum(length, 1e-9))[:, None]
            moving = moving[length > _CONVERGED]
            if not len(moving):
                break
        positions = center / scale
    return positions


def most_alike(image: Float32, patch: Float32, weights: Float32, center: Float64, reach: int) -> Float64:
    """The center of the most alike patch around a place, by steps of two pixels; of equals, the uppermost.

    Args:
        image: ``(H, W, 3)``.
        patch: Square, ``(N, 3)``.
        weights: ``(N,)``.
        center: Where to look, ``(2,)``.
        reach: How far to either side, pixels.

    Returns:
        Continuous coordinates, ``(2,)``.
    """
    side = round(len(patch) ** 0.5)
    radius = side // 2
    border = reach + radius
    column, row = (int(np.floor(place)) for place in center)
    rows = np.clip(np.arange(row - border, row + border + 1), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(column - border, column + border + 1), 0, image.shape[1] - 1)
    windows = sliding_window_view(image[np.ix_(rows, columns)], (side, side), axis=(0, 1))[::2, ::2]
    difference = np.abs(windows - patch.reshape(side, side, 3).transpose(2, 0, 1)).sum(axis=2)
    cost = np.einsum("abij,ij->ab", difference, weights.reshape(side, side))
    down, right = np.unravel_index(int(cost.argmin()), cost.shape)
    return np.array([column - reach + 2 * right + 0.5, row - reach + 2 * down + 0.5])


def likeness(one: Float32, other: Float32, weights: Float32, scale: float) -> Float64:
    """How alike patches are: 1 for equal ones, 1/e where colors differ by ``scale`` levels in the mean.

    Args:
        one: ``(K, N, 3)``.
        other: ``(K, N, 3)``.
        weights: ``(K, N)``.
        scale: Levels of 255.

    Returns:
        float64 ``(K,)``.
    """
    difference = np.abs(one - other).mean(axis=-1)
    mean = np.sum(difference * weights, axis=-1) / np.maximum(np.sum(weights, axis=-1), 1e-6)
    alike: Float64 = np.exp(-mean.astype(np.float64) / scale)
    return alike


def depth_at(depth: Float32, places: Float64) -> Float64:
    """Depth of the pixels that contain some places ``(..., 2)``, beyond the edge that of the edge."""
    height, width = depth.shape
    column = np.clip(np.floor(places[..., 0]), 0, width - 1).astype(np.intp)
    row = np.clip(np.floor(places[..., 1]), 0, height - 1).astype(np.intp)
    return depth[row, column].astype(np.float64)
