"""Which two episodes a rater sees next, and on which side each stands: pure functions.

Every rater sees the couples in one order, the most uncertain first, so that raters can be compared on what they have in
common. Now and then a couple comes again, with the sides exchanged: whoever decides it otherwise then was undecided, or
has a preference for a side.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grape.core.seeds import derive_seed

__all__ = [
    "REPEAT_DISTANCE",
    "Answer",
    "Plan",
    "Question",
    "next_question",
    "order_couples",
    "remaining",
    "uncertainty",
]

Floats = npt.NDArray[np.float64]

REPEAT_DISTANCE = 5
"""Answers after which a couple may come again; later ones alone once all new couples were shown."""


@dataclass(frozen=True)
class Plan:
    """What raters are asked.

    Attributes:
        names: Ids of both episodes of each couple.
        order: Couples in the order in which they are shown, by their place in ``names``.
        couples: How many different ones each rater is shown.
        repeats: How many of them come again, as a share.
        seed: Of the sides, and of which couples come again.
    """

    names: tuple[tuple[str, str], ...]
    order: tuple[int, ...]
    couples: int
    repeats: float = 0.1
    seed: int = 0

    @property
    def most_repeats(self) -> int:
        """How often a couple comes again, all in all."""
        return math.floor(self.repeats * self.couples)


@dataclass(frozen=True)
class Answer:
    """What a rater did with a couple.

    Attributes:
        couple: Its place in the plan's names.
        decided: False where it was skipped.
    """

    couple: int
    decided: bool = True


@dataclass(frozen=True)
class Question:
    """A couple as it is shown.

    Attributes:
        couple: Its place in the plan's names.
        left: Id of the episode on the left.
        right: Id of the other.
    """

    couple: int
    left: str
    right: str


def uncertainty(orders: Sequence[Floats], margins: Floats | None = None) -> Floats:
    """How little is known of each couple, from 0 (everybody agrees, by a large margin) to 1.

    Half of it is how much the sources contradict one another, ``1 - |mean order|``, with 1 where nobody says anything;
    half is how small the margin is, ``1 / (1 + |margin| / median)``. Without margins the first is all of it.

    Args:
        orders: Of each source: 1 where it prefers the first side of a couple, -1 the other, 0 for a tie, NaN where it
            says nothing, ``(C,)`` each.
        margins: By how much the first side is better, ``(C,)``; NaN where it is not known.
    """
    table = np.stack(orders)
    known = np.isfinite(table)
    sums, counts = np.where(known, table, 0.0).sum(axis=0), known.sum(axis=0)
    contradiction: Floats = 1.0 - np.abs(sums) / np.maximum(counts, 1)
    if margins is None:
        return contradiction
    sizes = np.abs(margins)
    usual = float(np.median(sizes[np.isfinite(sizes)])) if np.isfinite(sizes).any() else 0.0
    closeness = usual / (usual + sizes) if usual > 0 else (sizes == 0).astype(np.float64)
    result: Floats = (contradiction + np.where(np.isfinite(sizes), closeness, 1.0)) / 2.0
    return result


def order_couples(uncertain: Floats, states: Sequence[int], seed: int = 0) -> tuple[int, ...]:
    """Couples in the order in which they are shown: uncertain ones first, but not one initial state after the other.

    The k-th most uncertain couple of an initial state, from 0, counts as ``1 / (1 + k)`` of its uncertainty. Equals are
    drawn.

    Args:
        uncertain: See :func:`uncertainty`, ``(C,)``.
        states: Initial state of each couple, ``(C,)``.
        seed: Of the draw.
    """
    draw = np.random.default_rng(derive_seed(seed, "label", "order")).permutation(len(states))
    seen: Counter[int] = Counter()
    keys = {}
    for couple in sorted(range(len(states)), key=lambda couple: (-uncertain[couple], draw[couple])):
        place = seen[states[couple]]
        seen[states[couple]] += 1
        keys[couple] = -float(uncertain[couple]) / (1 + place), place, int(draw[couple])
    return tuple(sorted(keys, key=lambda couple: keys[couple]))


def next_question(plan: Plan, rater: str, answers: Sequence[Answer], unusable: Iterable[str] = ()) -> Question | None:
    """What a rater is shown after these answers; None where nothing is left.

    Args:
        plan: What raters are asked.
        rater: Whose answers they are.
        answers: The answers that stand, in their order.
        unusable: Episodes that cannot be shown.
    """
    gone = set(unusable)
    counts = Counter(answer.couple for answer in answers)
    new = None
    if len(counts) < plan.couples:
        usable = (couple for couple in plan.order if couple not in counts and gone.isdisjoint(plan.names[couple]))
        new = next(usable, None)
    due = math.floor(plan.repeats * len(counts)) > len(answers) - len(counts)
    waiting = _to_repeat(plan, answers, gone, distance=0 if new is None else REPEAT_DISTANCE) if due else []
    if waiting:
        return _shown(plan, rater, min(waiting, key=lambda couple: _draw(plan, "again", rater, couple)), 1)
    return None if new is None else _shown(plan, rater, new, 0)


def remaining(plan: Plan, answers: Sequence[Answer], unusable: Iterable[str] = ()) -> int:
    """How many questions a rater still has before them, as far as it can be known."""
    gone = set(unusable)
    counts = Counter(answer.couple for answer in answers)
    usable = (couple for couple in plan.order if couple not in counts and gone.isdisjoint(plan.names[couple]))
    new = sum(1 for _ in itertools.islice(usable, max(0, plan.couples - len(counts))))
    repeats = max(0, math.floor(plan.repeats * (len(counts) + new)) - (len(answers) - len(counts)))
    if not new:
        repeats = min(repeats, len(_to_repeat(plan, answers, gone, distance=0)))
    return new + repeats


def _to_repeat(plan: Plan, answers: Sequence[Answer], gone: set[str], distance: int) -> list[int]:
    """Couples that were decided once, and not among the last answers."""
    counts = Counter(answer.couple for answer in answers)
    return [
        answer.couple
        for answer in answers[: max(0, len(answers) - distance)]
        if answer.decided and counts[answer.couple] == 1 and gone.isdisjoint(plan.names[answer.couple])
    ]


def _shown(plan: Plan, rater: str, couple: int, times: int) -> Question:
    """A couple with its sides drawn; shown again, it has them exchanged."""
    one, other = plan.names[couple]
    if (_draw(plan, "side", rater, couple) + times) % 2:
        one, other = other, one
    return Question(couple, one, other)


def _draw(plan: Plan, purpose: str, rater: str, couple: int) -> int:
    return derive_seed(plan.seed, "label", purpose, rater, *plan.names[couple])
