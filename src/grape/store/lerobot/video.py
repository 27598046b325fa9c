"""Pictures of many episodes as one H.264 video, and back.

Equal pictures give equal bytes: one encoder thread, fixed options, no time stamps in the container. Every second
picture is a key frame, as LeRobot has it, so that readers reach any step quickly; none refers to a later one.
"""

import fractions
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError, SettingsError

__all__ = ["VideoWriter", "load_av", "read_video"]

_KEY_FRAME_EVERY = 2


def load_av() -> ModuleType:
    """PyAV, which brings the H.264 encoder.

    Raises:
        SettingsError: It is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise SettingsError(
            f"Videos need PyAV, which is not installed ({error}).", "pip install 'grape-vla[lerobot]'"
        ) from error
    module: ModuleType = av
    return module


class VideoWriter:
    """Writes one MP4 file; picture ``i`` is shown at ``i / fps`` seconds.

    Args:
        path: The file; its folder is made.
        size: Height and width, even numbers.
        fps: Pictures a second.
        crf: x264's constant rate factor: 0 loses least, 51 most.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: int, crf: int) -> None:
        av = load_av()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.frames = 0
        self.bytes = 0
        self._closed = False
        self._tick = fractions.Fraction(1, fps)
        self._container: Any = av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"})
        self._stream: Any = self._container.add_stream("libx264", rate=fps)
        self._stream.height, self._stream.width, self._stream.pix_fmt = *size, "yuv420p"
        codec = self._stream.codec_context
        codec.thread_count, codec.time_base = 1, self._tick
        codec.gop_size, codec.max_b_frames = _KEY_FRAME_EVERY, 0
        self._stream.options = {
            "crf": str(crf),
            "preset": "medium",
            "threads": "1",
            "flags": "+bitexact",
            "x264-params": "threads=1:lookahead-threads=1",
        }
        self._make: Any = av.VideoFrame.from_ndarray

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, pictures: npt.NDArray[np.uint8]) -> None:
        """Append an episode's pictures, uint8 ``(T, H, W, 3)``, beginning with a key frame."""
        for number, picture in enumerate(pictures):
            frame = self._make(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = self.frames, self._tick
            if number == 0:
                frame.pict_type = 1  # AV_PICTURE_TYPE_I
            self._write(self._stream.encode(frame))
            self.frames += 1

    def close(self) -> None:
        """Write what the encoder still holds and the index; the file is complete."""
        if not self._closed:
            self._closed = True
            self._write(self._stream.encode())
            self._container.close()

    def _write(self, packets: list[Any]) -> None:
        for packet in packets:
            self.bytes += packet.size
            self._container.mux(packet)


def read_video(path: Path) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """Seconds and pixels, uint8 ``(H, W, 3)``, of each picture of a file.

    Raises:
        DataError: The file cannot be read as a video.
    """
    av = load_av()
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                yield float(frame.pts * frame.time_base), frame.to_ndarray(format="rgb24")
    except (OSError, ValueError, IndexError, av.FFmpegError) as error:
        raise DataError(f"{path} cannot be read as a video: {error}.", "Export again.") from error
