"""Drawings under a pair's videos: stage bands, constraint curves and bars of the score's terms.

Both sides share one time axis of ``n_frames`` images, the length of their videos: the image of state ``k`` is on
screen from ``k / n_frames`` to ``(k + 1) / n_frames``. Both sides of a constraint share one vertical scale. Positions
are percentages, curves are paths in a box of 1000 by 100 that the page stretches.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grape.core.preferences import ConstraintScore, Score, StageScore
from grape.report.numbers import quantity

__all__ = ["Band", "Bar", "CurveRow", "TermBars", "constraint_rows", "stage_bands", "term_bars"]

BOX_WIDTH, BOX_HEIGHT = 1000.0, 100.0

TERM_NAMES = {
    "self": ("self-reward", "how likely the policy found its own actions"),
    "ext": ("external reward", "how well the stages' constraints held"),
    "success": ("success", "whether the task was solved"),
    "stage": ("stage cost", "by how much less the stage cost"),
}


@dataclass(frozen=True)
class Band:
    """A stage on the time axis.

    Attributes:
        name: The stage's name.
        number: Position among the task's stages, from 1.
        left: Where it begins, percent of the axis.
        width: How long it is, percent of the axis.
        done: Whether its goal was reached.
        cost: Its cost C_i.
    """

    name: str
    number: int
    left: float
    width: float
    done: bool
    cost: float


@dataclass(frozen=True)
class CurveRow:
    """One constraint of one side under the time axis.

    Attributes:
        stage: The stage's name.
        name: The constraint's name.
        kind: ``"subgoal"`` or ``"path"``.
        path: The raw cost over time, or empty where there is none.
        excess: Areas between curve and threshold where a path constraint that costs something lies above it.
        judged: Where a subgoal is judged: the curve's last value.
        threshold_y: Height of the threshold in the box, or None where it lies outside.
        top: Value at the upper edge of the box, with unit.
        value: The aggregated cost with unit.
        contribution: What the constraint adds to the stage's cost.
        held: Whether it added nothing.
        reached: Whether its stage was entered.
        objectives: Objective tags.
        yes_or_no: Whether all it ever measured is 0 or 1, which the stage bands tell already.
    """

    stage: str
    name: str
    kind: str
    path: str
    excess: str
    judged: str
    threshold_y: float | None
    top: str
    value: str
    contribution: float
    held: bool
    reached: bool
    objectives: tuple[str, ...]
    yes_or_no: bool


@dataclass(frozen=True)
class Bar:
    """One horizontal bar; positions are percentages of the bars' common width."""

    value: float
    left: float
    width: float


@dataclass(frozen=True)
class TermBars:
    """One term of the score for both sides.

    Attributes:
        key: ``"self"``, ``"ext"``, ``"success"`` or ``"total"``.
        name: For people.
        meaning: What the term says.
        zero: Where zero lies, percent of the width.
        chosen: The chosen side's bar.
        rejected: The rejected side's bar.
    """

    key: str
    name: str
    meaning: str
    zero: float
    chosen: Bar
    rejected: Bar


def stage_bands(score: Score, n_frames: int) -> tuple[Band, ...]:
    """The stages that were entered, as intervals of the time axis."""
    bands = []
    for number, stage in enumerate(score.stages, start=1):
        if stage.reached and stage.end >= stage.start:
            left = 100 * stage.start / n_frames
            right = 100 * min(n_frames, stage.end + 1) / n_frames
            bands.append(Band(stage.name, number, left, max(0.0, right - left), stage.done, stage.cost))
    return tuple(bands)


def constraint_rows(chosen: Score, rejected: Score, n_frames: int) -> tuple[tuple[CurveRow, ...], tuple[CurveRow, ...]]:
    """Rows of both sides in the same order, stage by stage; a constraint that one side lacks is left out."""
    left_rows, right_rows = [], []
    others = {stage.name: stage for stage in rejected.stages}
    for stage in chosen.stages:
        other = others.get(stage.name)
        if other is None:
            continue
        other_constraints = {constraint.name: constraint for constraint in other.constraints}
        for constraint in stage.constraints:
            if constraint.name in other_constraints:
                counterpart = other_constraints[constraint.name]
                top = _top(constraint, counterpart)
                left_rows.append(_row(stage, constraint, top, n_frames))
                right_rows.append(_row(other, counterpart, top, n_frames))
    return tuple(left_rows), tuple(right_rows)


def _top(one: ConstraintScore, other: ConstraintScore) -> float:
    """Upper end of the scale that both sides of a constraint share."""
    values = [value for value in (*one.curve, *other.curve, one.threshold, other.threshold) if math.isfinite(value)]
    top = max([0.0, *values])
    return top * 1.08 if top > 0 else 1.0


def _row(stage: StageScore, constraint: ConstraintScore, top: float, n_frames: int) -> CurveRow:
    threshold_y = BOX_HEIGHT * (1 - constraint.threshold / top) if 0 <= constraint.threshold <= top else None
    spots = _spots(stage, constraint, top, n_frames) if stage.reached else []
    satisfied, subgoal = constraint.contribution <= 1e-9, constraint.kind == "subgoal"
    return CurveRow(
        stage=stage.name,
        name=constraint.name,
        kind=constraint.kind,
        path=_path(spots, n_frames),
        threshold_y=threshold_y,
        excess="" if satisfied or subgoal or threshold_y is None else _excess(spots, threshold_y),
        judged=f"M{spots[-1][0]:.1f} {spots[-1][1]:.1f}h0" if subgoal and spots else "",
        top=quantity(top / 1.08, constraint.unit),
        value=quantity(constraint.cost, constraint.unit),
        contribution=constraint.contribution,
        held=satisfied,
        reached=stage.reached,
        objectives=tuple(constraint.objectives),
        yes_or_no=set(constraint.curve) | {constraint.cost} <= {0.0, 1.0},
    )


Spot = tuple[float, float]


def _spots(stage: StageScore, constraint: ConstraintScore, top: float, n_frames: int) -> list[Spot]:
    """Places of the curve's finite values; each state's value stands in the middle of its image's time."""
    spots = []
    for state, value in zip(stage.curve_states(constraint), constraint.curve, strict=True):
        if math.isfinite(value):
            x = BOX_WIDTH * (state + 0.5) / n_frames
            spots.append((x, BOX_HEIGHT * (1 - min(max(value, 0.0), top) / top)))
    if len(spots) == 1:  # a stage of one state: a short level line, because a lone point would be invisible
        (x, y), reach = spots[0], 0.4 * BOX_WIDTH / n_frames
        spots = [(x - reach, y), (x + reach, y)]
    return spots


def _path(spots: Sequence[Spot], n_frames: int) -> str:
    """Line through the spots, broken where values in between are missing."""
    gap = 1.5 * BOX_WIDTH / n_frames
    words = []
    for index, (x, y) in enumerate(spots):
        joined = index > 0 and x - spots[index - 1][0] <= gap
        words.append(f"{'L' if joined else 'M'}{x:.1f} {y:.1f}")
    return " ".join(words)


def _excess(spots: Sequence[Spot], threshold_y: float) -> str:
    """Closed areas between the line and the threshold where the line lies above it (y grows downwards)."""
    words = []
    for (x0, y0), (x1, y1) in itertools.pairwise(spots):
        over0, over1 = threshold_y - y0, threshold_y - y1
        if max(over0, over1) <= 0:
            continue
        if over0 < 0 or over1 < 0:
            crossing = x0 + (x1 - x0) * over0 / (over0 - over1)
            x0, y0, x1, y1 = (crossing, threshold_y, x1, y1) if over0 < 0 else (x0, y0, crossing, threshold_y)
        words.append(f"M{x0:.1f} {threshold_y:.1f} L{x0:.1f} {y0:.1f} L{x1:.1f} {y1:.1f} L{x1:.1f} {threshold_y:.1f}z")
    return " ".join(words)


def term_bars(chosen: Score, rejected: Score) -> tuple[TermBars, ...]:
    """The score's terms and their sum, chosen and rejected on one scale."""
    terms = [key for key in (*TERM_NAMES, *sorted({*chosen.terms} - {*TERM_NAMES})) if key in chosen.terms]
    rows: list[tuple[str, float, float]] = [
        (key, _value(chosen.terms, key), _value(rejected.terms, key)) for key in terms
    ]
    rows.append(("total", chosen.gcpg, rejected.gcpg))
    values = [value for _, one, other in rows for value in (one, other)]
    low, high = min(0.0, *values), max(0.0, *values)
    span = (high - low) or 1.0
    zero = 100 * -low / span

    def bar(value: float) -> Bar:
        width = 100 * abs(value) / span
        return Bar(value, zero - width if value < 0 else zero, width)

    named = {**TERM_NAMES, "total": ("GCPG reward", "the sum, by which trajectories are ranked")}
    return tuple(
        TermBars(key, *named.get(key, (key, "")), zero=zero, chosen=bar(one), rejected=bar(other))
        for key, one, other in rows
    )


def _value(terms: Mapping[str, float], key: str) -> float:
    value = terms.get(key, 0.0)
    return value if math.isfinite(value) else 0.0
