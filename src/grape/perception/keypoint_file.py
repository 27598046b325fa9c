"""The keypoint file: a YAML file of keypoints to follow in images, with the image they were chosen on.

```yaml
version: 1
reference: {picture: reference.png, depth: reference-depth.png}   # for keypoints given by pixel
keypoints:
  - {name: point_0, pixel: [81.2, 157.8]}   # a point of the reference image, found again in each episode
  - {name: puck, phrase: yellow puck}       # what a detector finds by this phrase
```
"""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image, UnidentifiedImageError

from grape.core.errors import DataError
from grape.core.files import file_hash, read_yaml_mapping, write_bytes, write_text
from grape.core.reading import decode, open_file, read_file, record

__all__ = [
    "DEPTH_UNIT",
    "ImageKeypoint",
    "KeypointFile",
    "read_keypoint_file",
    "write_image",
    "write_keypoint_file",
]

VERSION = 1
DEPTH_UNIT = 0.001
"""Meters a level of the 16-bit depth image beside the reference image; 0 is unknown."""

_MOST_BYTES = 256_000
_MOST_KEYPOINTS = 200
_MOST_IMAGE_BYTES = 64 * 2**20
_MOST_PIXELS = 32 * 2**20


@record
@dataclass(frozen=True)
class ImageKeypoint:
    """A keypoint to be found in images: by pixel of the reference image, or by phrase.

    Attributes:
        name: Its name in recordings.
        pixel: Continuous coordinates (column, row) in the reference image; None for a phrase.
        phrase: What a detector is asked for; empty for a pixel.
    """

    name: str
    pixel: tuple[float, float] | None = None
    phrase: str = ""


@record
@dataclass(frozen=True)
class _Reference:
    """File names beside the keypoint file."""

    picture: str | None = None
    depth: str | None = None


@record
@dataclass(frozen=True)
class _Fields:
    """The keypoint file as it is written."""

    version: int
    keypoints: tuple[ImageKeypoint, ...]
    reference: _Reference = _Reference()


@dataclass(frozen=True, eq=False)
class KeypointFile:
    """What a keypoint file holds.

    Attributes:
        keypoints: In the file's order, with different names.
        pixels: The reference image, uint8 ``(H, W, 3)``; None where no keypoint is given by pixel.
        depth: Its depth in meters, float32 ``(H, W)``, 0 where unknown; None if not given.
        digest: Hash of the file and its images.
    """

    keypoints: tuple[ImageKeypoint, ...]
    image: npt.NDArray[np.uint8] | None
    depth: npt.NDArray[np.float32] | None
    digest: str


def read_keypoint_file(path: Path) -> KeypointFile:
    """Read a keypoint file; a folder stands for ``keypoints.yaml`` in it.

    Raises:
        DataError: The file or an image is missing, too large, or holds what it should not.
    """
    path = path / "keypoints.yaml" if path.is_dir() else path
    data = read_yaml_mapping(path, _MOST_BYTES)
    if data.get("version") != VERSION:
        raise DataError(
            f"{path}: version is {data.get('version')!r}; {VERSION} is known here.", "See docs/perception.md."
        )
    fields = decode(_Fields, data, str(path), "See docs/perception.md.")
    if not 0 < len(fields.keypoints) <= _MOST_KEYPOINTS:
        raise DataError(f"{path}: keypoints must be a list of 1 to {_MOST_KEYPOINTS}.", "See docs/perception.md.")
    keypoints = tuple(_checked(item, f"{path}, keypoint {place}") for place, item in enumerate(fields.keypoints, 1))
    names = [keypoint.name for keypoint in keypoints]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: keypoint {twice[0]!r} is there twice.", "Give each a name of its own.")
    pixels, depth, parts = None, None, [file_hash(path)]
    if fields.reference.picture is not None:
        file = _named_file(path, fields.reference.picture)
        pixels, parts = _image(file), [*parts, file_hash(file)]
    if fields.reference.depth is not None:
        file = _named_file(path, fields.reference.depth)
        depth, parts = _depth(file), [*parts, file_hash(file)]
    if pixels is None and any(keypoint.pixel for keypoint in keypoints):
        raise DataError(
            f"{path}: keypoints are given by pixel, but no reference image.", "Add reference: {picture: ...}."
        )
    if pixels is not None and depth is not None and pixels.shape[:2] != depth.shape:
        raise DataError(f"{path}: reference image and depth differ in size.", "Give both in the same size.")
    for keypoint in keypoints:
        if pixels is not None and keypoint.pixel is not None:
            inside = 0 <= keypoint.pixel[0] <= pixels.shape[1] and 0 <= keypoint.pixel[1] <= pixels.shape[0]
            if not inside:
                raise DataError(f"{path}: keypoint {keypoint.name!r} lies outside the reference image.", "Move it.")
    return KeypointFile(keypoints, pixels, depth, "-".join(parts))


def write_keypoint_file(
    folder: Path, keypoints: tuple[ImageKeypoint, ...], pixels: npt.NDArray[np.uint8], depth: npt.NDArray[np.float32]
) -> None:
    """Write ``keypoints.yaml`` with its reference image and depth into a folder that exists.

    Args:
        folder: Where to.
        keypoints: What to write.
        pixels: uint8 ``(H, W, 3)``.
        depth: Meters ``(H, W)``; what does not fit into 16 bits of :data:`DEPTH_UNIT` becomes 0, unknown.
    """
    write_image(folder / "reference.png", pixels)
    levels = np.rint(np.nan_to_num(depth.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0) / DEPTH_UNIT)
    write_image(folder / "reference-depth.png", np.where((levels > 0) & (levels < 65536), levels, 0).astype(np.uint16))
    rows: list[dict[str, Any]] = []
    for keypoint in keypoints:
        row: dict[str, Any] = {"name": keypoint.name}
        if keypoint.pixel is not None:
            row["pixel"] = [round(place, 3) for place in keypoint.pixel]
        else:
            row["phrase"] = keypoint.phrase
        rows.append(row)
    data = {
        "version": VERSION,
        "reference": {"picture": "reference.png", "depth": "reference-depth.png"},
        "keypoints": rows,
    }
    write_text(folder / "keypoints.yaml", yaml.safe_dump(data, sort_keys=False))


def write_image(path: Path, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
    """Write an image atomically as PNG: colors ``(H, W, 3)`` or 16-bit gray ``(H, W)``."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    write_bytes(path, file.getvalue())


def _checked(keypoint: ImageKeypoint, where: str) -> ImageKeypoint:
    name, phrase = keypoint.name, keypoint.phrase.strip()
    if not name.isidentifier() or len(name) > 64:
        raise DataError(f"{where}: name is {name!r}.", "Use letters, digits and _, beginning with a letter.")
    if len(keypoint.phrase) > 200 or (keypoint.pixel is None) == (not phrase):
        raise DataError(
            f"{where}: give either pixel or phrase.", "Write e.g. pixel: [81.2, 157.8] or phrase: yellow puck."
        )
    return ImageKeypoint(name, keypoint.pixel, phrase)


def _named_file(path: Path, name: str) -> Path:
    """The image that the keypoint file ``path`` names; it stands in the same folder or below."""
    if not name:
        raise DataError(f"{path}: {name!r} names no image.", "See docs/perception.md.")
    open_file(path.parent / name, max_bytes=_MOST_IMAGE_BYTES, within=path.parent).close()
    return path.parent / name


def _image(path: Path) -> npt.NDArray[np.uint8]:
    return np.asarray(_open(path).convert("RGB"))


def _depth(path: Path) -> npt.NDArray[np.float32]:
    levels = np.asarray(_open(path))
    if levels.ndim != 2 or levels.dtype.kind not in "iu":
        raise DataError(f"{path} is no 16-bit image of depth.", "Write millimeters as 16-bit gray PNG.")
    return levels.astype(np.float32) * np.float32(DEPTH_UNIT)


def _open(path: Path) -> Image.Image:
    data = read_file(path, max_bytes=_MOST_IMAGE_BYTES)
    try:
        with warnings.catch_warnings():  # the size is judged here
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=["PNG", "JPEG"])
        if image.width * image.height > _MOST_PIXELS:
            raise DataError(f"{path} has {image.width} x {image.height} pixels.", f"At most {_MOST_PIXELS:,} are read.")
        image.load()
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}.", "Write it again.") from error
    return image
