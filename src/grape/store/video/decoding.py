"""Images of a video file, checked as they are decoded, and upright."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.core.reading import open_file
from grape.store.h264 import load_av
from grape.store.video.episode_list import MAX_RECORDING_BYTES

__all__ = ["UPRIGHT", "Turn", "decoded_images"]

Turn = tuple[int, int, int, int]
"""A turn by a multiple of 90 degrees, perhaps with a mirror: the signs of a display matrix's first two rows."""

UPRIGHT: Turn = (1, 0, 0, 1)

_MOST_PIXELS = 50_000_000
_MOST_IMAGES = 1_000_000  # nine hours at 30 a second
# Files only, and only of kinds that hold their images themselves: a playlist would name other files to open.
_ONLY = {"format_whitelist": "mov,mp4,matroska,webm,avi,mpegts,mpeg,ogg,flv,mxf,asf", "protocol_whitelist": "file"}


def decoded_images(path: Path, form: str) -> Iterator[tuple[float, npt.NDArray[Any], Turn]]:
    """Seconds and upright pixels of each image of a video file, and how it was turned to stand upright.

    Args:
        path: The video.
        form: FFmpeg's name of the pixels' layout, e.g. ``rgb24``.

    Raises:
        DataError: The file is no sound video, or its numbers are those of no recording.
        SettingsError: PyAV is not installed.
    """
    av = load_av("video")
    number = 0
    open_file(path, max_bytes=MAX_RECORDING_BYTES).close()  # FFmpeg would wait for the writer of a named pipe
    try:
        with av.open(str(path), container_options=_ONLY) as container:
            if not container.streams.video:
                raise DataError(f"{path} holds no video.", "Check the path.")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DataError(f"{path} is no video that can be decoded.", "Write it as H.264 in an MP4 file.")
            height, width = stream.codec_context.height, stream.codec_context.width
            if height * width > _MOST_PIXELS:
                raise DataError(
                    f"{path} announces images of {width} x {height} pixels; at most {_MOST_PIXELS:,} are read.",
                    "Write the video smaller.",
                )
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"err_detect": "explode"}  # else damage is painted over
            for frame in container.decode(stream):
                if frame.is_corrupt or frame.pts is None or frame.time_base is None:
                    raise DataError(f"{path}: image {number} is corrupt.", "Copy or record it again.")
                if number >= _MOST_IMAGES:
                    raise DataError(f"{path} holds more than {_MOST_IMAGES:,} images.", "Cut it into episodes.")
                turn = _turn(path, frame)
                yield float(frame.pts * frame.time_base), _upright(frame.to_ndarray(format=form), turn), turn
                number += 1
            if stream.frames > number:  # what the container's index promises
                raise DataError(f"{path} holds {number} of {stream.frames} images.", "Copy or record it again.")
    except (OSError, ValueError, IndexError, ArithmeticError, MemoryError, av.FFmpegError) as error:
        raise DataError(
            f"{path} is corrupt or no video: {error}, after {number} images.", "Copy or record it again."
        ) from error


def _turn(path: Path, frame: Any) -> Turn:
    """What the file says about turning its images for looking at them, as cameras that were held askew write it."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return UPRIGHT
    matrix = np.frombuffer(bytes(data), dtype="=i4").astype(np.float64).reshape(3, 3)[:2, :2] / 2**16
    signs = np.rint(matrix).astype(int)
    if (np.abs(matrix - signs) > 0.01).any() or sorted(np.abs(signs).ravel().tolist()) != [0, 0, 1, 1]:
        raise DataError(f"{path} is to be turned by {frame.rotation} degrees.", "Write it upright.")
    if abs(signs[0, 0]) != abs(signs[1, 1]):
        raise DataError(f"{path} is to be distorted for looking at it.", "Write it upright.")
    return int(signs[0, 0]), int(signs[0, 1]), int(signs[1, 0]), int(signs[1, 1])


def _upright(image: npt.NDArray[Any], turn: Turn) -> npt.NDArray[Any]:
    """The image as it is looked at: a pixel at (x, y) goes to (a x + c y, b x + d y), moved into the frame."""
    a, b, c, d = turn
    if turn == UPRIGHT:
        return image
    if not a:  # x and y change places
        image = image.swapaxes(0, 1)
        a, d = c, b
    return np.ascontiguousarray(image[::d, ::a])
