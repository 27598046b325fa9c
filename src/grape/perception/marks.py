"""Numbered keypoints drawn on an image, for a model or a person to choose from."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["draw_numbers"]

_LEAST_SIDE = 512  # pixels; smaller images are enlarged by a whole factor so that numbers stay legible
_FONT = 16
_REACH = 9  # pixels from the dot to its number
_COLORS = ((255, 214, 0), (0, 229, 255), (255, 110, 199), (124, 255, 79))


def draw_numbers(
    image: npt.NDArray[np.uint8], pixels: Sequence[tuple[float, float]], numbers: Sequence[int] | None = None
) -> npt.NDArray[np.uint8]:
    """Draw a dot at each point and its number beside it, where it covers no other dot or number if that can be had.

    Args:
        image: RGB, uint8 ``(H, W, 3)``.
        pixels: Continuous coordinates (column, row).
        numbers: What to write; 0, 1, 2, ... if None.

    Returns:
        RGB, uint8 ``(n H, n W, 3)`` with the smallest whole ``n`` that makes the shorter side 512 or more. Equal
        arguments give equal bytes.
    """
    factor = max(1, -(-_LEAST_SIDE // min(image.shape[:2])))
    height, width = image.shape[0] * factor, image.shape[1] * factor
    canvas = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(_FONT)
    dots = [(column * factor, row * factor) for column, row in pixels]
    occupied = [(x - 5.0, y - 5.0, x + 5.0, y + 5.0) for x, y in dots]
    names = [str(number) for number in (range(len(dots)) if numbers is None else numbers)]
    for index, ((x, y), name) in enumerate(zip(dots, names, strict=True)):
        color = _COLORS[index % len(_COLORS)]
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=(0, 0, 0))
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=color)
        box = _place(
            draw.textbbox((0, 0), name, font=font), (x, y), (width, height), occupied[:index] + occupied[index + 1 :]
        )
        occupied.append(box)
        draw.rectangle(box, fill=(0, 0, 0), outline=color)
        draw.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), name, font=font, fill=(255, 255, 255), anchor="mm")
    return np.asarray(canvas)


_Box = tuple[float, float, float, float]


def _place(text: _Box, dot: tuple[float, float], size: tuple[int, int], occupied: Sequence[_Box]) -> _Box:
    """The box for a number beside its dot that covers least of what is there already, inside the image."""
    wide, tall = text[2] - text[0] + 8, max(text[3] - text[1], _FONT * 0.75) + 7
    boxes = []
    for right, down in ((1, -1), (1, 1), (-1, -1), (-1, 1), (1, 0), (-1, 0), (0, -1), (0, 1)):
        for reach in (_REACH, 2.5 * _REACH):
            left = dot[0] + right * (reach + wide / 2) - wide / 2
            top = dot[1] + down * (reach + tall / 2) - tall / 2
            left, top = min(max(left, 0.0), size[0] - wide - 1), min(max(top, 0.0), size[1] - tall - 1)
            boxes.append((round(left), round(top), round(left + wide), round(top + tall)))
    return min(boxes, key=lambda box: sum(_overlap(box, other) for other in occupied))  # the first of equally good ones


def _overlap(one: _Box, other: _Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    tall = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(tall, 0.0)
