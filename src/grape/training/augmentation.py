"""Small changes of pictures during supervised fine-tuning, drawn per picture from a given generator."""

import numpy as np
import numpy.typing as npt

__all__ = ["augment"]


def augment(
    images_BHWC: npt.NDArray[np.uint8], shift: int, brightness: float, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Move and brighten each picture at random.

    Args:
        images_BHWC: RGB pictures, uint8.
        shift: Largest move in pixels each way; pixels at the edge are repeated (as in arXiv 2004.13649).
        brightness: Largest relative change, e.g. 0.1 for factors in [0.9, 1.1]; one factor a picture.
        rng: Source of the numbers; equal generators give equal pictures.

    Returns:
        New pictures of the same shape; the input where nothing is to be done.
    """
    batch, height, width, _ = images_BHWC.shape
    result = images_BHWC
    if shift:
        down_B, right_B = rng.integers(-shift, shift + 1, size=(2, batch))
        rows_BH = np.clip(np.arange(height) + down_B[:, None], 0, height - 1)
        columns_BW = np.clip(np.arange(width) + right_B[:, None], 0, width - 1)
        result = result[np.arange(batch)[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]]
    if brightness:
        factor_B111 = rng.uniform(1 - brightness, 1 + brightness, size=(batch, 1, 1, 1)).astype(np.float32)
        result = np.clip(result * factor_B111 + 0.5, 0, 255).astype(np.uint8)
    return result
