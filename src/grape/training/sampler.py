"""Which steps of the demonstrations each update of supervised fine-tuning sees."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grape.core.seeds import derive_rng
from grape.training.batches import BatchSampler

__all__ = ["EpisodeShuffleSampler"]

Rows = npt.NDArray[np.int64]


class EpisodeShuffleSampler:
    """A fresh order of all steps every epoch, a function of seed and epoch alone, so that resuming is exact.

    Args:
        spans: Half-open range [start, stop) of rows of each episode.
        schedule: Updates and how many steps each takes.
        together: Episodes whose steps are shuffled together; 0 shuffles all steps. Few of them mean few episodes in
            memory at a time.
    """

    def __init__(self, spans: Sequence[tuple[int, int]], schedule: BatchSampler, together: int = 0) -> None:
        self._episodes = [np.arange(start, stop, dtype=np.int64) for start, stop in spans]
        self._rows = np.sort(np.concatenate(self._episodes))
        self._schedule = schedule
        self._together = together
        self._epoch: tuple[int, Rows] = (-1, self._rows)

    def batch(self, update: int) -> Rows:
        """Rows of update ``update``, counted from 0."""
        if not self._together:
            return self._rows[self._schedule.batch(update)]
        epoch, position = divmod(update, self._schedule.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._shuffled(epoch))
        per_update = self._schedule.per_update
        return self._epoch[1][position * per_update : (position + 1) * per_update]

    def _shuffled(self, epoch: int) -> Rows:
        rng = derive_rng(self._schedule.seed, "order by episodes", epoch)
        order = rng.permutation(len(self._episodes))
        groups = [order[start : start + self._together] for start in range(0, len(order), self._together)]
        return np.concatenate([rng.permutation(np.concatenate([self._episodes[i] for i in group])) for group in groups])
