"""Keypoints of one episode: located in its first image, tracked, detected again, lifted; NaN where they are lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from grape.core.cameras import Camera
from grape.perception.keypoint_file import ImageKeypoint, KeypointFile
from grape.perception.lifting import LOST, LiftedPoints, lift_tracks, mask_point
from grape.perception.protocols import Finder
from grape.perception.tracking import PointTracker, Tracks

__all__ = ["FollowSettings", "FollowedKeypoint", "aligning_shift", "follow_keypoints", "seen_points"]

Float64 = npt.NDArray[np.float64]

_MOST_POINTS = 600
_ROUNDS = 50
_SETTLED = 1e-5  # meters
_OUTLIER = 3.0  # times the median distance


def seen_points(mask: npt.NDArray[np.bool_], depth: npt.NDArray[np.float32], camera: Camera) -> Float64:
    """What a mask shows, as points in the world, meters ``(n, 3)``; of many every n-th.

    Args:
        mask: ``(H, W)``.
        depth: Meters, ``(H, W)``; pixels without depth are left out.
        camera: Of both.
    """
    rows, columns = np.nonzero(mask & np.isfinite(depth) & (depth > 0))
    every = max(1, -(-len(rows) // _MOST_POINTS))
    rows, columns = rows[::every], columns[::every]
    return camera.lift(np.stack([columns, rows], axis=1) + 0.5, depth[rows, columns])


def aligning_shift(before: Float64, after: Float64) -> tuple[Float64, float]:
    """The translation that aligns points with earlier ones (iterative closest points).

    What is seen now may be a part of what was seen before: every point now looks for its nearest before, not the other
    way round, and the mean over those that found one close by decides.

    Args:
        before: Meters, ``(n, 3)``, at least one.
        after: Meters, ``(m, 3)``, at least one.

    Returns:
        The shift from ``before`` to ``after``, meters ``(3,)``, and the median distance that is left between them,
        meters: large where the thing turned or another one was found.
    """
    tree = cKDTree(before)
    shift: Float64 = np.median(after, axis=0) - np.median(before, axis=0)
    distances = np.zeros(len(after))
    for _ in range(_ROUNDS):
        distances, nearest = tree.query(after - shift)
        close = distances <= _OUTLIER * max(
            float(np.median(distances)), _SETTLED
        )  # masks take in some of what is behind
        step = (after - shift - before[nearest])[close].mean(axis=0)
        shift = shift + step
        if float(np.linalg.norm(step)) < _SETTLED:
            break
    return shift, float(np.median(distances))


Float32 = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FollowSettings:
    """When a keypoint counts as seen.

    Attributes:
        confidence: Below this confidence of the tracker (0 to 1) a keypoint is lost.
        band: How far its depth may change from image to image beyond its sideways motion, meters.
        find_again: Ask the finder in images where a keypoint given by phrase is lost.
        fit: Largest median distance at which a thing found again counts as the one seen in the first image, meters.
        score: Least score of a find, 0 to 1.
    """

    confidence: float = 0.5
    band: float = 0.03
    find_again: bool = True
    fit: float = 0.006
    score: float = 0.3


@dataclass(frozen=True, eq=False)
class FollowedKeypoint:
    """One keypoint through an episode.

    Attributes:
        points: Meters in the world's frame, float32 ``(T+1, 3)``; NaN where it is lost.
        pixels: Continuous coordinates (column, row), float32 ``(T+1, 2)``; NaN where it is lost.
        losses: Images it was lost in, by reason (:data:`grape.perception.lifting.LOST`); empty if never.
        found_again: Images in which it was not tracked but found.
    """

    points: Float32
    pixels: Float32
    losses: Mapping[str, int] = field(default_factory=dict)
    found_again: int = 0


def follow_keypoints(
    keypoint_file: KeypointFile,
    images: Image,
    depth: Float32,
    camera: Camera,
    tracker: PointTracker,
    finder: Finder | None = None,
    settings: FollowSettings = FollowSettings(),
    look_at: Sequence[int] | None = None,
) -> dict[str, FollowedKeypoint]:
    """Follow all keypoints of a file through one episode.

    A keypoint given by pixel is tracked from the reference image to the first one, and on from there. One given by
    phrase begins at the middle of what the finder finds in the first image; where the tracker loses it, it has moved
    as what the finder finds then, if that fits what was seen at first. Nothing stands in for a lost keypoint: it is
    NaN.

    Args:
        keypoint_file: Which keypoints.
        images: RGB, uint8 ``(T+1, H, W, 3)``.
        depth: Meters ``(T+1, H, W)``.
        camera: Of both.
        tracker: Follows points.
        finder: For phrases; needed where there are any.
        settings: When a keypoint counts as seen.
        look_at: Images in which it is worth finding a lost keypoint again; all if None.

    Raises:
        ValueError: There are phrases and no finder, or the reference image has another size.
    """
    masks: dict[str, Mask] = {}
    starts, sure = _starts(keypoint_file, images[0], depth[0], camera, tracker, finder, settings, masks)
    tracks = tracker.track(images, starts, depth)
    # What was not located in the first image is not tracked either, wherever the tracker went from there.
    tracks = Tracks(tracks.pixels, np.where(sure[None, :], tracks.confidence, 0.0))
    lifted = lift_tracks(tracks, depth, camera, confidence=settings.confidence, band=settings.band)
    followed = {}
    for index, keypoint in enumerate(keypoint_file.keypoints):
        points, pixels = lifted.points[:, index].copy(), tracks.pixels[:, index].astype(np.float32)
        again: list[int] = []
        if keypoint.name in masks and finder is not None and settings.find_again:
            before = seen_points(masks[keypoint.name], depth[0], camera)
            again = _find_again(keypoint, before, points, pixels, images, depth, camera, finder, settings, look_at)
        pixels[np.isnan(points).any(axis=1)] = np.nan
        followed[keypoint.name] = FollowedKeypoint(points, pixels, _losses(lifted, index, again), len(again))
    return followed


def _starts(
    keypoint_file: KeypointFile,
    image: Image,
    depth: Float32,
    camera: Camera,
    tracker: PointTracker,
    finder: Finder | None,
    settings: FollowSettings,
    masks: dict[str, Mask],
) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """Where the keypoints are in the first image, ``(K, 2)``, and which of them were found there, ``(K,)``.

    What was found by phrase is put into ``masks``.
    """
    starts, sure = np.zeros((len(keypoint_file.keypoints), 2)), np.zeros(len(keypoint_file.keypoints), dtype=bool)
    by_pixel = [index for index, keypoint in enumerate(keypoint_file.keypoints) if keypoint.pixel is not None]
    if by_pixel:
        assert keypoint_file.image is not None, "the file's reader sees to it"
        if keypoint_file.image.shape != image.shape:
            raise ValueError(f"the reference image is {keypoint_file.image.shape[:2]}, the episode's {image.shape[:2]}")
        known_pixels = np.array([keypoint_file.keypoints[index].pixel for index in by_pixel])
        both = None if keypoint_file.depth is None else np.stack([keypoint_file.depth, depth])
        located = tracker.track(np.stack([keypoint_file.image, image]), known_pixels, both)
        starts[by_pixel] = located.pixels[1]
        sure[by_pixel] = located.confidence[1] >= settings.confidence
    for index, keypoint in enumerate(keypoint_file.keypoints):
        if keypoint.phrase:
            if finder is None:
                raise ValueError(f"keypoint {keypoint.name} is given by phrase, and there is no finder")
            detection = finder.find(image, keypoint.phrase)
            if detection is None or detection.score < settings.score:
                continue
            middle = mask_point(detection.mask, depth, camera)
            if middle is not None:
                starts[index], sure[index], masks[keypoint.name] = middle, True, detection.mask
    return starts, sure


def _find_again(
    keypoint: ImageKeypoint,
    before: Float64,
    points: Float32,
    pixels: Float32,
    images: Image,
    depth: Float32,
    camera: Camera,
    finder: Finder,
    settings: FollowSettings,
    look_at: Sequence[int] | None,
) -> list[int]:
    """Fill in, in place, where the finder finds a lost keypoint; the numbers of those images.

    Which part of a thing is seen changes, and the middle of that part wanders over it. So what is found is laid upon
    what was seen in the first image, ``before``, and the keypoint moves with it.
    """
    again = []
    for step in range(1, len(images)) if look_at is None else sorted(set(look_at) - {0}):
        if np.isfinite(points[step]).all():
            continue
        detection = finder.find(images[step], keypoint.phrase)
        if detection is None or detection.score < settings.score:
            continue
        after = seen_points(detection.mask, depth[step], camera)
        if not len(after):
            continue
        shift, distance = aligning_shift(before, after)
        if distance <= settings.fit:
            points[step] = points[0] + shift
            pixels[step], _ = camera.project(points[step])
            again.append(step)
    return again


def _losses(lifted: LiftedPoints, index: int, again: Sequence[int]) -> dict[str, int]:
    fate = np.delete(lifted.fate[:, index], list(again))
    counts = np.bincount(fate, minlength=len(LOST))
    return {LOST[code]: int(count) for code, count in enumerate(counts) if code and count}
