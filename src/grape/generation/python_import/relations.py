"""Conversion of a returned value to relations of the language: a cost is satisfied where it is 0 or less.

One returned number may become several constraints, e.g. the parts of a maximum. Bounds become relations that hold or
not, so that they can also say when a stage is done; a bare measure gets a tolerance there.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from grape.generation.python_import.algebra import is_non_negative, line_of
from grape.generation.python_import.measures import (
    TINY,
    Absolute,
    Angle,
    Bend,
    Coordinate,
    Cosine,
    CosineOfBend,
    Distance,
    Grasp,
    Largest,
    Line,
    Measure,
    Positive,
    Scalar,
    TranslationError,
    Vector,
    opposite,
)

__all__ = ["Points", "RecognizedRelation", "Tolerance", "relations_of"]

MAX_DERIVED = 64
"""Moved points and means of a file: constraints written by hand or by a model need a handful."""

Offset = tuple[float, float, float]


@dataclass(frozen=True)
class Tolerance:
    """Thresholds for functions that return a bare measure.

    Attributes:
        meters: For distances.
        degrees: For angles.
    """

    meters: float = 0.03
    degrees: float = 15.0


@dataclass(frozen=True)
class RecognizedRelation:
    """A relation that was recognized.

    Attributes:
        cost: What the constraint measures, as the language writes it.
        holds: A relation that holds where the function is satisfied.
        unit: Unit of the cost: ``"m"``, ``"deg"`` or empty.
        factor: The function's own factor before the measure.
        threshold: What the cost may be without being charged, in ``unit``; 0 for relations with a bound.
        notes: What is not quite as in the function, sentences without a full stop.
    """

    cost: Mapping[str, Any]
    holds: Mapping[str, Any]
    unit: str
    factor: float
    threshold: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass
class Points:
    """Names of the points that relations speak of; moved points and means get names of their own.

    Attributes:
        gripper: The end effector's keypoint.
        named: Names that keypoints have, referenced yet or not; no further point takes one of them.
        used: Keypoints of the recording in the order of their first use.
        derived: Further points as the language declares them, by name.
    """

    gripper: str = "gripper"
    named: frozenset[str] = frozenset()
    used: dict[str, None] = field(default_factory=dict)
    derived: dict[str, dict[str, Any]] = field(default_factory=dict)

    def name(self, keypoints: tuple[str, ...], offset: Offset = (0.0, 0.0, 0.0)) -> str:
        """Name of the mean of keypoints, moved by an offset in meters.

        Raises:
            TranslationError: Too many have been named.
        """
        self.used.update(dict.fromkeys(keypoints))
        offsets = {axis: length(value) for axis, value in zip("xyz", offset, strict=True) if abs(value) > TINY}
        if len(keypoints) == 1 and not offsets:
            return keypoints[0]
        declared: dict[str, Any] = {"mean_of": list(keypoints)} | ({"offset": offsets} if offsets else {})
        for name, other in self.derived.items():
            if other == declared:
                return name
        stem = f"{keypoints[0]}_moved" if len(keypoints) == 1 else "middle"
        if len(self.derived) == MAX_DERIVED:
            raise TranslationError(f"needs another moved point or mean; at most {MAX_DERIVED} are declared")
        used_names = {*self.derived, *self.used, *self.named, self.gripper}
        name = next(name for number in itertools.count(1) if (name := f"{stem}_{number}") not in used_names)
        self.derived[name] = declared
        return name


def length(meters: float) -> str:
    """A length as the language writes it."""
    return f"{round(meters * 100, 4):g} cm"


def degrees(value: float) -> str:
    """An angle as the language writes it."""
    return f"{round(value, 3):g} deg"


def relations_of(value: Scalar, points: Points, tolerance: Tolerance) -> list[RecognizedRelation]:
    """Relations behind a returned number.

    Args:
        value: What the function returns; satisfied where it is at most 0.
        points: Collects the points that are referenced.
        tolerance: For bare measures.

    Raises:
        TranslationError: The language has no word for it.
    """
    return list(_relations(value, points, tolerance))


def _relations(value: Scalar, points: Points, tolerance: Tolerance) -> Iterator[RecognizedRelation]:
    if value.known:
        raise TranslationError(f"is constant ({value.constant:g}) and asks for nothing")
    terms = list(value.terms.items())
    if all(isinstance(measure, Coordinate) for measure, _ in terms):
        yield _one_sided(value, points)
        return
    if len(terms) > 1:
        if abs(value.constant) > TINY or not all(is_non_negative(measure) and by > 0 for measure, by in terms):
            raise TranslationError("adds measures of different kinds under one bound")
        for measure, coefficient in terms:
            yield from _relations(Scalar({measure: coefficient}), points, tolerance)
        return
    ((measure, coefficient),) = terms
    match measure:
        case Largest(parts=parts):
            if coefficient < 0:
                raise TranslationError("asks for a maximum to be large")
            for part in parts:
                difference = part.scaled(coefficient) + Scalar(constant=value.constant)
                if not difference.known:
                    yield from _relations(difference, points, tolerance)
        case Positive(inner=inner):
            if coefficient < 0 or value.constant > TINY:
                raise TranslationError("asks for a cost below 0, which never holds, or for a large one")
            yield from _relations(inner.scaled(coefficient) + Scalar(constant=value.constant), points, tolerance)
        case Distance():
            yield _distance(measure, coefficient, value.constant, points, tolerance)
        case Cosine() | CosineOfBend() | Angle() | Bend():
            yield _angle(measure, coefficient, value.constant, points, tolerance)
        case Absolute(inner=inner):
            yield from _absolute(inner, coefficient, value.constant, points, tolerance)
        case Grasp():
            word: dict[str, Any] = {"grasped": {}} if coefficient > 0 else {"released": {}}
            yield RecognizedRelation(
                word, word, "", 1.0, notes=("which object is held is not asked; the recording's signal says",)
            )
        case _:
            raise TranslationError("returns a square or a product instead of a distance or an angle")


def _bound(coefficient: float, constant: float, what: str) -> float:
    """Where ``coefficient * measure + constant`` is 0, for a measure that is never negative."""
    bound = -constant / coefficient
    if coefficient > 0 and bound < -TINY:
        raise TranslationError(f"asks for {what} below zero, which never holds")
    if coefficient < 0 and bound <= TINY:
        raise TranslationError(f"rewards {what} without a bound or holds always")
    return max(0.0, bound)


def _distance(
    measure: Distance, coefficient: float, constant: float, points: Points, tolerance: Tolerance
) -> RecognizedRelation:
    suffix = {"xyz": "", "xy": "_xy"}.get(measure.axes)
    if suffix is None:
        raise TranslationError(f"measures a distance in the {measure.axes} plane only")
    bound = _bound(coefficient, constant, "a distance")
    offset = tuple(dict(zip(measure.axes, measure.offset, strict=True)).get(axis, 0.0) for axis in "xyz")
    line, displacement = measure.line, (offset[0], offset[1], offset[2])
    if points.gripper in line.start and not any(displacement):  # "of" is the moving point, which reads better
        line = Line(line.end, line.start)
    pair = {"of": points.name(line.end), "to": points.name(line.start, displacement)}
    if coefficient < 0:
        word = {f"clear_of{suffix}": {**pair, "by": length(bound)}}
        return RecognizedRelation(word, word, "m", -coefficient)
    if bound > TINY:
        word = {f"near{suffix}": {**pair, "within": length(bound)}}
        return RecognizedRelation(word, word, "m", coefficient)
    near = {f"near{suffix}": {**pair, "within": length(tolerance.meters)}}
    return RecognizedRelation(
        {f"distance{suffix}": pair}, near, "m", coefficient, tolerance.meters, (_tolerated(tolerance),)
    )


def _tolerated(tolerance: Tolerance) -> str:
    return f"a bare measure counts as reached within {length(tolerance.meters)} or {degrees(tolerance.degrees)}"


def _one_sided(value: Scalar, points: Points) -> RecognizedRelation:
    """``end - start - offset`` along one axis, at most or at least 0."""
    axes = {measure.axis for measure in value.terms if isinstance(measure, Coordinate)}
    if len(axes) != 1:
        raise TranslationError("adds coordinates of different axes")
    axis = axes.pop()
    component = line_of(Vector((value,), axis))
    if component is None:
        raise TranslationError("compares a coordinate with a place in the room; the language compares keypoints")
    line, scale, (offset,) = component
    beyond = -offset if scale > 0 else offset  # how far 'of' must be beyond 'to' in the direction asked for
    forward = scale < 0
    displacement: Offset = (0.0, 0.0, 0.0)
    if beyond < -TINY:  # bounds of the language are not negative: the point that is compared with moves instead
        displacement = (offset * (axis == "x"), offset * (axis == "y"), offset * (axis == "z"))
        beyond = 0.0
    pair: dict[str, Any] = {"of": points.name(line.end), "to": points.name(line.start, displacement)}
    if axis == "z":
        word: dict[str, Any] = {"above" if forward else "below": {**pair, "by": length(beyond)}}
    else:
        word = {"beyond": {**pair, "axis": axis if forward else opposite(axis), "by": length(beyond)}}
    return RecognizedRelation(word, word, "m", abs(scale))


def _absolute(
    inner: Scalar, coefficient: float, constant: float, points: Points, tolerance: Tolerance
) -> Iterator[RecognizedRelation]:
    bound = _bound(coefficient, constant, "an absolute value")
    if coefficient < 0:
        raise TranslationError("asks for a difference to be large on either side")
    measures = list(inner.terms)
    if len(measures) == 1 and isinstance(measures[0], Cosine | CosineOfBend) and abs(inner.constant) <= TINY:
        # |cos| small: the angle is close to 90 degrees, seen from both ends of the axis.
        slack = bound / inner.terms[measures[0]] if bound > TINY else math.sin(math.radians(tolerance.degrees))
        for sign in (1.0, -1.0):
            yield _angle(measures[0], sign, -min(slack, 1.0), points, tolerance)
        return
    if not all(isinstance(measure, Coordinate) for measure in measures):
        raise TranslationError("takes the absolute value of something other than a difference of coordinates")
    notes = () if bound > TINY else (_tolerated(tolerance),)
    half = Scalar(constant=bound if bound > TINY else tolerance.meters)
    for side in (inner - half, -inner - half):
        one = _one_sided(side, points)
        yield RecognizedRelation(one.cost, one.holds, one.unit, coefficient * one.factor, notes=notes)


def _angle(
    measure: Measure, coefficient: float, constant: float, points: Points, tolerance: Tolerance
) -> RecognizedRelation:
    """A bound on an angle, given for the angle in radians or for its cosine."""
    notes: tuple[str, ...] = ()
    if isinstance(measure, Cosine | CosineOfBend):
        # coefficient * cos + constant <= 0 bounds the angle to the axis (negative coefficient) or to its opposite.
        away, cosine = coefficient > 0, constant / abs(coefficient)
        if cosine <= -1.0 + TINY or cosine > 1.0 + TINY:
            raise TranslationError("bounds a cosine where it always or never holds")
        bound = math.degrees(math.acos(min(cosine, 1.0)))
        notes = ("costs in degrees instead of by the cosine",)
        factor = 1.0
    else:
        bound = math.degrees(_bound(coefficient, constant, "an angle"))
        away, factor = coefficient < 0, abs(coefficient)
        bound = 180.0 - bound if away else bound
        if not 0.0 <= bound < 180.0:
            raise TranslationError("bounds an angle where it always or never holds")
    names, words = _lines(measure, away, points)
    if bound > 0.01:
        word = {words[0]: {**names, "within": degrees(bound)}}
        return RecognizedRelation(word, word, "deg", factor, notes=notes)
    holds = {words[0]: {**names, "within": degrees(tolerance.degrees)}}
    return RecognizedRelation(
        {words[1]: names}, holds, "deg", factor, tolerance.degrees, (*notes, _tolerated(tolerance))
    )


def _lines(measure: Measure, away: bool, points: Points) -> tuple[dict[str, str], tuple[str, str]]:
    """Arguments of an angle, and the words for its bound and for the bare measure."""

    def ends(line: Line) -> tuple[str, str]:
        return points.name(line.start), points.name(line.end)

    if isinstance(measure, Cosine | Angle):
        start, end = ends(measure.line)
        axis = opposite(measure.axis) if away else measure.axis
        return {"of": start, "to": end, "axis": axis}, ("aligned", "angle")
    assert isinstance(measure, CosineOfBend | Bend)
    (start, end), (base, tip) = ends(measure.first), ends(measure.second)
    if away != (isinstance(measure, Bend) and measure.turned):
        base, tip = tip, base
    return {"of": start, "to": end, "base": base, "tip": tip}, ("parallel", "angle_between")
