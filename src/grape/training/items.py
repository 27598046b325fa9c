"""What each method of preference training compares or imitates: from pairs and single episodes to items.

An *item* is one comparison (whole trajectories, single decisions, or a chosen one alone), given by the control steps of
its two sides in a :class:`~grape.training.dataset.StepDataset`; the methods differ only in how pairs become items. A
side may begin or end inside a chunk: only the executed tokens of its control steps count.
"""

import functools
import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, overload

import numpy as np

from grape.core.errors import DataError
from grape.core.preferences import PreferencePair
from grape.training.decision_axis import DecisionAxis
from grape.training.methods import UNPAIRED
from grape.training.unpaired import WeightedEpisode

__all__ = ["ComparisonItem", "ItemSequence", "Sample", "make_items"]

Sample = PreferencePair | WeightedEpisode
"""What a run learns from, one by one."""

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
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
    chosen: Range
    rejected: Range = (0, 0)
    weight: float = 1.0
    anchored: bool = True

    @property
    def steps(self) -> int:
        """Control steps of both sides."""
        return self.chosen[1] - self.chosen[0] + self.rejected[1] - self.rejected[0]


class ItemSequence(Sequence[ComparisonItem]):
    """Items that are parts of whole comparisons, made when they are needed: there may be one for every decision.

    Args:
        wholes: The comparisons to cut.
        counts: How many parts each has.
        part: Gives a part of a comparison by its number.
    """

    def __init__(
        self,
        wholes: Sequence[ComparisonItem],
        counts: Sequence[int],
        part: Callable[[ComparisonItem, int], ComparisonItem],
    ) -> None:
        self._wholes = wholes
        self._ends = np.cumsum(counts, dtype=np.int64)
        self._part = part

    def __len__(self) -> int:
        return int(self._ends[-1])

    @overload
    def __getitem__(self, index: int) -> ComparisonItem: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[ComparisonItem, ...]: ...

    def __getitem__(self, index: int | slice) -> ComparisonItem | tuple[ComparisonItem, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        number = range(len(self))[index]
        whole = int(self._ends.searchsorted(number, "right"))
        return self._part(self._wholes[whole], number - (int(self._ends[whole - 1]) if whole else 0))


def make_items(
    method: Literal["tpo", "step-dpo", "filtered-bc", "kto", "rloo"],
    samples: Sequence[Sample],
    spans: Mapping[str, Range],
    window: int = 0,
    stride: int = 1,
    succeeded: Container[str] | None = None,
    axis: DecisionAxis | None = None,
) -> tuple[Sequence[ComparisonItem], float]:
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
    if axis is None:
        axis = DecisionAxis.plain(max((stop for _, stop in spans.values()), default=0))
    pairs = [sample for sample in samples if isinstance(sample, PreferencePair)]
    if method in UNPAIRED:
        single = [sample for sample in samples if isinstance(sample, WeightedEpisode)]
        return tuple(_single(episode, spans[episode.episode], succeeded) for episode in single), 2.0
    if method == "filtered-bc":
        episodes = sorted({pair.chosen for pair in pairs})
        wholes = [ComparisonItem(f"episode {episode}", spans[episode]) for episode in episodes]
        counts = [axis.count(whole.chosen) for whole in wholes]
        return ItemSequence(wholes, counts, functools.partial(_imitated, axis)), sum(counts) / len(wholes)
    wholes = [_compared(pair, spans, succeeded is None or pair.chosen in succeeded) for pair in pairs]
    if method != "step-dpo" and not window:
        return _with_mean_weight_1(wholes, [1] * len(wholes)), 1.0
    size, step = (1, 1) if method == "step-dpo" else (window, stride)
    counts = [  # the longer side's last parts meet nothing
        min(axis.windows(whole.chosen, size, step), axis.windows(whole.rejected, size, step)) for whole in wholes
    ]
    part = functools.partial(_windows, axis, size, step, "step" if method == "step-dpo" else "window")
    return ItemSequence(_with_mean_weight_1(wholes, counts), counts, part), sum(counts) / len(wholes)


def _single(episode: WeightedEpisode, span: Range, succeeded: Container[str] | None) -> ComparisonItem:
    chosen, rejected = (span, (0, 0)) if episode.weight > 0 else ((0, 0), span)
    anchored = succeeded is None or episode.episode in succeeded
    return ComparisonItem(f"episode {episode.episode}", chosen, rejected, abs(episode.weight), anchored)


def _imitated(axis: DecisionAxis, whole: ComparisonItem, number: int) -> ComparisonItem:
    """A decision of an episode to imitate."""
    part = axis.window(whole.chosen, number)
    return ComparisonItem(f"{whole.name}, step {part[0] - whole.chosen[0]}", part)


def _windows(
    axis: DecisionAxis, size: int, stride: int, word: str, whole: ComparisonItem, number: int
) -> ComparisonItem:
    """The windows of the two sides of a comparison at equal offset."""
    chosen, rejected = (axis.window(side, number * stride, size) for side in (whole.chosen, whole.rejected))
    return replace(whole, name=f"{whole.name}, {word} {number}", chosen=chosen, rejected=rejected)


def _compared(pair: PreferencePair, spans: Mapping[str, Range], anchored: bool) -> ComparisonItem:
    """The two sides that a pair compares."""
    chosen = _steps(pair.pair_id, pair.chosen, spans, pair.chosen_steps)
    rejected = _steps(pair.pair_id, pair.rejected, spans, pair.rejected_steps)
    return ComparisonItem(f"pair {pair.pair_id}", chosen, rejected, pair.weight, anchored)


def _steps(pair_id: str, episode: str, spans: Mapping[str, Range], steps: Range | None) -> Range:
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


def _with_mean_weight_1(wholes: Sequence[ComparisonItem], counts: Sequence[int]) -> tuple[ComparisonItem, ...]:
    """Comparisons with weights that are 1 on average over their parts, so that weights do not change the step's size.

    Args:
        wholes: The comparisons.
        counts: How many parts each is cut into.
    """
    weighed = zip(wholes, counts, strict=True)
    mean = sum(whole.weight * count for whole, count in weighed) / sum(counts)
    if not 0 < mean < math.inf or any(whole.weight < 0 for whole in wholes):
        raise DataError(
            "The pairs' weights must be at least 0, one of them above, and their sum finite.",
            "Make the pairs again with 'grape pair'.",
        )
    if all(whole.weight == mean == 1 for whole in wholes):
        return tuple(wholes)
    return tuple(replace(whole, weight=whole.weight / mean) for whole in wholes)
