"""Image files from outside: common formats, bounded in bytes and pixels, decoded or refused.

Every conversion to RGB that changes what is seen is either reported or refused.
"""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from grape.core.errors import DataError
from grape.core.reading import read_file

__all__ = ["FORMATS", "MAX_IMAGE_BYTES", "MAX_PIXELS", "ImageFile", "open_image", "read_image"]

_ORIENTATION = 0x0112  # the tag of EXIF
_SILENT = frozenset({"RGB", "P"})
_SAID = {"1": "black and white", "L": "grayscale", "CMYK": "CMYK", "YCbCr": "YCbCr"}
_WITH_ALPHA = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image file as the policy reads it.

    Attributes:
        pixels: RGB, uint8 ``(H, W, 3)``.
        notes: What was converted on the way, in words.
    """

    pixels: npt.NDArray[np.uint8]
    notes: tuple[str, ...]


def read_image(path: Path) -> ImageFile:
    """Read an image of any common format.

    Grayscale, CMYK and YCbCr become RGB, an opaque alpha channel is dropped and the camera's orientation tag is
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
                f"{path} is transparent in places; what color is behind them?", "Flatten it onto a background first."
            )
        notes.append("an opaque alpha channel was dropped")
    elif mode in _SAID:
        notes.append(f"{_SAID[mode]} was converted to RGB")
    elif mode not in _SILENT:
        raise DataError(
            f"{path} holds values of kind {mode} (16-bit, floating-point or another color space), not 8-bit RGB.",
            "Convert it to 8-bit RGB as it was for the policy's training images.",
        )
    return ImageFile(np.asarray(image.convert("RGB"), dtype=np.uint8), tuple(notes))


FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM")
"""Pillow knows more, some of which run other programs (PostScript) or are hardly ever read, and so hardly tested."""
MAX_IMAGE_BYTES = 256 * 2**20
MAX_PIXELS = 40_000_000


def open_image(path: Path, *, formats: tuple[str, ...] = FORMATS, within: Path | None = None) -> Image.Image:
    """The decoded image of a file, as it is stored.

    Args:
        path: The file.
        formats: Accepted formats, by Pillow's names.
        within: The file must lie in this folder after all links are resolved.

    Raises:
        DataError: There is no such file, it is no image of these formats, truncated, or too large.
    """
    if not path.exists():
        raise DataError(f"There is no image {path}.", "Check the path.")
    if path.is_dir():
        raise DataError(f"{path} is a folder, not an image.", "Give the file.")
    data = read_file(path, max_bytes=MAX_IMAGE_BYTES, within=within)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is judged here; a truncated tag warns, and then the file raises
            image = Image.open(io.BytesIO(data), formats=formats)
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"{path} has {image.width:,} x {image.height:,} pixels, far more pixels than a camera gives.",
                    "Scale it down first.",
                )
            image.load()
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} has far more pixels than a camera gives.", "Scale it down first.") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path} is no image in a format that is read here ({', '.join(formats)}).", "Save it as PNG or JPEG."
        ) from error
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them run into
        raise DataError(f"{path} is a truncated image: {str(error)[:200]}.", "Save or copy it again.") from error
    return image
