"""From an image to a network's input: resized, scaled to [0, 1], normalised as on ImageNet."""

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["normalised", "shorter_side"]

_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def normalised(
    image: npt.NDArray[np.uint8], height: int, width: int, *, cubic: bool = False
) -> npt.NDArray[np.float32]:
    """The image stretched to a size and normalised.

    Args:
        image: RGB, uint8 ``(H, W, 3)``.
        height: Pixels.
        width: Pixels.
        cubic: Bicubic instead of bilinear resizing; both with antialiasing.

    Returns:
        float32 ``(1, 3, height, width)``.
    """
    kernel = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    resized = np.asarray(Image.fromarray(image).resize((width, height), kernel), dtype=np.float32) / np.float32(255.0)
    return np.ascontiguousarray(((resized - _MEAN) / _STD).transpose(2, 0, 1))[None]


def shorter_side(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    """Height and width of an image whose shorter side becomes ``shortest`` unless the other passes ``longest``."""
    scale = min(shortest / min(height, width), longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
