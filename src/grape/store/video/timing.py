"""Which row of a robot's log becomes a state, and which image it goes with."""

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.store.video.episode_list import VideoEpisode

__all__ = ["choose_rows", "match_images"]

Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


def choose_rows(time: Float64, hz: float) -> Indices:
    """Rows of a log that become states.

    Args:
        time: Seconds, increasing, ``(N,)``.
        hz: States a second; 0 takes every row. Of a log that is not faster every row is taken, too.

    Returns:
        Indices, increasing: the rows nearest to each tick, from the first row on; the last row always.
    """
    everything = np.arange(len(time))
    if hz <= 0 or len(time) < 2 or 1.0 / float(np.median(np.diff(time))) <= 1.01 * hz:
        return everything
    ticks = np.arange(time[0], time[-1], 1.0 / hz)
    return np.unique([*_nearest(time, ticks), len(time) - 1]).astype(np.intp)


def match_images(episode: VideoEpisode, time: Float64, images: Float64, tolerance: float) -> Indices:
    """The image nearest in time to each state.

    Args:
        episode: For messages.
        time: Of the states, seconds on the log's clock, ``(N,)``.
        images: Of the images, on the same clock.
        tolerance: Largest distance in seconds; 0 takes the usual distance of two images.

    Raises:
        DataError: A state has no image that is near enough; the first one is named.
    """
    usual = float(np.median(np.diff(images)))
    most = tolerance or usual
    matched = _nearest(images, time)
    apart = np.abs(images[matched] - time)
    late = np.flatnonzero(apart > most * (1 + 1e-9))
    if not len(late):
        return matched
    if time[-1] < images[0] or time[0] > images[-1]:
        raise DataError(
            f"{episode.where}: log and video do not overlap: the log runs from {time[0]:.3f} s to {time[-1]:.3f} s, "
            f"the video from {images[0]:.3f} s to {images[-1]:.3f} s of the same clock.",
            "Give offset, the seconds to add to the video's time, and check robot_log: time (s, ms, us, ns).",
        )
    first = int(late[0])
    raise DataError(
        f"{episode.where}: the state at {time[first]:.3f} s has no image: the nearest is {apart[first]:.3f} s away, "
        f"where {most:.3f} s are allowed ({len(late)} of {len(time)} states).",
        "Cut the log to the video's length, correct offset, or pass --tolerance.",
    )


def _nearest(sorted_times: Float64, times: Float64) -> Indices:
    after = np.clip(np.searchsorted(sorted_times, times), 1, len(sorted_times) - 1)
    before_is_nearer = times - sorted_times[after - 1] <= sorted_times[after] - times
    return np.where(before_is_nearer, after - 1, after)
