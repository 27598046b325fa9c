"""From the names in settings to open models."""

from grape.perception.colors import ColorFeatures
from grape.perception.protocols import FeatureExtractor, Finder, MaskFinder

__all__ = ["COLOR", "open_features", "open_finder"]

COLOR = "colour"
"""Name of the features that need no weights."""


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
    """DINOv2, or plain colours where the name is ``color``.

    Raises:
        SettingsError: Packages or weights are missing, or of another kind.
        PolicyError: Weights are incomplete.
    """
    if name == COLOR:
        return ColorFeatures()
    from grape.perception.models.dinov2 import DinoV2

    return DinoV2(name, device)
