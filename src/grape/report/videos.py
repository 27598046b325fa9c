"""Recorded images as small H.264 videos and film strips, ready to stand inside a page as data URIs.

The two sides of a preference pair get videos of equal length: the shorter one holds its last image. So both can
loop in step in any browser, also without a script. Equal images give equal bytes: one encoder thread, fixed
options, no time stamps in the container.
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from grape.core.film_strips import film_strip, jpeg
from grape.core.trajectories import Trajectory
from grape.store.h264 import VideoWriter

__all__ = ["encode_video", "episode_strip", "frames_per_second", "images_for_people", "poster"]

Frames = npt.NDArray[np.uint8]

_QUALITIES = (26, 31, 36, 41)  # x264's constant rate factor; a higher one is tried where the bytes exceed the limit


def frames_per_second(n_frames: int) -> int:
    """Frame rate at which ``n_frames`` images take about five seconds: between 4 and 30 a second."""
    return min(30, max(4, round(n_frames / 5)))


def images_for_people(trajectory: Trajectory) -> Frames | None:
    """The images for people where recorded, else those the policy saw, one a state; None where there are none."""
    frames = trajectory.display if trajectory.display is not None else trajectory.frames
    return trajectory.each_state(frames) if frames.size else None


def encode_video(frames: Frames, *, size: int, fps: int, n_frames: int, max_bytes: int) -> bytes:
    """MP4 with H.264 (yuv420p) of an episode's images.

    Args:
        frames: RGB images, uint8 ``(N, H, W, 3)``.
        size: Width of the video in pixels; the height follows from the images, both rounded to even numbers.
        fps: Images a second.
        n_frames: Length of the video in images, at least ``N``; the last image is held.
        max_bytes: Wanted upper limit. Coarser quality is tried until the video fits; the coarsest one is returned
            whether it fits or not.

    Returns:
        The bytes of the file.
    """
    height, width = frames.shape[1:3]
    out_width = max(2, 2 * round(size / 2))
    out_height = max(2, 2 * round(size * height / width / 2))
    scaled = [
        np.asarray(Image.fromarray(frame).resize((out_width, out_height), Image.Resampling.BICUBIC)) for frame in frames
    ]
    scaled += [scaled[-1]] * (n_frames - len(scaled))
    data = b""
    for quality in _QUALITIES:
        data = _encode(scaled, out_width, out_height, fps, quality)
        if len(data) <= max_bytes:
            break
    return data


def _encode(scaled: list[Frames], width: int, height: int, fps: int, quality: int) -> bytes:
    target = io.BytesIO()
    # A key frame a second: seeking to a step is quick and lands on it.
    with VideoWriter(target, (height, width), fps, quality, key_frame_every=fps, extra="report") as video:
        video.add(np.stack(scaled))
    return target.getvalue()


def episode_strip(frames: Frames, *, cells: int, n_frames: int, height: int = 96) -> tuple[bytes, int]:
    """JPEG of evenly spaced images side by side, as they lie under the video's time axis.

    Args:
        frames: RGB images, uint8 ``(N, H, W, 3)``.
        cells: Images that fit the whole axis.
        n_frames: Length of the axis in images, at least ``N``.
        height: Height of the strip in pixels.

    Returns:
        The JPEG's bytes and the number of cells in it: those whose middle lies before the episode's end, at least one.
    """
    places = [int((cell + 0.5) * n_frames / cells) for cell in range(cells)]
    indices = [place for place in places if place < len(frames)] or [0]
    return film_strip(frames[indices], height), len(indices)


def poster(frame: Frames, *, size: int) -> bytes:
    """JPEG of one image ``(H, W, 3)``, ``size`` pixels wide, shown until the video plays."""
    height = max(1, round(size * frame.shape[0] / frame.shape[1]))
    return jpeg(Image.fromarray(frame).resize((size, height), Image.Resampling.BICUBIC))
