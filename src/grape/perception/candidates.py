"""Candidate keypoints of an image: clusters of pixels that look alike and lie together.

As ReKep proposes them (arXiv 2409.01652): features of every pixel, reduced to their main directions, and places in the
world are clustered within each object's mask; a cluster's most typical pixel becomes a candidate, and candidates that
lie too close to each other are merged. Nothing is random: clustering begins with points farthest from one another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grape.core.cameras import Camera

__all__ = ["Candidate", "CandidateSettings", "find_candidates", "k_means"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_DIRECTIONS = 3  # of the features
_MOST_PIXELS = 20_000  # clustered of one mask; of a larger one every n-th pixel is taken
_ROUNDS = 25


@dataclass(frozen=True)
class CandidateSettings:
    """How candidates are chosen.

    Attributes:
        clusters: Clusters in each mask, before merging.
        place_scale: Distance in the world, meters, that weighs as much as one standard deviation of the features.
        apart: Candidates closer than this are merged, meters.
        region: Lower and upper corner of the box in the world that candidates must lie in, meters; None for anywhere.
        most: Largest number of candidates; those of the largest clusters are kept.
    """

    clusters: int = 5
    place_scale: float = 0.05
    apart: float = 0.04
    region: tuple[float, float, float, float, float, float] | None = None
    most: int = 30


@dataclass(frozen=True)
class Candidate:
    """A point that a model may choose as a keypoint.

    Attributes:
        number: What is drawn beside it, from 0: from the top of the image to the bottom, then from left to right.
        pixel: Continuous coordinates (column, row).
        point: Meters in the world's frame.
        mask: Index of the mask it was found in.
        size: Pixels in its cluster.
    """

    number: int
    pixel: tuple[float, float]
    point: tuple[float, float, float]
    mask: int
    size: int


def find_candidates(
    features: Float32,
    depth: Float32,
    camera: Camera,
    masks: Sequence[Mask] = (),
    settings: CandidateSettings = CandidateSettings(),
) -> tuple[Candidate, ...]:
    """Candidates of one image.

    Args:
        features: Of a grid of cells that covers the image, ``(h, w, C)``.
        depth: Meters, ``(H, W)``; pixels without depth are left out.
        camera: The camera.
        masks: Of the objects, ``(H, W)`` each; none stands for the whole image.
        settings: How they are chosen.

    Returns:
        By number; empty where no pixel of a mask lies in the region.
    """
    height, width = depth.shape
    rows, columns = np.indices((height, width))
    pixels = np.stack([columns, rows], axis=-1) + 0.5
    points = camera.lift(pixels, depth)
    usable = np.isfinite(points).all(axis=-1)
    if settings.region is not None:
        low, high = np.array(settings.region[:3]), np.array(settings.region[3:])
        usable &= ((points >= low) & (points <= high)).all(axis=-1)
    cells = features[rows * features.shape[0] // height, columns * features.shape[1] // width]
    typical_points: list[tuple[int, int, Float64, Float64]] = []
    for index, mask in enumerate(masks or [np.ones((height, width), dtype=bool)]):
        chosen = np.flatnonzero(mask & usable)
        chosen = chosen[:: -(-len(chosen) // _MOST_PIXELS) or 1]
        if not len(chosen):
            continue
        places = points.reshape(-1, 3)[chosen]
        vectors = np.concatenate(
            [_main_directions(cells.reshape(height * width, -1)[chosen]), places / settings.place_scale], axis=1
        )
        labels, centers = k_means(vectors, settings.clusters)
        for label, center in enumerate(centers):
            members = np.flatnonzero(labels == label)
            typical = members[int(np.linalg.norm(vectors[members] - center, axis=1).argmin())]
            typical_points.append((len(members), index, pixels.reshape(-1, 2)[chosen[typical]], places[typical]))
    typical_points.sort(key=lambda item: (-item[0], item[1], item[2][1], item[2][0]))
    distinct: list[tuple[int, int, Float64, Float64]] = []
    for item in typical_points:
        if len(distinct) < settings.most and all(
            np.linalg.norm(item[3] - other[3]) >= settings.apart for other in distinct
        ):
            distinct.append(item)
    distinct.sort(key=lambda item: (item[2][1], item[2][0]))
    return tuple(
        Candidate(
            number,
            (float(pixel[0]), float(pixel[1])),
            (float(point[0]), float(point[1]), float(point[2])),
            mask,
            size,
        )
        for number, (size, mask, pixel, point) in enumerate(distinct)
    )


def k_means(vectors: Float64, clusters: int) -> tuple[npt.NDArray[np.intp], Float64]:
    """Cluster vectors (Lloyd 1982), beginning with the one nearest to the mean and then the farthest from those before.

    Args:
        vectors: ``(N, D)``, at least one.
        clusters: How many; fewer where there are not so many different vectors.

    Returns:
        Cluster of each vector ``(N,)`` and the clusters' means ``(k, D)``.
    """
    first = int(np.linalg.norm(vectors - vectors.mean(axis=0), axis=1).argmin())
    centers = vectors[[first]]
    distance = np.linalg.norm(vectors - centers[0], axis=1)
    while len(centers) < clusters and float(distance.max()) > 1e-9:
        centers = np.concatenate([centers, vectors[[int(distance.argmax())]]])
        distance = np.minimum(distance, np.linalg.norm(vectors - centers[-1], axis=1))
    labels = np.zeros(len(vectors), dtype=np.intp)
    for number in range(_ROUNDS):
        away = np.linalg.norm(vectors[:, None, :] - centers, axis=2)
        nearest = away.argmin(axis=1)
        if number and (nearest == labels).all():
            break
        labels = nearest
        for label in range(len(centers)):
            if (labels == label).any():
                centers[label] = vectors[labels == label].mean(axis=0)
    used, labels = np.unique(labels, return_inverse=True)
    return labels, centers[used]


def _main_directions(features: Float32) -> Float64:
    """Features along their directions of largest variance, scaled to a standard deviation of 1 along the first."""
    centered = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    scatter = centered.T @ centered / len(centered)
    values, directions = np.linalg.eigh(scatter)
    main = directions[:, ::-1][:, :_DIRECTIONS]
    main = main * np.where(main[np.abs(main).argmax(axis=0), np.arange(main.shape[1])] < 0, -1.0, 1.0)
    largest = float(values[-1])
    return centered @ main / np.sqrt(largest) if largest > 1e-12 else np.zeros((len(features), main.shape[1]))
