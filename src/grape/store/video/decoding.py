"""Images of a video file, checked as they are decoded, and upright."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.core.reading import open_file
from grape.store.h264 import load_av
from grape.store.video.episode_list import MAX_RECORDING_BYTES

__all__ = ["UPRIGHT", "Turn", "decoded_images", "images_at"]

Turn = tuple[int, int, int, int]
"""A turn by a multiple of 90 degrees, perhaps with a mirror: the signs of a display matrix's first two rows."""

UPRIGHT: Turn = (1, 0, 0, 1)

_MOST_PIXELS = 50_000_000
_WORTH_DECODING = 1.0  # seconds: what lies nearer is decoded on the way, for what is farther the file is searched
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
    number = 0
    try:
        with _opened(path, "video") as (container, stream):
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
    except _problems() as error:
        raise DataError(
            f"{path} is corrupt or no video: {error}, after {number} images.", "Copy or record it again."
        ) from error


def images_at(
    path: Path, times: Sequence[float], tolerance: float, extra: str = "video"
) -> Iterator[npt.NDArray[np.uint8]]:
    """The RGB image of a video nearest to each of some times, as it is stored; what lies far between is skipped.

    Args:
        path: The video.
        times: Seconds; quickest in increasing order.
        tolerance: Largest distance of an image in seconds.
        extra: See :func:`grape.store.h264.load_av`.

    Raises:
        DataError: The file is no sound video, or has no image near enough to a time.
        SettingsError: PyAV is not installed.
    """
    time = 0.0
    try:
        with _opened(path, extra) as (container, stream):
            frames = _Frames(path, container, stream)
            for time in times:
                yield frames.nearest(time, tolerance).to_ndarray(format="rgb24")
    except _problems() as error:
        raise DataError(
            f"{path} is corrupt or no video: {error}, at {time:.3f} s.", "Copy or record it again."
        ) from error


class _Frames:
    """The images of a video around the time that was asked for last."""

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self._path, self._container, self._stream = path, container, stream
        self._decoded: Iterator[Any] = iter(())
        self._before: Any = None
        self._after: Any = None

    def nearest(self, time: float, tolerance: float) -> Any:
        """The decoded frame nearest to a time."""
        reached = self._after if self._before is None else self._before
        if reached is None or not self._time(reached) - tolerance <= time <= self._time(reached) + _WORTH_DECODING:
            self._seek(max(0.0, time - tolerance))
            if self._after is not None and self._time(self._after) > time + tolerance:
                self._seek(0.0)  # some files' indices lead behind the time
        while self._after is not None and self._time(self._after) < time:
            self._before, self._after = self._after, next(self._decoded, None)
        near = [frame for frame in (self._before, self._after) if frame is not None]
        best = min(near, key=lambda frame: abs(self._time(frame) - time), default=None)
        if best is None or abs(self._time(best) - time) > tolerance:
            nearest = "there is none" if best is None else f"the nearest is at {self._time(best):.4f} s"
            raise DataError(
                f"{self._path} has no image at {time:.4f} s: {nearest}, and {tolerance:g} s are tolerated.",
                "Fetch or write the video again; if its times are only inexact, raise the tolerance.",
            )
        if best.is_corrupt:
            raise DataError(f"{self._path}: the image at {time:.3f} s is corrupt.", "Copy or record it again.")
        return best

    def _seek(self, time: float) -> None:
        self._container.seek(int(time / self._stream.time_base), stream=self._stream)
        self._decoded = (frame for frame in self._container.decode(self._stream) if frame.pts is not None)
        self._before, self._after = None, next(self._decoded, None)

    def _time(self, frame: Any) -> float:
        return float(frame.pts * self._stream.time_base)


@contextlib.contextmanager
def _opened(path: Path, extra: str) -> Iterator[tuple[Any, Any]]:
    """Container and video stream of a file whose size and kind were checked."""
    av = load_av(extra)
    open_file(path, max_bytes=MAX_RECORDING_BYTES).close()  # FFmpeg would wait for the writer of a named pipe
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
        yield container, stream


def _problems() -> tuple[type[BaseException], ...]:
    """What PyAV raises at files that are no sound videos; asked for only once something was raised."""
    return (OSError, ValueError, IndexError, ArithmeticError, MemoryError, load_av("video").FFmpegError)


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
