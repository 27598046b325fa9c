"""Images and depth of a recording, decoded and checked."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from grape.core.cameras import Camera
from grape.core.errors import DataError
from grape.core.image_files import open_image
from grape.core.npy_files import check_npy_start
from grape.core.reading import open_file
from grape.store.video.decoding import UPRIGHT, Turn, decoded_images
from grape.store.video.episode_list import MAX_RECORDING_BYTES, VideoEpisode

__all__ = ["Recording", "check_recording", "image_size", "read_recording", "recording_bytes"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_NEAREST, _FARTHEST = 0.05, 20.0  # meters: what depth cameras on tables see
_GAP = 1.75  # times the usual distance of images; above it one is missing


@dataclass(frozen=True, eq=False)
class Recording:
    """``N`` decoded images of a recording.

    Attributes:
        images: RGB, uint8 ``(N, H, W, 3)``.
        depth: Meters, float32 ``(N, H, W)``, 0 where nothing was measured; None if not recorded or not wanted.
        camera: The camera of these images; None if not given.
    """

    images: npt.NDArray[np.uint8]
    depth: Float32 | None
    camera: Camera | None


def image_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """Height and width after shrinking an image so that its longer side is at most ``longest``."""
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def recording_bytes(count: int, size: tuple[int, int], with_depth: bool) -> int:
    """Memory that so many images of a size take, with depth or without."""
    return count * size[0] * size[1] * (3 + 4 * with_depth)


def check_recording(episode: VideoEpisode) -> tuple[Float64, tuple[int, int]]:
    """Decode everything once and keep nothing.

    Returns:
        Times of the images on the log's clock, seconds ``(N,)``, and their height and width.

    Raises:
        DataError: The video is corrupt or empty, images are missing, depth or camera do not fit it, or depth is of
            another unit.
    """
    times, size = [], (0, 0)
    turns: set[Turn] = set()
    for time, image, turn in decoded_images(episode.video, "rgb24"):
        turns.add(turn)
        times.append(time + episode.offset)
        if size not in ((0, 0), image.shape[:2]):
            raise DataError(f"{episode.where}: images of {episode.video} change their size.", "Write it again.")
        size = (image.shape[0], image.shape[1])
    moments = np.array(times)
    _check_times(episode, moments)
    if episode.camera is not None and episode.camera.size != size:
        raise DataError(
            f"{episode.where}: the camera is of images of {episode.camera.size}, the video's are {size} "
            "(height, width).",
            "Give the calibration of the size that was recorded.",
        )
    if episode.depth is not None:
        _check_depth(episode, len(moments), size, turns)
    return moments, size


def read_recording(
    episode: VideoEpisode, longest: int, image_indices: Sequence[int] | Indices, with_depth: bool = True
) -> Recording:
    """Decode some images of a recording, shrunk so that the longer side is at most ``longest`` pixels.

    Only these are held, once: :func:`recording_bytes` says how much memory that is. Decoding ends at the last of them.

    Args:
        episode: A checked recording.
        longest: Pixels.
        image_indices: Numbers of the images, increasing, at least one.
        with_depth: Whether depth is read, where it was recorded.

    Raises:
        DataError: See :func:`check_recording`; or the recording has changed since.
    """
    numbers = np.asarray(image_indices, dtype=np.intp)
    decoded = (image for _, image, _ in decoded_images(episode.video, "rgb24"))
    images = _held(decoded, numbers, lambda image: _shrunk(image, longest), episode)
    depth = None
    if with_depth and episode.depth is not None:
        levels = (level for level, _ in _levels(episode.depth))
        depth = _held(levels, numbers, lambda level: _shrunk_depth(level, longest, episode), episode)
    camera = None if episode.camera is None else episode.camera.resized(*images.shape[1:3])
    return Recording(images, depth, camera)


def _held(
    decoded: Iterator[npt.NDArray[Any]],
    image_indices: Indices,
    converted: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    episode: VideoEpisode,
) -> npt.NDArray[Any]:
    """Those of the decoded images, in one array that is made once."""
    held: npt.NDArray[Any] | None = None
    row = 0
    for number, item in enumerate(decoded):
        if number != image_indices[row]:
            continue
        value = converted(item)
        if held is None:
            held = np.empty((len(image_indices), *value.shape), dtype=value.dtype)
        held[row] = value
        row += 1
        if row == len(image_indices):
            return held
    raise DataError(f"{episode.where}: the recording has changed since it was checked.", "Run the import again.")


def _check_times(episode: VideoEpisode, times: Float64) -> None:
    if len(times) < 2:
        raise DataError(f"{episode.where}: {episode.video} holds {len(times)} images.", "Copy or record it again.")
    steps = np.diff(times)
    if float(steps.min()) <= 0:
        raise DataError(f"{episode.where}: time does not increase in {episode.video}.", "Write the video again.")
    usual = float(np.median(steps))
    gaps = np.flatnonzero(steps > _GAP * usual)
    if len(gaps):
        first = int(gaps[0])
        raise DataError(
            f"{episode.where}: images are missing in {episode.video}: after image {first} at {times[first]:.3f} s "
            f"the next comes {steps[first]:.3f} s later, where {usual:.3f} s are usual ({len(gaps)} such gaps).",
            "Leave the episode out, or cut it before the gap.",
        )


def _check_depth(episode: VideoEpisode, count: int, size: tuple[int, int], turns: set[Turn]) -> None:
    assert episode.depth is not None
    maps, middle = 0, []
    for level, turn in _levels(episode.depth):
        if {turn} != turns:
            raise DataError(
                f"{episode.where}: {episode.video} says that it is to be turned for looking at, {episode.depth} says "
                "otherwise.",
                "Write both upright, without a rotation in their files.",
            )
        if level.shape != size:
            raise DataError(
                f"{episode.where}: depth {maps} is {level.shape}, the video's images are {size} (height, width).",
                "Depth must be aligned with the color camera, pixel by pixel.",
            )
        meters = _meters(level, episode)
        measured = meters[meters > 0]
        if len(measured):
            middle.append(float(np.median(measured)))
        maps += 1
    if maps != count:
        raise DataError(
            f"{episode.where}: {episode.depth} holds {maps} depth images, the video {count} images.",
            "There must be one depth image to each image of the video.",
        )
    if not middle:
        raise DataError(f"{episode.where}: {episode.depth} measured nothing anywhere.", "Check the depth files.")
    usual = float(np.median(middle))
    if not _NEAREST <= usual <= _FARTHEST:
        raise DataError(
            f"{episode.where}: depth is {usual:.4g} m in the middle, taking a level as {episode.depth_unit:g} m.",
            "Check depth_unit: meters a level, e.g. 0.001 for millimeters.",
        )


def _levels(path: Path) -> Iterator[tuple[npt.NDArray[Any], Turn]]:
    """Depth as recorded, ``(H, W)``, image by image, and how it was turned to stand upright."""
    if path.is_dir():
        files = _numbered(path)
        if not files:
            raise DataError(f"{path} holds no PNG file.", "Write one 16-bit gray PNG an image, numbered.")
        for file in files:
            level = np.asarray(open_image(file, formats=("PNG",)))
            if level.ndim != 2:
                raise DataError(f"{file} is no gray image.", "Write depth as 16-bit gray PNG.")
            yield level, UPRIGHT
    elif path.suffix == ".npy":
        with open_file(path, max_bytes=MAX_RECORDING_BYTES) as handle:
            check_npy_start(handle, path)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (
            OSError,
            ValueError,
            EOFError,
            TypeError,
            SyntaxError,
            OverflowError,
            RecursionError,
            TokenError,
        ) as error:
            raise DataError(f"{path} cannot be read as an array: {error}.", "Write it with numpy.save.") from error
        if array.ndim != 3 or array.dtype.kind not in "uif":
            raise DataError(f"{path} is {array.dtype} {array.shape}.", "It must be numbers of shape (images, H, W).")
        yield from ((level, UPRIGHT) for level in array)
    else:
        for _, level, turn in decoded_images(path, "gray16le"):
            yield level, turn


def _numbered(folder: Path) -> list[Path]:
    """PNG files of a folder in the order of the numbers in their names, which need no leading zeros."""
    files: dict[tuple[int, ...], Path] = {}
    for file in sorted(folder.glob("*.png")):
        numbers = tuple(int(digits) for digits in re.findall(r"[0-9]+", file.stem))
        if not numbers:
            raise DataError(f"{file} has no number in its name.", "Number the depth images, e.g. 0000.png.")
        if numbers in files:
            raise DataError(f"{file} has the same number as {files[numbers].name}.", "Number them without repeats.")
        files[numbers] = file
    return [files[numbers] for numbers in sorted(files)]


def _meters(level: npt.NDArray[Any], episode: VideoEpisode) -> Float32:
    meters = np.asarray(level, dtype=np.float64) * episode.depth_unit
    return np.where(np.isfinite(meters) & (meters > 0), meters, 0.0).astype(np.float32)


def _shrunk(image: npt.NDArray[np.uint8], longest: int) -> npt.NDArray[np.uint8]:
    height, width = image_size(image.shape[0], image.shape[1], longest)
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def _shrunk_depth(level: npt.NDArray[Any], longest: int, episode: VideoEpisode) -> Float32:
    return _nearest(_meters(level, episode), image_size(level.shape[0], level.shape[1], longest))


def _nearest(depth: Float32, size: tuple[int, int]) -> Float32:
    """Depth at another size; never a mean of near and far, which would be a place where nothing is."""
    height, width = depth.shape
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(np.intp)
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(np.intp)
    return depth[np.ix_(rows, columns)]
