"""Items, samplers and collation: what each update compares or imitates.

An *item* of preference training is one comparison (whole trajectories, single decisions, or a chosen one alone), given
by the control steps of its two sides in a :class:`~grape.training.dataset.StepDataset`; the methods differ only in how
pairs become items. A side may begin or end inside a chunk: only the executed tokens of its control steps count. An item
of fine-tuning is one row.
"""

import functools
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grape.core.errors import DataError
from grape.core.preferences import PreferencePair
from grape.core.seeds import derive_rng
from grape.training.decision_axis import DecisionAxis, Segments
from grape.training.gradients import Comparisons
from grape.training.methods import UNPAIRED
from grape.training.unpaired import WeightedEpisode

__all__ = ["BatchSampler", "ComparisonItem", "EpisodeShuffleSampler", "Sample", "collate", "make_items"]

Sample = PreferencePair | WeightedEpisode
"""What a run learns from, one by one."""


@dataclass(frozen=True)
class ComparisonItem:
    """One comparison.

    Attributes:
        name: For messages, e.g. ``"pair drawer-open-3-0"``.
        chosen: Half-open range [start, stop) of control steps of the table: the chosen side.
        rejected: The same of the rejected side. A loss over single episodes leaves one side empty (equal numbers).
        weight: Weight in the mean over comparisons, 1 on average over those of a run.
        anchored: Whether the anchor may imitate the chosen side.
    """

    name: str
    chosen: tuple[int, int]
    rejected: tuple[int, int] = (0, 0)
    weight: float = 1.0
    anchored: bool = True

    @property
    def steps(self) -> int:
        """Control steps of both sides."""
        return self.chosen[1] - self.chosen[0] + self.rejected[1] - self.rejected[0]


def make_items(
    method: Literal["tpo", "step-dpo", "filtered-bc", "kto", "rloo"],
    samples: Sequence[Sample],
    spans: Mapping[str, tuple[int, int]],
    window: int = 0,
    stride: int = 1,
    succeeded: Container[str] | None = None,
    axis: DecisionAxis | None = None,
) -> tuple[tuple[ComparisonItem, ...], float]:
    """Turn pairs into items.

    ``tpo`` compares whole trajectories (arXiv 2411.19309), or windows of them: what the first public implementation
    optimized, though here only windows of one pair at equal offsets meet. ``step-dpo`` compares the decisions at equal
    index of the two sides, the paper's step-wise baseline. Both take of a side the range of control steps that its pair
    names, and weigh a comparison as its pair, scaled to 1 on average. ``filtered-bc`` imitates every decision of every
    chosen episode, each once. ``kto`` and ``rloo`` see whole episodes alone: on the chosen side where their weight is
    positive, else on the rejected one.

    Args:
        method: How pairs become items.
        samples: The pairs, or the weighted episodes of an unpaired method.
        spans: Control steps of each episode, as in a step table.
        window: Decisions of a window, for ``tpo``; 0 takes the trajectory whole. A side that is shorter is one window.
        stride: Decisions between the starts of windows.
        succeeded: Episodes known to have succeeded: only these are anchored. None anchors all.
        axis: Where decisions begin; None for one action a decision.

    Returns:
        The items, and how many of them one pair stands for on average (so that updates of different methods see
        comparable amounts of data).

    Raises:
        DataError: A pair names control steps that its episode does not have, or the weights are not usable.
    """
    axis = axis or DecisionAxis.plain(max((stop for _, stop in spans.values()), default=0))
    pairs = [sample for sample in samples if isinstance(sample, PreferencePair)]
    items: list[ComparisonItem] = []
    if method in UNPAIRED:
        single = [sample for sample in samples if isinstance(sample, WeightedEpisode)]
        return tuple(_single(episode, spans[episode.episode], succeeded) for episode in single), 2.0
    if method == "filtered-bc":
        episodes = sorted({pair.chosen for pair in pairs})
        for episode in episodes:
            first, parts = spans[episode][0], axis.cut(spans[episode])
            items += [ComparisonItem(f"episode {episode}, step {part[0] - first}", part) for part in parts]
        return tuple(items), len(items) / len(episodes)
    for pair in pairs:
        name = f"pair {pair.pair_id}"
        chosen = _steps(pair.pair_id, pair.chosen, spans, pair.chosen_steps)
        rejected = _steps(pair.pair_id, pair.rejected, spans, pair.rejected_steps)
        anchored = succeeded is None or pair.chosen in succeeded
        item = functools.partial(ComparisonItem, weight=pair.weight, anchored=anchored)
        if method == "step-dpo":
            decisions = zip(axis.cut(chosen), axis.cut(rejected), strict=False)
            items += [item(f"{name}, step {t}", *sides) for t, sides in enumerate(decisions)]
        elif window:
            windows = [axis.windows(side, window, stride) for side in (chosen, rejected)]
            both = zip(*windows, strict=False)  # the longer side's last windows meet nothing
            items += [item(f"{name}, window {k}", *sides) for k, sides in enumerate(both)]
        else:
            items.append(item(name, chosen, rejected))
    return _with_mean_weight_1(items), len(items) / len(pairs)


def _single(episode: WeightedEpisode, span: tuple[int, int], succeeded: Container[str] | None) -> ComparisonItem:
    chosen, rejected = (span, (0, 0)) if episode.weight > 0 else ((0, 0), span)
    anchored = succeeded is None or episode.episode in succeeded
    return ComparisonItem(f"episode {episode.episode}", chosen, rejected, abs(episode.weight), anchored)


def _steps(
    pair_id: str, episode: str, spans: Mapping[str, tuple[int, int]], steps: tuple[int, int] | None
) -> tuple[int, int]:
    """Control steps of an episode that a pair compares."""
    start, stop = spans[episode]
    if steps is None:
        return start, stop
    if not 0 <= steps[0] < steps[1] <= stop - start:
        raise DataError(
            f"Pair {pair_id} compares the control steps [{steps[0]}, {steps[1]}) of episode {episode}, which has "
            f"{stop - start}.",
            "Make the pairs again with 'grape pair'.",
        )
    return start + steps[0], start + steps[1]


def _with_mean_weight_1(items: Sequence[ComparisonItem]) -> tuple[ComparisonItem, ...]:
    """The items with weights that are 1 on average, so that weighting does not change how far an update moves."""
    mean = sum(item.weight for item in items) / len(items)
    if not 0 < mean < math.inf or any(item.weight < 0 for item in items):
        raise DataError(
            "The pairs' weights must be at least 0, one of them above, and their sum finite.",
            "Make the pairs again with 'grape pair'.",
        )
    return tuple(replace(item, weight=item.weight / mean) for item in items)


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
    _orders: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict, init=False, repr=False, compare=False)

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
        if epoch not in self._orders:
            self._orders.clear()  # one epoch's order at a time
            self._orders[epoch] = derive_rng(self.seed, "order", epoch).permutation(self.items)
        return self._orders[epoch][slice(*self._bounds(position))].copy()

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
        self._episodes = [np.arange(start, stop, dtype=np.int64) for start, stop in spans]
        self._rows = np.sort(np.concatenate(self._episodes))
        self._schedule = schedule
        self._together = together
        self._epoch: tuple[int, npt.NDArray[np.int64]] = (-1, self._rows)

    def batch(self, update: int) -> npt.NDArray[np.int64]:
        """Rows of update ``update``, counted from 0."""
        if not self._together:
            return self._rows[self._schedule.batch(update)]
        epoch, position = divmod(update, self._schedule.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._shuffled(epoch))
        per_update = self._schedule.per_update
        return self._epoch[1][position * per_update : (position + 1) * per_update]

    def _shuffled(self, epoch: int) -> npt.NDArray[np.int64]:
        rng = derive_rng(self._schedule.seed, "order by episodes", epoch)
        order = rng.permutation(len(self._episodes))
        groups = [order[start : start + self._together] for start in range(0, len(order), self._together)]
        return np.concatenate([rng.permutation(np.concatenate([self._episodes[i] for i in group])) for group in groups])


def collate(
    items: Sequence[ComparisonItem], reference_T: npt.NDArray[np.float64], axis: DecisionAxis | None = None
) -> tuple[Segments, Comparisons]:
    """The frames of one update, each once, and how they add up.

    Args:
        items: The update's comparisons.
        reference_T: Reference log-probability of every control step of the table, float64.
        axis: Where decisions begin; None for one action a decision.

    Returns:
        The runs of executed actions that take part, sorted: one for each decision, or more where items begin or end
        inside of it; and the comparisons over positions in them.
    """
    axis = axis or DecisionAxis.plain(len(reference_T))
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
