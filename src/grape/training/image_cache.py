"""Images of a data set's decisions, of which only a part need be in memory.

Two ways to read are told apart. Rows of few episodes at a time (whole trajectories one after the other, or steps
shuffled within groups of episodes): an episode is decoded whole and stays until its place is needed. Rows of all
episodes at random: episodes stay as long as there is room, and of any other only the images asked for are decoded.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.store import EpisodeSource
from grape.training.episode_rows import rows_by_episode

__all__ = ["ImageCache", "episodes_that_fit"]


class ImageCache:
    """An array of images, uint8 ``(N, H, W, 3)``, that need not be in memory as a whole.

    Args:
        episodes: Store and id of each episode, in the order of the rows.
        starts: First row of each episode, and the number of all rows at the end.
        shape: ``(H, W, 3)`` of every image.
        budget_bytes: Memory for decoded images; the episode in use is kept in any case.
        scattered: Whether rows are asked for in an order that mixes more episodes than fit.
        camera: Name of a further camera; empty for the main one.
        crowded: Whether episodes have images of further cameras, which reading one whole would decode as well.
    """

    def __init__(
        self,
        episodes: Sequence[tuple[EpisodeSource, str]],
        starts: npt.NDArray[np.int64],
        shape: tuple[int, int, int],
        budget_bytes: float,
        *,
        scattered: bool = False,
        camera: str = "",
        crowded: bool = False,
    ) -> None:
        self._episodes = tuple(episodes)
        self._starts = starts
        self._shape = shape
        self._budget = budget_bytes
        self._scattered = scattered
        self._camera = camera
        self._crowded = crowded or bool(camera)
        self._held: OrderedDict[int, npt.NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(N, H, W, 3)``."""
        return len(self), *self._shape

    def __getitem__(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """Images of the given rows, in that order, uint8 ``(B, H, W, 3)``.

        Raises:
            DataError: An episode cannot be read any more, is damaged, or its images differ in shape from the others'.
        """
        rows = np.asarray(rows)
        images = np.empty((len(rows), *self._shape), dtype=np.uint8)
        for episode, places, decisions in rows_by_episode(self._starts, rows, self._held):
            images[places] = self._read(episode, decisions)
        return images

    def _read(self, episode: int, decisions: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """Images before some decisions of an episode, from memory where it is there."""
        store, name = self._episodes[episode]
        count = int(self._starts[episode + 1] - self._starts[episode])
        size = count * int(np.prod(self._shape))
        if episode not in self._held:
            if self._scattered and self._bytes + size > self._budget:
                return self._checked(name, store.images(name, decisions.tolist(), self._camera))
            self._held[episode] = self._checked(name, self._whole(store, name, count))
            self._bytes += size
            while self._bytes > self._budget and len(self._held) > 1:
                self._bytes -= self._held.popitem(last=False)[1].nbytes
        self._held.move_to_end(episode)
        images: npt.NDArray[np.uint8] = self._held[episode][decisions]
        return images

    def _whole(self, store: EpisodeSource, name: str, count: int) -> npt.NDArray[np.uint8]:
        """Images before all decisions of an episode; those of other cameras are not decoded."""
        return store.images(name, range(count), self._camera) if self._crowded else store.read(name).frames[:-1]

    def _checked(self, name: str, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        if images.shape[1:] != self._shape:
            raise DataError(
                f"Episode {name} has images of {images.shape[1:]}, others of {self._shape}.",
                "Train on one kind of data.",
            )
        return images


def episodes_that_fit(lengths: Sequence[int], shape: tuple[int, int, int], budget_bytes: float) -> int:
    """How many episodes fit into memory, whichever they are; 0 where all of them do, otherwise at least 1.

    Args:
        lengths: Decisions of each episode.
        shape: ``(H, W, 3)`` of their images.
        budget_bytes: Memory for decoded images.
    """
    sizes = np.cumsum(np.sort(np.asarray(lengths, dtype=np.int64))[::-1]) * int(np.prod(shape))
    if sizes[-1] <= budget_bytes:
        return 0
    return max(1, int(np.searchsorted(sizes, budget_bytes, side="right")))
