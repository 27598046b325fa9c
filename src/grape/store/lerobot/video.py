"""Images of an exported video, read back."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.store.h264 import load_av

__all__ = ["read_video"]


def read_video(path: Path) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """Seconds and pixels, uint8 ``(H, W, 3)``, of each image of a file.

    Raises:
        DataError: The file cannot be read as a video.
    """
    av = load_av("lerobot")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                yield float(frame.pts * frame.time_base), frame.to_ndarray(format="rgb24")
    except (OSError, ValueError, IndexError, av.FFmpegError) as error:
        raise DataError(f"{path} cannot be read as a video: {error}.", "Export again.") from error
