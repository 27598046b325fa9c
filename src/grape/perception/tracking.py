"""Following points through images: the protocol, and a tracker of patches that needs no weights.

The tracker uses depth where there is any. A patch around a point on a small object shows more background than object,
and the background stays where it is; depth tells which pixels of the patch belong to the point, and only these count
in full. From image to image a translation is solved for from coarse to fine, and back again to see whether it
returns (Kalal, Mikolajczyk and Matas 2010); where that fails the patch is sought around its last place. What is found
must look like the last patch and like the first one. A point that does not is lost, and is sought again in every later
image.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from grape.perception.patches import (
    Patches,
    color_pyramid,
    cut_patches,
    depth_at,
    likeness,
    most_alike,
    patch_offsets,
    register,
    sample,
)

__all__ = ["PatchTracker", "PointTracker", "Tracks"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Images = npt.NDArray[np.uint8]

_CORRECTION = 1.5  # pixels by which the first patch may move what the last one found
_CHANGE = 1.5  # a patch may come to look this much less like the first one than confidence says


@dataclass(frozen=True, eq=False)
class Tracks:
    """Where points are in each image.

    Attributes:
        pixels: Continuous coordinates (column, row), float64 ``(T+1, K, 2)``; the last known ones of a lost point.
        confidence: 0 (lost) to 1, float64 ``(T+1, K)``.
    """

    pixels: Float64
    confidence: Float64


class PointTracker(Protocol):
    """Anything that follows points: a tracker of patches, a learned one, or detection in every image."""

    def track(self, images: Images, points: Float64, depth: Float32 | None = None) -> Tracks:
        """Follow points from the first image on.

        Args:
            images: RGB, uint8 ``(T+1, H, W, 3)``.
            points: Continuous coordinates (column, row) in the first image, ``(K, 2)``.
            depth: Meters ``(T+1, H, W)``, not positive or not finite where nothing was measured; None if there is none.
        """


@dataclass(frozen=True)
class PatchTracker:
    """Tracker of patches by color and depth.

    Attributes:
        radius: Half the side of a patch, pixels.
        levels: Sizes of the image, each half of the one before; a coarse one covers fast motion.
        search: How far around its last place a patch is sought where following failed, pixels.
        band: Pixels of a patch count in full if their depth differs from the point's by less, meters.
        color_scale: Mean difference of colors, in levels of 255, at which likeness falls to 1/e.
        keep: Confidence from which a patch replaces the last one; below it the point counts as lost.
        sure: Confidence below which the point is also looked for where its motion would have taken it.
    """

    radius: int = 6
    levels: int = 4
    search: int = 40
    band: float = 0.03
    color_scale: float = 25.0
    keep: float = 0.5
    sure: float = 0.8

    def track(self, images: Images, points: Float64, depth: Float32 | None = None) -> Tracks:
        """Follow points; see :class:`PointTracker`."""
        places = np.asarray(points, dtype=np.float64)
        pixels = np.empty((len(images), *places.shape))
        confidence = np.ones((len(images), len(places)))
        pixels[0] = places
        if not len(places):
            return Tracks(pixels, confidence)
        state = _State(self, images[0], places, None if depth is None else depth[0])
        for number in range(1, len(images)):
            confidence[number] = state.follow(images[number], None if depth is None else depth[number])
            pixels[number] = state.places
        return Tracks(pixels, confidence)


class _State:
    """State of the tracker for ``K`` points: their first patches and the last good ones."""

    def __init__(self, settings: PatchTracker, image: Images, places: Float64, depth: Float32 | None) -> None:
        self.settings = settings
        self.offsets = patch_offsets(settings.radius)
        self.places = places.copy()
        self.motion = np.zeros_like(places)
        self.pyramid = color_pyramid(image, settings.levels)
        self.good = self._cut(self.pyramid, places, depth)
        self.first = self._cut(self.pyramid[:1], places, depth)
        self.depth = np.full(len(places), np.nan) if depth is None else depth_at(depth, places)
        self.followed = np.ones(len(places), dtype=bool)

    def follow(self, image: Images, depth: Float32 | None) -> Float64:
        """Find all points in the next image; their confidence ``(K,)``."""
        pyramid = color_pyramid(image, self.settings.levels)
        everyone = np.arange(len(self.places))
        places, confidence = self._find(pyramid, everyone, self.places, depth)
        swift = np.flatnonzero((confidence < self.settings.sure) & (np.abs(self.motion).max(axis=1) > 0.5))
        self._improve(places, confidence, swift, pyramid, self.places[swift] + self.motion[swift], depth)
        unsure = np.flatnonzero((confidence < self.settings.keep) & self.followed)
        self._improve(places, confidence, unsure, pyramid, self._search(pyramid, unsure), depth)
        confidence[(confidence < self.settings.sure) & ~self.followed] = 0.0
        is_confident = confidence >= self.settings.keep
        self.motion = np.where(is_confident[:, None] & self.followed[:, None], places - self.places, 0.0)
        self.places[is_confident] = places[is_confident]
        members = np.flatnonzero(is_confident)
        self.good.replace(members, self._cut(pyramid, self.places[members], depth))
        if depth is not None:
            self.depth[members] = depth_at(depth, self.places[members])
        self.followed, self.pyramid = is_confident, pyramid
        return confidence

    def _improve(
        self,
        positions: Float64,
        confidence: Float64,
        members: npt.NDArray[np.intp],
        pyramid: list[Float32],
        guesses: Float64,
        depth: Float32 | None,
    ) -> None:
        """Try other first guesses for some points, and keep what is better."""
        if len(members):
            places, surer = self._find(pyramid, members, guesses, depth)
            better = surer > confidence[members]
            positions[members[better]], confidence[members[better]] = places[better], surer[better]

    def _find(
        self, pyramid: list[Float32], members: npt.NDArray[np.intp], guesses: Float64, depth: Float32 | None
    ) -> tuple[Float64, Float64]:
        """Places of some points and their confidence, from first guesses."""
        patches = self.good.of(members)
        places = register(patches, pyramid, guesses, self.offsets)
        places, like_first = self._anchored(pyramid, members, places)
        sampled_colors = sample(pyramid[0], places[:, None, :] + self.offsets)
        like_last = likeness(patches.colors[0], sampled_colors, patches.weights[0], self.settings.color_scale)
        confidence = np.minimum(like_last, _CHANGE * like_first)
        confidence /= np.maximum(1.0, self._forward_backward_error(pyramid, members, places))
        height, width = pyramid[0].shape[:2]
        confidence[~((places >= 0) & (places <= [width, height])).all(axis=1)] = 0.0
        if depth is not None:
            lateral = np.linalg.norm(places - self.places[members], axis=1) * self.depth[members] / width
            change = np.abs(depth_at(depth, places) - self.depth[members])
            confidence[change > self.settings.band + lateral] = 0.0
        return places, confidence

    def _anchored(
        self, pyramid: list[Float32], members: npt.NDArray[np.intp], places: Float64
    ) -> tuple[Float64, Float64]:
        """Places after a last look at the first patches, and the likeness to them.

        From image to image small errors add up; the first patch, where the point still looks like it, ends that.
        """
        first, scale = self.first.of(members), self.settings.color_scale
        again = register(first, pyramid[:1], places, self.offsets)
        alike, closer = (
            likeness(first.colors[0], sample(pyramid[0], at[:, None, :] + self.offsets), first.weights[0], scale)
            for at in (places, again)
        )
        better = (closer > alike) & (np.linalg.norm(again - places, axis=1) <= _CORRECTION)
        return np.where(better[:, None], again, places), np.where(better, closer, alike)

    def _forward_backward_error(
        self, pyramid: list[Float32], members: npt.NDArray[np.intp], places: Float64
    ) -> Float64:
        """Forward-backward error in pixels, ``(K,)``: how far tracking back from the new places ends from the old.

        Zero for points that were lost in the image before: the way would lead there.
        """
        astray = np.zeros(len(members))
        chosen = np.flatnonzero(self.followed[members])
        if len(chosen):
            start, there = self.places[members[chosen]], places[chosen]
            patches = self._cut(pyramid, there, None)
            patches = Patches(patches.colors, patches.slopes, self.good.of(members[chosen]).weights)
            astray[chosen] = np.linalg.norm(register(patches, self.pyramid, start, self.offsets) - start, axis=1)
        return astray

    def _search(self, pyramid: list[Float32], members: npt.NDArray[np.intp]) -> Float64:
        """The most alike places within the search radius, looked for at half the image's size, ``(K, 2)``."""
        level = min(1, len(pyramid) - 1)
        scale, best = 2.0**-level, np.empty((len(members), 2))
        for row, member in enumerate(members):
            patch, weights = self.good.colors[level][member], self.good.weights[level][member]
            center, reach = self.places[member] * scale, max(2, self.settings.search >> level)
            best[row] = most_alike(pyramid[level], patch, weights, center, reach) / scale
        return best

    def _cut(self, pyramid: list[Float32], places: Float64, depth: Float32 | None) -> Patches:
        return cut_patches(pyramid, places, self.offsets, depth, self.settings.band)
