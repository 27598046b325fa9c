"""Reading an image from a file: every conversion that changes what is seen is either said or refused."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from grape.core.errors import DataError
from grape.core.image_files import open_image

__all__ = ["ImageFile", "read_image"]

_ORIENTATION = 0x0112  # the tag of EXIF
_SILENT = frozenset({"RGB", "P"})
_SAID = {"1": "black and white", "L": "greyscale", "CMYK": "CMYK", "YCbCr": "YCbCr"}
_WITH_ALPHA = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image as the policy gets it.

    Attributes:
        pixels: RGB, uint8 ``(H, W, 3)``.
        notes: What was converted on the way, in words.
    """

    pixels: npt.NDArray[np.uint8]
    notes: tuple[str, ...]


def read_image(path: Path) -> ImageFile:
    """Read an image of any common format.

    Greyscale, CMYK and YCbCr become RGB, an opaque alpha channel is dropped and the camera's orientation tag is
    obeyed, each with a note. Transparency, 16-bit and floating-point values and several frames are refused: there is
    more than one way to make an RGB image of them.

    Raises:
        DataError: There is no such file, it is no image or a truncated one, or it has no one meaning as RGB.
    """
    return _convert(open_image(path), path)


def _convert(image: Image.Image, path: Path) -> ImageFile:
    notes: list[str] = []
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{path} holds {getattr(image, 'n_frames', 0)} frames.", "Save the one that is meant as PNG.")
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
        notes.append("turned as its orientation tag says")
    mode = image.mode
    if mode in _WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise DataError(
                f"{path} is transparent in places; what colour is behind them?", "Flatten it onto a background first."
            )
        notes.append("an opaque alpha channel was dropped")
    elif mode in _SAID:
        notes.append(f"{_SAID[mode]} was converted to RGB")
    elif mode not in _SILENT:
        raise DataError(
            f"{path} holds values of kind {mode} (16-bit, floating-point or another colour space), not 8-bit RGB.",
            "Convert it to 8-bit RGB as it was for the policy's training images.",
        )
    return ImageFile(np.asarray(image.convert("RGB"), dtype=np.uint8), tuple(notes))
