"""Changes of images during supervised fine-tuning, drawn for each image from a given generator.

Two sets: OpenVLA's published recipe, and two small ones of our own (moves and brightness) for policies that train from
nothing, where a crop would cost resolution.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from grape.core.images import crop_and_resize
from grape.core.trajectories import Observation

__all__ = ["CROP_AREA", "augment", "augment_observations", "openvla_recipe"]

Images = npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.float32]

CROP_AREA = 0.9
"""Share of the image's area that OpenVLA's crops keep; evaluation cuts the same share out of the middle."""

_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = 0.2, (0.8, 1.2), (0.8, 1.2), 0.05


def augment_observations(observations: Sequence[Observation], change: Callable[[Images], Images]) -> list[Observation]:
    """Observations with other images, camera by camera.

    Args:
        observations: At least one, all with images of the same cameras.
        change: Changes the images ``(B, H, W, 3)`` of one camera; it draws the same numbers at every call, so that all
            cameras of an observation are moved, brightened and cropped alike.
    """
    main = change(np.stack([observation.image for observation in observations]))
    others = {
        name: change(np.stack([observation.cameras[name] for observation in observations]))
        for name in observations[0].cameras
    }
    return [
        replace(observation, image=main[row], cameras={name: images[row] for name, images in others.items()})
        for row, observation in enumerate(observations)
    ]


def augment(
    images_BHWC: Images,
    recipe: Literal["none", "openvla"],
    shift: int,
    brightness: float,
    rng: np.random.Generator,
    part: tuple[int, int] | None = None,
) -> Images:
    """Change each image at random.

    Args:
        images_BHWC: RGB images, uint8.
        recipe: ``openvla``: see :func:`openvla_recipe`.
        shift: Largest move in pixels each way; pixels at the edge are repeated (as in arXiv 2004.13649).
        brightness: Largest relative change, e.g. 0.1 for factors in [0.9, 1.1]; one factor an image.
        rng: Source of the numbers; equal generators give equal images.
        part: Where these images stand in a larger batch: first one and size of the batch. The numbers are those
            that they would get there.

    Returns:
        New images of the same shape; the input where nothing is to be done.
    """
    first, batch = part or (0, len(images_BHWC))
    rows = slice(first, first + len(images_BHWC))
    result = images_BHWC
    if recipe == "openvla":
        result = openvla_recipe(images_BHWC, rng.uniform(size=(batch, 6))[rows])
    height, width = result.shape[1:3]
    if shift:
        down_B, right_B = rng.integers(-shift, shift + 1, size=(2, batch))[:, rows]
        rows_BH = np.clip(np.arange(height) + down_B[:, None], 0, height - 1)
        columns_BW = np.clip(np.arange(width) + right_B[:, None], 0, width - 1)
        result = result[np.arange(len(result))[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]]
    if brightness:
        factor_B111 = rng.uniform(1 - brightness, 1 + brightness, size=(batch, 1, 1, 1))[rows].astype(np.float32)
        result = np.clip(result * factor_B111 + 0.5, 0, 255).astype(np.uint8)
    return result


def openvla_recipe(images_BHWC: Images, draws_B6: npt.NDArray[np.float64]) -> Images:
    """The augmentation that OpenVLA was fine-tuned with (arXiv 2406.09246 and its public training code).

    In this order, on pixels in [0, 1] that are clipped after every step: a crop of 90 % of the area at a random place,
    stretched bilinearly to the old size; brightness +-0.2 (added); contrast 0.8 to 1.2 about each channel's mean;
    saturation 0.8 to 1.2; hue +-0.05 turns. The operations are TensorFlow's. One fact of the published code is not
    repeated: it drew the crop's two offsets from one number, so that all its crops lay on the image's diagonal.

    Args:
        images_BHWC: RGB images at the network's size, uint8.
        draws_B6: For each image where between its bounds each value lies, in [0, 1]: the crop's upper and left edge,
            brightness, contrast, saturation, hue.

    Returns:
        New images of the same shape.
    """
    side = np.float32(np.sqrt(CROP_AREA))
    result = np.empty_like(images_BHWC)
    for image, changed, (top, left, brightness, contrast, saturation, hue) in zip(
        images_BHWC, result, draws_B6.astype(np.float32), strict=True
    ):
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) * np.float32(1 / 255)
        for axis, edge in ((1, top), (2, left)):
            pixels = crop_and_resize(pixels, axis, edge * (1 - side), side)
        pixels = np.clip(pixels + _between(-_BRIGHTNESS, _BRIGHTNESS, brightness), 0, 1)
        pixels = np.clip(change_contrast(pixels, _between(*_CONTRAST, contrast)), 0, 1)
        pixels = change_color(pixels, _between(*_SATURATION, saturation), _between(-_HUE, _HUE, hue))
        # TensorFlow's way from [0, 1] to bytes: scale by 255.5 and cut off.
        changed[...] = np.clip(pixels * np.float32(255.5), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return result


def _between(low: float, high: float, share: np.float32) -> np.float32:
    return np.float32(low) + np.float32(high - low) * share


def change_contrast(pixels_CHW: Pixels, factor: np.float32) -> Pixels:
    """Distances from each channel's mean times ``factor``, not clipped; ``tf.image.adjust_contrast``."""
    mean_C11: Pixels = pixels_CHW.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    return (pixels_CHW - mean_C11) * factor + mean_C11


def change_color(pixels_CHW: Pixels, saturation: np.float32, hue: np.float32) -> Pixels:
    """Scale the saturation and turn the hue; ``tf.image.adjust_saturation``, then ``adjust_hue``, in one way to HSV.

    Args:
        pixels_CHW: RGB image in [0, 1], float32.
        saturation: Factor of HSV's saturation, which ends at 1.
        hue: Part of a full turn.
    """
    red, green, blue = pixels_CHW
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    safe = np.where(spread > 0, spread, np.float32(1))  # gray has no hue: any will do
    to_red, to_green = value == red, value == green
    # Hue in sixths of a turn from red: how far the other two channels differ, from the sector of the largest one.
    apart = np.where(to_red, green - blue, np.where(to_green, blue - red, red - green)) / safe
    sixths = apart + np.where(to_red, np.float32(0), np.where(to_green, np.float32(2), np.float32(4)))
    sixths += np.float32(6) * hue
    spread = np.minimum(spread * saturation, value)
    changed = np.empty_like(pixels_CHW)
    for channel, start in enumerate((5, 3, 1)):
        # Back to RGB: a channel falls short of the value by the spread, times a trapezium over the circle of hues.
        place = sixths + np.float32(start)
        place -= np.float32(6) * np.floor(place / np.float32(6))
        changed[channel] = value - spread * np.clip(np.minimum(place, np.float32(4) - place), 0, 1)
    return changed
