"""Pictures and depth of a recording, decoded and checked."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from grape.core.cameras import Camera
from grape.core.errors import DataError, SettingsError
from grape.store.video.episode_list import VideoEpisode

__all__ = ["Recording", "check_recording", "picture_size", "read_recording"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_NEAREST, _FARTHEST = 0.05, 20.0  # metres: what depth cameras on tables see
_GAP = 1.75  # times the usual distance of pictures; above it one is missing


@dataclass(frozen=True, eq=False)
class Recording:
    """A decoded recording of ``N`` pictures.

    Attributes:
        times: Seconds on the log's clock, ``(N,)``.
        pictures: RGB, uint8 ``(N, H, W, 3)``.
        depth: Metres, float32 ``(N, H, W)``, 0 where nothing was measured; None if not recorded.
        camera: The camera of these pictures; None if not given.
    """

    times: Float64
    pictures: npt.NDArray[np.uint8]
    depth: Float32 | None
    camera: Camera | None


def picture_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """Height and width after shrinking a picture so that its longer side is at most ``longest``."""
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def check_recording(episode: VideoEpisode) -> tuple[Float64, tuple[int, int]]:
    """Decode everything once and keep nothing.

    Returns:
        Times of the pictures on the log's clock, seconds ``(N,)``, and their height and width.

    Raises:
        DataError: The video is corrupt or empty, pictures are missing, depth or camera do not fit it, or depth is of
            another unit.
    """
    times, size = [], (0, 0)
    for time, picture in _decode(episode.video, "rgb24"):
        times.append(time + episode.offset)
        if size not in ((0, 0), picture.shape[:2]):
            raise DataError(f"{episode.where}: pictures of {episode.video} change their size.", "Write it again.")
        size = (picture.shape[0], picture.shape[1])
    moments = np.array(times)
    _check_times(episode, moments)
    if episode.camera is not None and episode.camera.size != size:
        raise DataError(
            f"{episode.where}: the camera is of pictures of {episode.camera.size}, the video's are {size} "
            "(height, width).",
            "Give the calibration of the size that was recorded.",
        )
    if episode.depth is not None:
        _check_depth(episode, len(moments), size)
    return moments, size


def read_recording(episode: VideoEpisode, longest: int) -> Recording:
    """Decode a recording, its pictures shrunk so that the longer side is at most ``longest`` pixels.

    Raises:
        DataError: See :func:`check_recording`.
    """
    times, pictures = [], []
    size = (0, 0)
    for time, picture in _decode(episode.video, "rgb24"):
        size = picture_size(picture.shape[0], picture.shape[1], longest)
        times.append(time + episode.offset)
        pictures.append(_shrunk(picture, size))
    depth = None
    if episode.depth is not None:
        maps = (_metres(level, episode) for level in _levels(episode.depth))
        depth = np.stack([_nearest(metres, size) for metres in maps])
    camera = None if episode.camera is None else episode.camera.resized(*size)
    return Recording(np.array(times), np.stack(pictures), depth, camera)


def _decode(path: Path, form: str) -> Iterator[tuple[float, npt.NDArray[Any]]]:
    """Seconds and pixels of each picture of a video file."""
    try:
        import av
    except ImportError as error:
        raise SettingsError(
            f"Videos need PyAV, which is not installed ({error}).", "pip install 'grape-vla[video]'"
        ) from error
    number = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path} holds no video.", "Check the path.")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"err_detect": "explode"}  # else damage is painted over
            for frame in container.decode(stream):
                if frame.is_corrupt or frame.pts is None or frame.time_base is None:
                    raise DataError(f"{path}: picture {number} is corrupt.", "Copy or record it again.")
                yield float(frame.pts * frame.time_base), frame.to_ndarray(format=form)
                number += 1
            if stream.frames > number:  # what the container's index promises
                raise DataError(f"{path} holds {number} of {stream.frames} pictures.", "Copy or record it again.")
    except (OSError, ValueError, IndexError, av.FFmpegError) as error:
        raise DataError(
            f"{path} is corrupt or no video: {error}, after {number} pictures.", "Copy or record it again."
        ) from error


def _check_times(episode: VideoEpisode, times: Float64) -> None:
    if len(times) < 2:
        raise DataError(f"{episode.where}: {episode.video} holds {len(times)} pictures.", "Copy or record it again.")
    steps = np.diff(times)
    if float(steps.min()) <= 0:
        raise DataError(f"{episode.where}: time does not increase in {episode.video}.", "Write the video again.")
    usual = float(np.median(steps))
    gaps = np.flatnonzero(steps > _GAP * usual)
    if len(gaps):
        first = int(gaps[0])
        raise DataError(
            f"{episode.where}: pictures are missing in {episode.video}: after picture {first} at {times[first]:.3f} s "
            f"the next comes {steps[first]:.3f} s later, where {usual:.3f} s are usual ({len(gaps)} such gaps).",
            "Leave the episode out, or cut it before the gap.",
        )


def _check_depth(episode: VideoEpisode, count: int, size: tuple[int, int]) -> None:
    assert episode.depth is not None
    maps, middle = 0, []
    for level in _levels(episode.depth):
        if level.shape != size:
            raise DataError(
                f"{episode.where}: depth {maps} is {level.shape}, the video's pictures are {size} (height, width).",
                "Depth must be aligned with the colour camera, pixel by pixel.",
            )
        metres = _metres(level, episode)
        measured = metres[metres > 0]
        if len(measured):
            middle.append(float(np.median(measured)))
        maps += 1
    if maps != count:
        raise DataError(
            f"{episode.where}: {episode.depth} holds {maps} depth pictures, the video {count} pictures.",
            "There must be one depth picture to each picture of the video.",
        )
    if not middle:
        raise DataError(f"{episode.where}: {episode.depth} measured nothing anywhere.", "Check the depth files.")
    usual = float(np.median(middle))
    if not _NEAREST <= usual <= _FARTHEST:
        raise DataError(
            f"{episode.where}: depth is {usual:.4g} m in the middle, taking a level as {episode.depth_unit:g} m.",
            "Check depth_unit: metres a level, e.g. 0.001 for millimetres.",
        )


def _levels(path: Path) -> Iterator[npt.NDArray[Any]]:
    """Depth as recorded, ``(H, W)``, picture by picture."""
    if path.is_dir():
        files = _numbered(path)
        if not files:
            raise DataError(f"{path} holds no PNG file.", "Write one 16-bit grey PNG a picture, numbered.")
        for file in files:
            try:
                with Image.open(file) as image:
                    level = np.asarray(image)
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                raise DataError(f"{file} cannot be read as a picture: {error}.", "Write it again.") from error
            if level.ndim != 2:
                raise DataError(f"{file} is no grey picture.", "Write depth as 16-bit grey PNG.")
            yield level
    elif path.suffix == ".npy":
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} cannot be read as an array: {error}.", "Write it with numpy.save.") from error
        if array.ndim != 3 or array.dtype.kind not in "uif":
            raise DataError(f"{path} is {array.dtype} {array.shape}.", "It must be numbers of shape (pictures, H, W).")
        yield from array
    else:
        for _, level in _decode(path, "gray16le"):
            yield level


def _numbered(folder: Path) -> list[Path]:
    """PNG files of a folder in the order of the numbers in their names, which need no leading zeros."""
    files: dict[tuple[int, ...], Path] = {}
    for file in sorted(folder.glob("*.png")):
        numbers = tuple(int(digits) for digits in re.findall(r"[0-9]+", file.stem))
        if not numbers:
            raise DataError(f"{file} has no number in its name.", "Number the depth pictures, e.g. 0000.png.")
        if numbers in files:
            raise DataError(f"{file} has the same number as {files[numbers].name}.", "Number them without repeats.")
        files[numbers] = file
    return [files[numbers] for numbers in sorted(files)]


def _metres(level: npt.NDArray[Any], episode: VideoEpisode) -> Float32:
    metres = np.asarray(level, dtype=np.float64) * episode.depth_unit
    return np.where(np.isfinite(metres) & (metres > 0), metres, 0.0).astype(np.float32)


def _shrunk(picture: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    if picture.shape[:2] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BOX))


def _nearest(depth: Float32, size: tuple[int, int]) -> Float32:
    """Depth at another size; never a mean of near and far, which would be a place where nothing is."""
    height, width = depth.shape
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(np.intp)
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(np.intp)
    return depth[np.ix_(rows, columns)]
