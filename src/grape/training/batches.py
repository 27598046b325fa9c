"""Samplers and collation: which items each update sees, and the frames that they need.

The items of preference training are those of :mod:`grape.training.items`; an item of fine-tuning is one row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grape.core.seeds import derive_rng
from grape.training.decision_axis import DecisionAxis, Segments
from grape.training.episode_rows import rows_of
from grape.training.gradients import Comparisons
from grape.training.items import ComparisonItem

__all__ = ["BatchSampler", "EpisodeShuffleSampler", "StepValues", "collate"]


class StepValues(Protocol):
    """A number of each control step of a table, float64; read slice by slice, so that not all need be in memory."""

    def __getitem__(self, steps: slice, /) -> npt.NDArray[Any]:
        """The numbers of a range of control steps, ``(stop - start,)``."""


class _LatestOrder:
    """The order of the latest epoch that was asked for; of one at a time, since an order is as long as the data."""

    def __init__(self) -> None:
        self._latest: tuple[int, npt.NDArray[np.integer]] | None = None

    def of(self, epoch: int, draw: Callable[[int], npt.NDArray[np.integer]]) -> npt.NDArray[np.integer]:
        """The order that ``draw`` gives an epoch."""
        if self._latest is None or self._latest[0] != epoch:
            self._latest = epoch, draw(epoch)
        return self._latest[1]


@dataclass(frozen=True)
class BatchSampler:
    """Which items each update uses: a fresh order every epoch, derived from the seed, cut into updates.

    Attributes:
        items: Number of items.
        per_update: Most items an update.
        updates: Number of all updates.
        seed: Seed of the orders.
        even: Whether the updates of an epoch differ by one item at most, so that no item weighs more for standing in
            a small one; otherwise all but the last hold ``per_update``.
    """

    items: int
    per_update: int
    updates: int
    seed: int
    even: bool = False
    _latest: _LatestOrder = field(default_factory=_LatestOrder, init=False, repr=False, compare=False)

    @staticmethod
    def plan(
        items: int,
        per_update: int,
        epochs: int,
        max_updates: int,
        seed: int,
        *,
        repeat: bool,
        even: bool = False,
    ) -> "BatchSampler":
        """BatchSampler of whole epochs.

        Args:
            items: Number of items.
            per_update: Items an update.
            epochs: Whole epochs.
            max_updates: Number of updates instead, if positive.
            seed: Seed of the orders.
            repeat: Whether ``max_updates`` may go beyond ``epochs``.
            even: Whether the updates of an epoch are of equal size.
        """
        updates = epochs * -(-items // per_update)
        if max_updates:
            updates = max_updates if repeat else min(updates, max_updates)
        return BatchSampler(items, per_update, updates, seed, even)

    @property
    def per_epoch(self) -> int:
        """Updates an epoch."""
        return -(-self.items // self.per_update)

    def weight(self, update: int) -> float:
        """What the mean over an update's items is multiplied by, so that every item of an epoch weighs the same.

        It is 1 on average. Without ``even`` it is 1 throughout: the last items of an epoch weigh more.
        """
        if not self.even:
            return 1.0
        start, stop = self._bounds(update % self.per_epoch)
        return (stop - start) * self.per_epoch / self.items

    def batch(self, update: int) -> npt.NDArray[np.int64]:
        """Items of update ``update``, counted from 0: a function of seed and number alone, so resuming is exact."""
        epoch, position = divmod(update, self.per_epoch)
        return self._latest.of(epoch, self._order)[slice(*self._bounds(position))].astype(np.int64)

    def _order(self, epoch: int) -> npt.NDArray[np.integer]:
        return derive_rng(self.seed, "order", epoch).permutation(_numbers(0, self.items))

    def _bounds(self, position: int) -> tuple[int, int]:
        """Half-open range of the epoch's order that an update takes."""
        if self.even:
            return position * self.items // self.per_epoch, (position + 1) * self.items // self.per_epoch
        return position * self.per_update, (position + 1) * self.per_update


class EpisodeShuffleSampler:
    """A fresh order of all steps every epoch, a function of seed and epoch alone, so that resuming is exact.

    Args:
        spans: Half-open range [start, stop) of rows of each episode.
        schedule: Updates and how many steps each takes.
        together: Episodes whose steps are shuffled together; 0 shuffles all steps. Few of them mean few episodes in
            memory at a time.
    """

    def __init__(self, spans: Sequence[tuple[int, int]], schedule: BatchSampler, together: int = 0) -> None:
        self._spans = spans
        self._ascending = sorted(spans)
        self._schedule = schedule
        self._together = together
        self._latest = _LatestOrder()

    def batch(self, update: int) -> npt.NDArray[np.int64]:
        """Rows of update ``update``, counted from 0."""
        if not self._together:
            return rows_of(self._ascending, self._schedule.batch(update))
        epoch, position = divmod(update, self._schedule.per_epoch)
        start = position * self._schedule.per_update
        rows = self._latest.of(epoch, self._shuffled)[start : start + self._schedule.per_update]
        return rows.astype(np.int64)

    def _shuffled(self, epoch: int) -> npt.NDArray[np.integer]:
        rng = derive_rng(self._schedule.seed, "order by episodes", epoch)
        order = rng.permutation(len(self._spans))
        groups = [order[start : start + self._together] for start in range(0, len(order), self._together)]
        together = (np.concatenate([_numbers(*self._spans[number]) for number in group]) for group in groups)
        return np.concatenate([rng.permutation(rows) for rows in together])


def _numbers(start: int, stop: int) -> npt.NDArray[np.integer]:
    """The numbers from ``start`` to ``stop - 1``, in half the memory where they fit; generators order both alike."""
    return np.arange(start, stop, dtype=np.int32 if stop < 2**31 else np.int64)


def collate(
    items: Sequence[ComparisonItem], reference_T: StepValues, axis: DecisionAxis
) -> tuple[Segments, Comparisons]:
    """The frames of one update, each once, and how they add up.

    Args:
        items: The update's comparisons.
        reference_T: Reference log-probability of every control step of the table, float64.
        axis: Where decisions begin.

    Returns:
        The runs of executed actions that take part, sorted: one for each decision, or more where items begin or end
        inside of it; and the comparisons over positions in them.
    """
    sides = [(axis.cut(item.chosen), axis.cut(item.rejected)) for item in items]
    frames = sorted({part for both in sides for side in both for part in side})
    places = {part: place for place, part in enumerate(frames)}

    def positions(side: Sequence[tuple[int, int]]) -> Tensor:
        return torch.tensor([places[part] for part in side], dtype=torch.long)

    def reference(sides: Sequence[tuple[int, int]]) -> Tensor:
        return torch.tensor([float(reference_T[start:stop].sum()) for start, stop in sides], dtype=torch.float64)

    def lengths(sides: Sequence[tuple[int, int]]) -> Tensor:
        return torch.tensor([stop - start for start, stop in sides], dtype=torch.float64)

    chosen, rejected = [item.chosen for item in items], [item.rejected for item in items]
    return axis.segments(frames), Comparisons(
        frame_count=len(frames),
        chosen=[positions(side) for side, _ in sides],
        rejected=[positions(side) for _, side in sides],
        chosen_reference_P=reference(chosen),
        rejected_reference_P=reference(rejected),
        weight_P=torch.tensor([item.weight for item in items], dtype=torch.float64),
        anchored_P=torch.tensor([item.anchored for item in items], dtype=torch.float64),
        chosen_steps_P=lengths(chosen),
        rejected_steps_P=lengths(rejected),
    )
