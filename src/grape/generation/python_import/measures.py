"""Measures of keypoints that the cost language has: the atoms of imported expressions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = [
    "AXES",
    "Absolute",
    "Angle",
    "Bend",
    "Coordinate",
    "Cosine",
    "CosineOfBend",
    "Distance",
    "Dot",
    "Grasp",
    "Largest",
    "Line",
    "Measure",
    "Positive",
    "Product",
    "Scalar",
    "Squared",
    "TranslationError",
    "Value",
    "Vector",
    "finite",
    "number",
    "opposite",
]

LARGEST = 1e6


class TranslationError(Exception):
    """Raised where a part of a function has no counterpart in the language; the message is the reason."""


def finite(value: float) -> float:
    """The value itself.

    Raises:
        TranslationError: It is beyond any length or angle.
    """
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise TranslationError("holds a number beyond any length or angle")
    return value


AXES = ("x", "y", "z")
TINY = 1e-9

Names: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """The way from one point to another; a point is a keypoint or the mean of several.

    Attributes:
        start: Keypoints whose mean it starts from.
        end: Keypoints whose mean it ends at.
    """

    start: Names
    end: Names


@dataclass(frozen=True)
class Coordinate:
    """One world coordinate of a keypoint in meters."""

    keypoint: str
    axis: str


@dataclass(frozen=True)
class Distance:
    """Length of a line in meters, within the axes named, after its start was moved.

    Attributes:
        line: From where to where.
        axes: ``"xyz"``, ``"xy"``, or another part.
        offset: What is added to the start, by axis of ``axes``.
    """

    line: Line
    axes: str
    offset: tuple[float, ...]


@dataclass(frozen=True)
class Squared:
    """A distance squared: half of the way to a distance."""

    distance: Distance


@dataclass(frozen=True)
class Product:
    """Product of the lengths of two lines: half of the way to a cosine."""

    first: Line
    second: Line


@dataclass(frozen=True)
class Dot:
    """Scalar product of two lines: the other half."""

    first: Line
    second: Line


@dataclass(frozen=True)
class Cosine:
    """Cosine of the angle between a line and a world axis."""

    line: Line
    axis: str


@dataclass(frozen=True)
class Angle:
    """That angle, in radians; the axis may have a sign."""

    line: Line
    axis: str


@dataclass(frozen=True)
class CosineOfBend:
    """Cosine of the angle between two lines."""

    first: Line
    second: Line


@dataclass(frozen=True)
class Bend:
    """That angle, in radians; ``turned`` turns the second line round."""

    first: Line
    second: Line
    turned: bool


@dataclass(frozen=True)
class Absolute:
    """Absolute value of a number."""

    inner: "Scalar"


@dataclass(frozen=True)
class Largest:
    """Largest of several numbers."""

    parts: tuple["Scalar", ...]


@dataclass(frozen=True)
class Positive:
    """A number where it is above 0, else 0."""

    inner: "Scalar"


@dataclass(frozen=True)
class Grasp:
    """ReKep's cost of not holding the object at a keypoint: 0 or 1."""

    keypoint: str


Measure: TypeAlias = (
    Coordinate
    | Distance
    | Squared
    | Product
    | Dot
    | Cosine
    | Angle
    | CosineOfBend
    | Bend
    | Absolute
    | Largest
    | Positive
    | Grasp
)


@dataclass(frozen=True)
class Scalar:
    """A number: ``sum_i coefficient_i * measure_i + constant``.

    Attributes:
        terms: Coefficient by measure; none of them zero.
        constant: What is added.
    """

    terms: Mapping[Measure, float] = field(default_factory=dict)
    constant: float = 0.0

    def __hash__(self) -> int:
        return hash((frozenset(self.terms.items()), self.constant))

    def __add__(self, other: "Scalar") -> "Scalar":
        terms = dict(self.terms)
        for measure, coefficient in other.terms.items():
            terms[measure] = finite(terms.get(measure, 0.0) + coefficient)
        return Scalar(
            {measure: value for measure, value in terms.items() if abs(value) > TINY},
            finite(self.constant + other.constant),
        )

    def __neg__(self) -> "Scalar":
        return self.scaled(-1.0)

    def __sub__(self, other: "Scalar") -> "Scalar":
        return self + -other

    def scaled(self, factor: float) -> "Scalar":
        """The number times a constant."""
        terms = {measure: finite(value * factor) for measure, value in self.terms.items()}
        nonzero_terms = {measure: value for measure, value in terms.items() if abs(value) > TINY}
        return Scalar(nonzero_terms, finite(self.constant * factor))

    @property
    def known(self) -> bool:
        """Whether it is a constant."""
        return not self.terms

    @property
    def alone(self) -> tuple[Measure, float] | None:
        """The one measure and its coefficient where nothing else is in it."""
        if len(self.terms) != 1 or abs(self.constant) > TINY:
            return None
        return next(iter(self.terms.items()))


@dataclass(frozen=True)
class Vector:
    """A point, a direction, or a part of one.

    Attributes:
        parts: A number an axis.
        axes: The axes they belong to, e.g. ``"xyz"``.
        line: Where it is a unit vector along a line: that line; the parts are then cosines.
        sign: Whether it points along the line (1) or against it (-1).
    """

    parts: tuple[Scalar, ...]
    axes: str = "xyz"
    line: Line | None = None
    sign: int = 1

    def scaled(self, factor: float) -> "Vector":
        """The vector times a constant."""
        whole = abs(abs(factor) - 1.0) <= TINY
        return Vector(
            tuple(part.scaled(factor) for part in self.parts),
            self.axes,
            self.line if whole else None,
            self.sign if factor > 0 else -self.sign,
        )

    @property
    def known(self) -> bool:
        """Whether it is constant."""
        return all(part.known for part in self.parts)


Value: TypeAlias = Scalar | Vector


def number(value: float) -> Scalar:
    """A constant.

    Raises:
        TranslationError: It is beyond any length or angle.
    """
    return Scalar(constant=finite(float(value)))


def opposite(axis: str) -> str:
    """The axis turned round."""
    return axis[1:] if axis.startswith("-") else f"-{axis}"
