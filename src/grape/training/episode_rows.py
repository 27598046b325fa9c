"""Rows of many episodes behind one another, of which only a part need be in memory.

What was decided is small beside the images, yet a hundred thousand episodes hold gigabytes of it. So a column is read
episode by episode when its rows are needed, and an episode stays until its place is.
"""

from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.store import Decisions, EpisodeSource

__all__ = ["Column", "DecisionCache", "EpisodeDecisions", "Rows", "rows_by_episode", "rows_of"]

Index = slice | npt.NDArray[np.integer]


class Rows(Protocol):
    """An array whose first axis is indexed with slices or with arrays of rows: in memory, or a :class:`Column`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and the shape of one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> npt.NDArray[Any]:
        """Some rows, in that order."""


@dataclass(frozen=True, eq=False)
class EpisodeDecisions:
    """What a :class:`DecisionCache` keeps of an episode.

    Attributes:
        tokens_NKD: Sampled tokens of each decision's chunk, int32; -1 where nothing was sampled.
        logps_NKD: Their log-probabilities, float32; NaN where nothing was sampled.
        labels_TD: What an imitator should learn at each control step, float32.
        proprio_NP: Robot state before each decision, float32.
    """

    tokens_NKD: npt.NDArray[np.int32]
    logps_NKD: npt.NDArray[np.float32]
    labels_TD: npt.NDArray[np.float32]
    proprio_NP: npt.NDArray[np.float32]

    @staticmethod
    def of(part: Decisions) -> "EpisodeDecisions":
        """The arrays of an episode as a store gives it."""
        tokens_NKD, logps_NKD = part.sampled()
        return EpisodeDecisions(tokens_NKD, logps_NKD, part.labels, part.proprio[part.starts])

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return sum(array.nbytes for array in (self.tokens_NKD, self.logps_NKD, self.labels_TD, self.proprio_NP))


class DecisionCache:
    """Decisions of episodes, read again where they have left memory.

    Args:
        episodes: Store and id of each episode, in the order of the rows.
        budget_bytes: Memory for them; the episode in use is kept in any case.
    """

    def __init__(self, episodes: Sequence[tuple[EpisodeSource, str]], budget_bytes: float) -> None:
        self._episodes = tuple(episodes)
        self._budget = budget_bytes
        self._kept: OrderedDict[int, EpisodeDecisions] = OrderedDict()
        self._bytes = 0

    def __contains__(self, episode: object) -> bool:
        return episode in self._kept

    def __getitem__(self, episode: int) -> EpisodeDecisions:
        """An episode by its number.

        Raises:
            DataError: It cannot be read any more, or is damaged.
        """
        if episode not in self._kept:
            store, name = self._episodes[episode]
            self.keep(episode, EpisodeDecisions.of(store.decisions(name)))
        self._kept.move_to_end(episode)
        return self._kept[episode]

    def keep(self, episode: int, decisions: EpisodeDecisions) -> None:
        """Keep what was read of an episode; others leave memory for it, those first that were not used longest."""
        self._kept[episode] = decisions
        self._bytes += decisions.nbytes
        while self._bytes > self._budget and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes

    def name(self, episode: int) -> str:
        """Id of an episode."""
        return self._episodes[episode][1]


class Column:
    """One of the arrays of :class:`EpisodeDecisions` over all episodes; see :class:`Rows`.

    Args:
        cache: Where the episodes are.
        field: The array's name.
        starts: First row of each episode, and the number of all rows at the end.
        shape: Shape of a row; an episode's rows may have fewer values on its first axis.
        dtype: Type of the values.
        fill: Value where a row has fewer.
    """

    def __init__(
        self,
        cache: DecisionCache,
        field: str,
        starts: npt.NDArray[np.int64],
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        fill: float = 0,
    ) -> None:
        self._cache = cache
        self._field = field
        self._starts = starts
        self._dtype = np.dtype(dtype)
        self._fill = fill
        self.shape = (int(starts[-1]), *shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Index) -> npt.NDArray[Any]:
        """Some rows, in that order.

        Raises:
            DataError: An episode cannot be read any more, is damaged, or is not as it was.
        """
        rows = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index)
        values = np.full((len(rows), *self.shape[1:]), self._fill, self._dtype)
        for episode, places, positions in rows_by_episode(self._starts, rows, self._cache):
            part = getattr(self._cache[episode], self._field)
            if len(part) != self._starts[episode + 1] - self._starts[episode] or part.shape[1] > self.shape[1]:
                raise DataError(
                    f"Episode {self._cache.name(episode)} is not what it was when this run began.",
                    "Start the run again once nothing changes its episodes.",
                )
            values[places, : part.shape[1]] = part[positions]
        return values


def rows_by_episode(
    starts: npt.NDArray[np.int64], rows: npt.NDArray[np.integer], in_memory: Container[int]
) -> Iterator[tuple[int, npt.NDArray[np.integer], npt.NDArray[np.integer]]]:
    """Rows of a table by the episodes that they belong to.

    Args:
        starts: First row of each episode, and the number of all rows at the end.
        rows: Some rows, in any order.
        in_memory: Episodes that need not be read. They come first: reading another one may take their place.

    Yields:
        Number of an episode, where in ``rows`` its own are, and their positions within it.
    """
    if not len(rows):
        return
    owners = np.searchsorted(starts, rows, side="right") - 1
    order = np.argsort(owners, kind="stable")
    episodes, firsts = np.unique(owners[order], return_index=True)
    groups = dict(zip(episodes.tolist(), np.split(order, firsts[1:]), strict=True))
    for owner in sorted(groups, key=lambda owner: (owner not in in_memory, owner)):
        places = groups[owner]
        yield owner, places, rows[places] - starts[owner]


def rows_of(spans: Sequence[tuple[int, int]], positions: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Rows at some positions of ranges [start, stop) that are thought of as one behind the other, int64."""
    starts, stops = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    ends = np.cumsum(stops - starts)
    owners = ends.searchsorted(positions, "right")
    return np.asarray(stops[owners] - ends[owners] + positions, dtype=np.int64)
