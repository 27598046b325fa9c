"""Opening of the models that settings name."""

import numpy as np
import numpy.typing as npt

from grape.perception.protocols import FeatureExtractor, Finder, MaskFinder

__all__ = ["COLOR_NAMES", "ColorFeatures", "open_features", "open_finder"]


class ColorFeatures:
    """Extractor whose vectors are a pixel's colors, scaled to [0, 1]."""

    def features(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See :class:`grape.perception.protocols.FeatureExtractor`; one cell a pixel."""
        return image.astype(np.float32) / np.float32(255.0)


COLOR_NAMES = ("color", "colour")
"""Names of the features that need no weights; the second is that of release 0.1."""


def open_finder(detector: str, segmenter: str, device: str) -> Finder:
    """Grounding DINO and SAM 2 as one finder.

    Raises:
        SettingsError: Packages or weights are missing, or of another kind.
        PolicyError: Weights are incomplete.
    """
    from grape.perception.models.grounding_dino import GroundingDino
    from grape.perception.models.sam2 import Sam2

    return MaskFinder(GroundingDino(detector, device), Sam2(segmenter, device))


def open_features(name: str, device: str) -> FeatureExtractor:
    """DINOv2, or plain colors where the name is ``color``.

    Raises:
        SettingsError: Packages or weights are missing, or of another kind.
        PolicyError: Weights are incomplete.
    """
    if name in COLOR_NAMES:
        return ColorFeatures()
    from grape.perception.models.dinov2 import DinoV2

    return DinoV2(name, device)
