"""Opening image files from outside: common formats, bounded in bytes and pixels, decoded or refused."""

import io
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from grape.core.errors import DataError
from grape.core.reading import read_file

__all__ = ["FORMATS", "MAX_IMAGE_BYTES", "MAX_PIXELS", "open_image"]

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
