"""Features without a model: the colours themselves. For simple scenes, and where no weights can be had."""

import numpy as np
import numpy.typing as npt

__all__ = ["ColorFeatures"]


class ColorFeatures:
    """Extractor whose vectors are a pixel's colours, scaled to [0, 1]."""

    def features(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See :class:`grape.perception.protocols.FeatureExtractor`; one cell a pixel."""
        return image.astype(np.float32) / np.float32(255.0)
