"""Quantities with units, parsed strictly: ``"4 cm"``, ``"20 deg"``, ``"25 %"``, ``"2 per m"``.

A length without a unit is refused rather than guessed; a fraction may be a bare number. Everything is turned into
one canonical unit a dimension, and the canonical unit of time is the step (one decision of the policy).
"""

import math
import re
from dataclasses import dataclass

__all__ = [
    "DEFAULT_WORST",
    "UNITS",
    "Clock",
    "UnitMismatchError",
    "parse_quantity",
    "parse_weight",
    "spellings",
    "unit_names",
]

UNITS: dict[str, str] = {
    "m": "length",
    "deg": "angle",
    "steps": "time",
    "fraction": "part of a whole, 0 to 1",
    "ratio": "number without a unit, 0 or more",
    "of limit": "time as a part of the task's limit",
    "signal": "the recorded signal's own unit",
    "m/step": "speed",
    "m/step2": "acceleration",
}
"""Canonical units and what they measure."""

DEFAULT_WORST: dict[str, float] = {
    "m": 0.3,
    "deg": 180.0,
    "fraction": 1.0,
    "ratio": 3.0,
    "of limit": 1.0,
    "m/step": 0.1,
    "m/step2": 0.1,
}
"""Largest raw cost that is charged where a constraint does not say ``worst``, by canonical unit."""

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_QUANTITY = re.compile(rf"({_NUMBER})\s*([^\s\d].*)?", re.ASCII)
_WEIGHT = re.compile(rf"({_NUMBER})\s*(?:per\s+(\S+))?", re.ASCII)


class UnitMismatchError(ValueError):
    """A unit is missing, unknown, or measures something else."""


@dataclass(frozen=True)
class Clock:
    """How the task's time is counted.

    Attributes:
        limit: Decisions after which an episode ends without success.
        control_hz: Decisions a second; None where the specification does not say, so that seconds are refused.
    """

    limit: int
    control_hz: float | None = None


def _factors(unit: str, clock: Clock) -> dict[str, float]:
    """Accepted spellings and what one of each is in the canonical unit."""
    table: dict[str, dict[str, float]] = {
        "m": {"m": 1.0, "cm": 0.01, "mm": 0.001},
        "deg": {"deg": 1.0, "rad": 180.0 / math.pi},
        "steps": {"steps": 1.0, "step": 1.0},
        "fraction": {"": 1.0, "fraction": 1.0, "%": 0.01},
        "ratio": {"": 1.0, "%": 0.01},
        "signal": {"": 1.0},
        "of limit": {"": 1.0, "%": 0.01, "steps": 1.0 / clock.limit, "step": 1.0 / clock.limit},
        "m/step": {"m/step": 1.0, "cm/step": 0.01, "mm/step": 0.001},
        "m/step2": {"m/step2": 1.0, "cm/step2": 0.01, "mm/step2": 0.001},
    }
    factors = table[unit]
    if clock.control_hz is not None:
        hz = clock.control_hz
        factors |= {
            "steps": {"s": hz},
            "of limit": {"s": hz / clock.limit},
            "m/step": {"m/s": 1.0 / hz, "cm/s": 0.01 / hz, "mm/s": 0.001 / hz},
            "m/step2": {"m/s2": 1.0 / hz**2, "cm/s2": 0.01 / hz**2, "mm/s2": 0.001 / hz**2},
        }.get(unit, {})
    return factors


def unit_names(unit: str, clock: Clock) -> tuple[str, ...]:
    """What may follow the number of a quantity of this canonical unit; empty text for nothing."""
    return tuple(_factors(unit, clock))


def spellings(unit: str, clock: Clock) -> str:
    """What a quantity of this canonical unit may be written in, for messages and documentation."""
    return ", ".join(name or "a bare number" for name in unit_names(unit, clock))


def parse_quantity(text: str, unit: str, clock: Clock, *, signed: bool = False) -> float:
    """Value of ``text`` in the canonical ``unit``.

    Args:
        text: For example ``"4 cm"``, ``"0.9"``, ``"90 %"``, ``"3 steps"``.
        unit: A key of :data:`UNITS`.
        clock: The task's limit and control rate, for times and speeds.
        signed: Negative values are accepted.

    Raises:
        UnitMismatchError: A missing, unknown or unfitting unit.
        ValueError: No number, or a value outside its range. Messages are one sentence without a full stop.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no quantity; write a number and a unit ({spellings(unit, clock)})")
    number, name = float(match[1]), " ".join((match[2] or "").split())
    factors = _factors(unit, clock)
    if name not in factors:
        problem = f"unit {name!r} does not fit" if name else "the unit is missing"
        seconds = " (seconds need 'control_hz')" if clock.control_hz is None and re.search(r"(^|/)s2?$", name) else ""
        raise UnitMismatchError(f"{text!r}: {problem} for {UNITS[unit]}; accepted: {spellings(unit, clock)}{seconds}")
    value = number * factors[name]
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is too large")
    if unit == "fraction" and not 0.0 <= value <= 1.0:
        raise ValueError(f"{text!r} is outside 0 to 1")
    if unit != "signal" and not signed and value < 0.0:
        raise ValueError(f"{text!r} is negative")
    return value


def parse_weight(text: str, unit: str, clock: Clock) -> float:
    """Weight that makes a cost in ``unit`` unit-free, e.g. ``"0.02 per cm"`` is 2 for a cost in metres.

    Args:
        text: A number and ``per <unit>``; a bare number where the cost has no dimension.
        unit: Canonical unit of the cost.
        clock: The task's limit and control rate.

    Raises:
        ValueError: As :func:`parse_quantity`.
    """
    match = _WEIGHT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no weight; write a number and 'per <unit>', e.g. '2 per m'")
    number, name = float(match[1]), match[2] or ""
    factors = _factors(unit, clock)
    if name not in factors:
        problem = f"unit {name!r} does not fit" if name else "'per <unit>' is missing"
        raise UnitMismatchError(f"{text!r}: {problem} for a cost in {unit}; accepted: {spellings(unit, clock)}")
    value = number / factors[name]
    if not math.isfinite(value) or value < 0.0:
        raise ValueError(f"{text!r} must be finite and not negative")
    return value
