"""Videos of episodes as raters see them, encoded when they are first asked for and kept in memory."""

import threading
from collections import OrderedDict

from grape.core.errors import DataError
from grape.report.videos import encode_video, images_for_people
from grape.store import EpisodeStore

__all__ = ["VIDEO_FPS", "EpisodeVideos"]

VIDEO_FPS = 10
"""Images a second of every video; the page plays both at a rate at which the longer one takes some seconds."""

_MOST_BYTES = 1_500_000
_MOST_VIDEOS = 64


class EpisodeVideos:
    """The videos of a store, one an episode; several threads may ask.

    Args:
        store: Where the episodes are.
        size: Width of a video in pixels.
    """

    def __init__(self, store: EpisodeStore, size: int) -> None:
        self._store, self._size = store, size
        self._lock = threading.Lock()
        self._encoded: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def video(self, episode_id: str, checksum: str) -> bytes:
        """MP4 of an episode, one image a state.

        Args:
            episode_id: The episode.
            checksum: What its checksum must be.

        Raises:
            DataError: The episode is gone, damaged, another one than that, or has no images.
        """
        if self._store.checksum(episode_id) != checksum:
            raise DataError(f"Episode {episode_id} has changed since this began.", "Start 'grape label' again.")
        place = episode_id, checksum
        with self._lock:
            if place not in self._encoded:
                frames = images_for_people(self._store.read(episode_id, display=True))
                if frames is None:
                    raise DataError(f"Episode {episode_id} has no images.", "Votes need episodes with images.")
                self._encoded[place] = encode_video(
                    frames, size=self._size, fps=VIDEO_FPS, n_frames=len(frames), max_bytes=_MOST_BYTES
                )
                while len(self._encoded) > _MOST_VIDEOS:
                    self._encoded.popitem(last=False)
            self._encoded.move_to_end(place)
            return self._encoded[place]
