"""Protocols of perception models: detector, segmenter, feature extractor, finder."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Detection", "Detector", "FeatureExtractor", "Finder", "FinderResult", "MaskFinder", "Segmenter"]

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Detection:
    """One detection.

    Attributes:
        box: Left, top, right, bottom in pixels.
        score: Confidence, 0 to 1.
    """

    box: tuple[float, float, float, float]
    score: float


class Detector(Protocol):
    """Finds what a phrase names."""

    def detect(self, image: Image, phrase: str) -> tuple[Detection, ...]:
        """Boxes of what a phrase such as ``"black bowl"`` names in an RGB image ``(H, W, 3)``, surest first."""


class Segmenter(Protocol):
    """Tells which pixels belong to the thing in a box."""

    def segment(self, image: Image, box: tuple[float, float, float, float]) -> Mask:
        """Mask ``(H, W)`` of the main thing in a box (left, top, right, bottom, pixels)."""


class FeatureExtractor(Protocol):
    """Describes every part of an image by a vector."""

    def features(self, image: Image) -> npt.NDArray[np.float32]:
        """Vectors of a grid of cells that covers an RGB image ``(H, W, 3)``, float32 ``(h, w, C)``."""


@dataclass(frozen=True, eq=False)
class FinderResult:
    """Result of a finder.

    Attributes:
        mask: ``(H, W)``.
        score: Confidence, 0 to 1.
    """

    mask: Mask
    score: float


class Finder(Protocol):
    """Finds the pixels of what a phrase names."""

    def find(self, image: Image, phrase: str) -> FinderResult | None:
        """The detection with the highest score, or None."""


@dataclass(frozen=True)
class MaskFinder:
    """A detector followed by a segmenter.

    Attributes:
        detector: Finds boxes.
        segmenter: Finds pixels in a box.
    """

    detector: Detector
    segmenter: Segmenter

    def find(self, image: Image, phrase: str) -> FinderResult | None:
        """See :class:`Finder`."""
        detections = self.detector.detect(image, phrase)
        if not detections:
            return None
        mask = self.segmenter.segment(image, detections[0].box)
        return FinderResult(mask, detections[0].score) if mask.any() else None
