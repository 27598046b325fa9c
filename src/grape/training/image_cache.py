"""Images of recorded steps by row number, read from their episodes when needed and kept while they fit in memory."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.store import EpisodeSource

__all__ = ["ImageCache"]


class ImageCache:
    """An array of images, uint8 ``(N, H, W, 3)``, that need not be in memory as a whole.

    Episodes stay decoded up to ``budget_bytes``; beyond that the one not used for longest goes. Training on whole
    trajectories reads an episode's rows one after the other, so few episodes at a time are enough.

    Args:
        episodes: Store and id of each episode, in the order of the rows.
        starts: First row of each episode, and the number of all rows at the end.
        budget_bytes: Memory for decoded images; the episode in use is kept in any case.

    Attributes:
        full: Whether an episode has not found room yet.
    """

    def __init__(
        self, episodes: Sequence[tuple[EpisodeSource, str]], starts: Sequence[int], budget_bytes: float
    ) -> None:
        self._episodes = tuple(episodes)
        self._starts = np.asarray(starts, dtype=np.int64)
        self._budget = budget_bytes
        self._held: OrderedDict[int, npt.NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0
        self.full = False

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """Images of the given rows, in that order, uint8 ``(B, H, W, 3)``.

        Raises:
            DataError: An episode cannot be read any more, or its images differ in shape from the others'.
        """
        rows = np.asarray(rows)
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        found: npt.NDArray[np.uint8] | None = None
        for owner in np.unique(owners):
            images = self._images(int(owner))
            if found is None:
                found = np.empty((len(rows), *images.shape[1:]), dtype=np.uint8)
            mask = owners == owner
            if images.shape[1:] != found.shape[1:]:
                raise DataError(
                    f"Episode {self._episodes[owner][1]} has images of {images.shape[1:]}, others of "
                    f"{found.shape[1:]}.",
                    "Train on one kind of data.",
                )
            found[mask] = images[rows[mask] - self._starts[owner]]
        if found is None:
            raise IndexError("no rows")
        return found

    def keep(self, episode: int, images: npt.NDArray[np.uint8]) -> None:
        """Hold an episode's images that were decoded anyway, ``(T, H, W, 3)``, if they fit."""
        if self._bytes + images.nbytes <= self._budget:
            self._held[episode] = images
            self._bytes += images.nbytes
        else:
            self.full = True

    def _images(self, episode: int) -> npt.NDArray[np.uint8]:
        images = self._held.get(episode)
        if images is None:
            store, name = self._episodes[episode]
            images = store.read(name).frames[:-1]
            self._held[episode] = images
            self._bytes += images.nbytes
            while self._bytes > self._budget and len(self._held) > 1:
                self._bytes -= self._held.popitem(last=False)[1].nbytes
        self._held.move_to_end(episode)
        return images
