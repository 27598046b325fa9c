"""Writing H.264 videos, and joining them: equal images give equal bytes.

One encoder thread, fixed options, no time stamps in the container.
"""

import fractions
import io
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from grape.core.packages import load_package

__all__ = ["VideoJoiner", "VideoWriter", "load_av"]


def load_av(extra: str) -> ModuleType:
    """PyAV, which brings the H.264 encoder.

    Args:
        extra: The extra of this package that installs it for the caller.

    Raises:
        SettingsError: It is not installed.
    """
    return load_package("av", "Videos need PyAV", extra)


class _VideoFile:
    """An MP4 file that grows; as a context it is complete at the end.

    Attributes:
        frames: Images that were added.
        bytes: What they take.
    """

    def __init__(self, target: Path | io.BytesIO, fps: int, extra: str) -> None:
        self.frames = 0
        self.bytes = 0
        self._av = load_av(extra)
        self._closed = False
        self._tick = fractions.Fraction(1, fps)
        file = str(target) if isinstance(target, Path) else target
        self._container: Any = self._av.open(file, "w", format="mp4", options={"fflags": "+bitexact"})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what is left and the index; the file is complete."""
        if not self._closed:
            self._closed = True
            self._finish()
            self._container.close()

    def _finish(self) -> None:
        """Write what is left."""

    def _write(self, packet: Any) -> None:
        self.bytes += packet.size
        self._container.mux(packet)


class VideoWriter(_VideoFile):
    """Writes one MP4 file with H.264 (yuv420p); image ``i`` is shown at ``i / fps`` seconds.

    Args:
        target: The file, or memory that it is written to.
        size: Height and width, even numbers.
        fps: Images a second.
        crf: x264's constant rate factor: 0 loses least, 51 most.
        key_frame_every: Images from one key frame to the next. No image refers to a later one, so seeking is quick.
        extra: See :func:`load_av`.
    """

    def __init__(
        self,
        target: Path | io.BytesIO,
        size: tuple[int, int],
        fps: int,
        crf: int,
        *,
        key_frame_every: int,
        extra: str = "video",
    ) -> None:
        super().__init__(target, fps, extra)
        self._stream: Any = self._container.add_stream("libx264", rate=fps)
        self._stream.height, self._stream.width, self._stream.pix_fmt = *size, "yuv420p"
        codec = self._stream.codec_context
        codec.thread_count, codec.time_base = 1, self._tick
        codec.gop_size, codec.max_b_frames = key_frame_every, 0
        self._stream.options = {
            "crf": str(crf),
            "preset": "medium",
            "threads": "1",
            "flags": "+bitexact",
            # With its macroblock tree x264 now and then writes other bytes for equal images.
            "x264-params": "threads=1:lookahead-threads=1:mbtree=0",
        }
        self._make: Any = self._av.VideoFrame.from_ndarray

    def add(self, images: npt.NDArray[np.uint8]) -> None:
        """Append an episode's images, uint8 ``(T, H, W, 3)``, beginning with a key frame."""
        for number, image in enumerate(images):
            frame = self._make(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = self.frames, self._tick
            if number == 0:
                frame.pict_type = 1  # `AV_PICTURE_TYPE_I` of FFmpeg
            for packet in self._stream.encode(frame):
                self._write(packet)
            self.frames += 1

    def _finish(self) -> None:
        for packet in self._stream.encode():
            self._write(packet)


class VideoJoiner(_VideoFile):
    """Writes one MP4 file from videos of :class:`VideoWriter`, one behind the other, without encoding anything anew.

    Args:
        target: The file.
        fps: Images a second.
        extra: See :func:`load_av`.
    """

    def __init__(self, target: Path, fps: int, *, extra: str = "video") -> None:
        super().__init__(target, fps, extra)
        self._stream: Any = None

    def add(self, video: bytes) -> None:
        """Append a video, all of whose images follow in the order in which they are stored.

        Raises:
            ValueError: It was encoded with other settings than the first one.
        """
        with self._av.open(io.BytesIO(video)) as source:
            stream = source.streams.video[0]
            if self._stream is None:
                self._stream = self._container.add_stream_from_template(stream)
            elif stream.codec_context.extradata != self._stream.codec_context.extradata:
                raise ValueError("videos of different encoders cannot be joined")
            for packet in source.demux(stream):
                if packet.dts is None:  # the end of the source
                    continue
                packet.stream, packet.time_base = self._stream, self._tick
                packet.pts = packet.dts = self.frames
                packet.duration = 1
                self.frames += 1
                self._write(packet)
