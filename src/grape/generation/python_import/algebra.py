"""Operations on measured values: each returns a value of the same kinds or raises a TranslationError.

Nothing is evaluated on data. ``np.dot(a - b, z) / np.linalg.norm(a - b)``, for example, is recognized as the cosine of
the angle between the line from b to a and the world's z axis.
"""

import math

from grape.generation.python_import.measures import (
    TINY,
    Absolute,
    Angle,
    Bend,
    Coordinate,
    Cosine,
    CosineOfBend,
    Distance,
    Dot,
    Grasp,
    Largest,
    Line,
    Measure,
    Positive,
    Product,
    Scalar,
    Squared,
    TranslationError,
    Value,
    Vector,
    number,
    opposite,
)

__all__ = [
    "absolute",
    "add",
    "arc_cosine",
    "divide",
    "dot",
    "is_non_negative",
    "largest",
    "length",
    "line_of",
    "multiply",
    "root",
    "square",
    "total",
]

_SOFTENER = 1e-3
"""Constants up to this are added to a length only to avoid a division by zero."""


def add(left: Value, right: Value) -> Value:
    """Sum of two numbers or of two vectors of the same axes; a constant number is added to every part."""
    if isinstance(left, Scalar) and isinstance(right, Scalar):
        return left + right
    if isinstance(left, Vector) and isinstance(right, Vector):
        if left.axes != right.axes:
            raise TranslationError("adds vectors of different axes")
        return Vector(tuple(a + b for a, b in zip(left.parts, right.parts, strict=True)), left.axes)
    vector, one = (left, right) if isinstance(left, Vector) else (right, left)
    assert isinstance(vector, Vector)
    assert isinstance(one, Scalar)
    if not one.known:
        raise TranslationError("adds a measured number to a point")
    return Vector(tuple(part + one for part in vector.parts), vector.axes)


def multiply(left: Value, right: Value) -> Value:
    """Product of which one side is a constant; of two lengths, half of the way to a cosine."""
    if isinstance(right, Scalar) and right.known:
        return left.scaled(right.constant)
    if isinstance(left, Scalar) and left.known:
        return right.scaled(left.constant)
    if isinstance(left, Scalar) and isinstance(right, Scalar):
        if left == right:
            return square(left)
        first, second = _whole_length(left), _whole_length(right)
        if first and second:
            return Scalar({Product(*_ordered(first[0], second[0])): first[1] * second[1]})
    raise TranslationError("multiplies two measured values")


def divide(above: Value, below: Value) -> Value:
    """Quotient by a constant; a vector, coordinate or scalar product by the lengths that make it a cosine."""
    if isinstance(below, Vector):
        raise TranslationError("divides by a vector")
    if below.known:
        if abs(below.constant) < TINY:
            raise TranslationError("divides by zero")
        return above.scaled(1.0 / below.constant)
    softened = Scalar(below.terms)
    if abs(below.constant) <= _SOFTENER and (whole := _whole_length(softened)):
        return _by_length(above, *whole)
    if abs(below.constant) <= _SOFTENER and isinstance(above, Scalar) and softened.alone and above.alone:
        (product, lengths), (measure, coefficient) = softened.alone, above.alone
        if isinstance(product, Product) and measure == Dot(product.first, product.second):
            return Scalar({CosineOfBend(product.first, product.second): coefficient / lengths})
    raise TranslationError("divides by a measured value that is not the vector's own length")


def _whole_length(value: Scalar) -> tuple[Line, float] | None:
    """The line and factor behind the length of an unmoved line in all three axes."""
    if value.alone is None:
        return None
    measure, coefficient = value.alone
    if not isinstance(measure, Distance) or measure.axes != "xyz" or any(measure.offset):
        return None
    return measure.line, coefficient


def _by_length(above: Value, line: Line, coefficient: float) -> Value:
    if isinstance(above, Scalar):
        axes = sorted({measure.axis for measure in above.terms if isinstance(measure, Coordinate)})
        if len(axes) != 1:
            raise TranslationError("divides a mixture of coordinates by a length")
        return _cosine(above, axes[0], line).scaled(1.0 / coefficient)
    parts = tuple(
        _cosine(part, axis, line).scaled(1.0 / coefficient) for part, axis in zip(above.parts, above.axes, strict=True)
    )
    factors = {round(part.terms[Cosine(line, axis)], 9) for part, axis in zip(parts, above.axes, strict=True)}
    unit = above.axes == "xyz" and factors in ({1.0}, {-1.0})
    return Vector(parts, above.axes, line if unit else None, 1 if factors == {1.0} else -1)


def _cosine(part: Scalar, axis: str, line: Line) -> Scalar:
    """A coordinate of the line over its length."""
    component = line_of(Vector((part,), axis))
    if component is None or component[0] != line or any(component[2]):
        raise TranslationError("divides by a length that is not the vector's own")
    return Scalar({Cosine(line, axis): component[1]})


def line_of(vector: Vector) -> tuple[Line, float, tuple[float, ...]] | None:
    """Line, factor (with sign) and movement of its start behind a vector; None if it is no way between two points.

    One spelling serves both directions, so that lines compare equal.
    """
    candidates: set[tuple[Line, float]] = set()
    offset = []
    for part, axis in zip(vector.parts, vector.axes, strict=True):
        ends: dict[float, list[str]] = {}
        for measure, value in part.terms.items():
            if not isinstance(measure, Coordinate) or measure.axis != axis:
                return None
            ends.setdefault(round(value, 9), []).append(measure.keypoint)
        if len(ends) != 2:
            return None
        (low, start), (high, end) = sorted(ends.items())
        factor = high * len(end)
        if low >= 0.0 or abs(low * len(start) + factor) > 1e-6:
            return None
        names = tuple(sorted(start)), tuple(sorted(end))
        forward = names[0] < names[1]
        scale = factor if forward else -factor
        candidates.add((Line(*(names if forward else names[::-1])), round(scale, 9)))
        offset.append(-part.constant / scale + 0.0)
    if len(candidates) != 1:
        return None
    line, scale = candidates.pop()
    return line, scale, tuple(offset)


def length(vector: Vector) -> Scalar:
    """Euclidean norm."""
    if vector.known:
        return number(math.sqrt(sum(part.constant**2 for part in vector.parts)))
    if vector.line is not None:
        return number(1.0)
    used = [(part, axis) for part, axis in zip(vector.parts, vector.axes, strict=True) if part != Scalar()]
    if len(used) == 1:
        return absolute(used[0][0])
    axes = "".join(axis for _, axis in used)
    component = line_of(Vector(tuple(part for part, _ in used), axes))
    if component is None:
        raise TranslationError("measures something other than the way between two points")
    line, scale, offset = component
    return Scalar({Distance(line, axes, offset): abs(scale)})


def dot(left: Vector, right: Vector) -> Scalar:
    """Scalar product."""
    if left.axes != right.axes:
        raise TranslationError("multiplies vectors of different axes")
    if left.known or right.known:
        moving, fixed = (right, left) if left.known else (left, right)
        result = Scalar()
        for part, factor in zip(moving.parts, fixed.parts, strict=True):
            result = result + part.scaled(factor.constant)
        return result
    if left.line is not None and right.line is not None:
        return Scalar({CosineOfBend(*_ordered(left.line, right.line)): float(left.sign * right.sign)})
    first, second = line_of(left), line_of(right)
    if first is None or second is None or left.axes != "xyz" or any((*first[2], *second[2])):
        raise TranslationError("multiplies directions that are not both ways between two points")
    if left == right:
        return square(length(left))
    return Scalar({Dot(*_ordered(first[0], second[0])): first[1] * second[1]})


def _ordered(first: Line, second: Line) -> tuple[Line, Line]:
    one, other = sorted((first, second), key=lambda line: (line.start, line.end))
    return one, other


def absolute(value: Scalar) -> Scalar:
    """Absolute value."""
    if value.known:
        return number(abs(value.constant))
    if value.alone is not None:
        measure, coefficient = value.alone
        if isinstance(measure, Distance | Squared | Angle | Bend | Absolute | Positive | Grasp | Product):
            return Scalar({measure: abs(coefficient)})
    if len(value.terms) == 1:
        measure, coefficient = next(iter(value.terms.items()))
        if isinstance(measure, Cosine | CosineOfBend) and abs(coefficient) <= abs(value.constant) + TINY:
            return value if value.constant > 0 else -value  # |1 - cos|: the sign never changes
    if any(isinstance(measure, Absolute | Largest | Positive) for measure in value.terms):
        raise TranslationError("nests absolute values and maxima")
    leading = min(value.terms.items(), key=lambda term: repr(term[0]))[1]
    return Scalar({Absolute(value if leading > 0 else -value): 1.0})


def largest(parts: list[Scalar]) -> Scalar:
    """Maximum, among which one constant may be: 0."""
    if all(part.known for part in parts):
        return number(max(part.constant for part in parts))
    if any(part.known and part != Scalar() for part in parts):
        raise TranslationError("takes the maximum with a constant other than 0")
    rest = [part for part in parts if not part.known]
    if any(isinstance(measure, Largest | Positive) for part in rest for measure in part.terms):
        raise TranslationError("nests absolute values and maxima")
    inner = rest[0] if len(rest) == 1 else Scalar({Largest(tuple(rest)): 1.0})
    return inner if len(rest) == len(parts) else Scalar({Positive(inner): 1.0})


def square(value: Value) -> Scalar:
    """Second power of a constant or a length; of a vector, the sum of the squares of its parts."""
    if isinstance(value, Vector):
        return square(length(value))
    if value.known:
        return number(value.constant**2)
    if value.alone is not None:
        measure, coefficient = value.alone
        if isinstance(measure, Distance):
            return Scalar({Squared(measure): coefficient**2})
        if isinstance(measure, Absolute):
            raise TranslationError("squares a single coordinate")
    raise TranslationError("squares something other than a distance")


def root(value: Scalar) -> Scalar:
    """Square root of a constant or of a squared distance."""
    if value.known and value.constant >= 0.0:
        return number(math.sqrt(value.constant))
    if value.alone is not None:
        measure, coefficient = value.alone
        if isinstance(measure, Squared) and coefficient > 0.0:
            return Scalar({measure.distance: math.sqrt(coefficient)})
    raise TranslationError("takes the root of something other than a squared distance")


def arc_cosine(value: Scalar) -> Scalar:
    """Angle of a constant or of a cosine, in radians."""
    if value.known and abs(value.constant) <= 1.0:
        return number(math.acos(value.constant))
    if value.alone is not None:
        measure, coefficient = value.alone
        if abs(abs(coefficient) - 1.0) < TINY:
            if isinstance(measure, Cosine):
                axis = measure.axis if coefficient > 0 else opposite(measure.axis)
                return Scalar({Angle(measure.line, axis): 1.0})
            if isinstance(measure, CosineOfBend):
                return Scalar({Bend(measure.first, measure.second, coefficient < 0): 1.0})
    raise TranslationError("takes the angle of something other than two directions")


def total(vector: Vector) -> Scalar:
    """Sum of the parts."""
    result = Scalar()
    for part in vector.parts:
        result = result + part
    return result


def is_non_negative(measure: Measure) -> bool:
    """Whether a measure is never below zero, so that it costs by itself."""
    return isinstance(measure, Distance | Angle | Bend | Absolute | Positive | Grasp)
