"""Images of an episode side by side, as a JPEG that stands inside a page: for reports and for notebooks."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from grape.core.errors import printable

__all__ = ["data_uri", "film_strip", "jpeg", "strip_rows"]

_CELLS = 8
_HEIGHT = 80
_LONGEST = 4
"""Longer side of a cell over its shorter one, at most: of images a row high, the strip would be too wide for a JPEG."""


def film_strip(images: npt.NDArray[np.uint8], height: int = _HEIGHT) -> bytes:
    """JPEG of RGB images ``(N, H, W, 3)``, from left to right, in cells ``height`` pixels high.

    An image fills its cell, except where its sides differ so much that it would make the cell a band or a thread.
    """
    rows, columns = images.shape[1:3]
    width = min(max(round(height * columns / rows), height // _LONGEST, 1), height * _LONGEST)
    scale = min(height / rows, width / columns)
    size = (min(max(round(columns * scale), 1), width), min(max(round(rows * scale), 1), height))
    strip = Image.new("RGB", (width * len(images), height))
    for cell, image in enumerate(images):
        pixels = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
        strip.paste(pixels, (cell * width + (width - size[0]) // 2, (height - size[1]) // 2))
    return jpeg(strip)


def strip_rows(rows: Sequence[tuple[str, npt.NDArray[np.uint8]]]) -> str:
    """HTML that a notebook shows: one line of text and one film strip an episode, the same times below one another.

    Args:
        rows: Text and images ``(N, H, W, 3)`` of each episode; without images the text stands alone.
    """
    every = max(1, -(-max((len(images) for _, images in rows), default=0) // _CELLS))
    parts = []
    for text, images in rows:
        parts.append(f"<p>{html.escape(printable(text))}</p>")
        if images.size:
            last = len(images) - 1
            shown = sorted({*range(0, last, every), last})  # an episode's last image is what one looks for
            address = data_uri("image/jpeg", film_strip(images[shown]))
            parts.append(f'<p><img alt="images {", ".join(map(str, shown))} of the episode" src="{address}"></p>')
    return "".join(parts)


def jpeg(image: Image.Image) -> bytes:
    """The image as a JPEG of a quality for looking at."""
    target = io.BytesIO()
    image.save(target, "JPEG", quality=80, optimize=True)
    return target.getvalue()


def data_uri(kind: str, data: bytes) -> str:
    """``data:`` address that holds ``data`` of media type ``kind``, e.g. ``"video/mp4"``."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
