"""Quantities with units, parsed strictly: ``"4 cm"``, ``"20 deg"``, ``"25 %"``, ``"2 per m"``.

A length without a unit is refused rather than guessed; a fraction may be a bare number. Everything is turned into
one canonical unit a dimension, and the canonical unit of time is the step (one decision of the policy).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "DEFAULT_WORST",
    "NUMBER",
    "RATE",
    "UNITS",
    "Clock",
    "Unit",
    "UnitMismatchError",
    "parse_quantity",
    "parse_weight",
    "spellings",
    "step_factor",
    "unit_names",
]

NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
"""How numbers are written."""

RATE = r"[0-9]+\.?[0-9]*( ?Hz)?"
"""How a number of decisions a second is written."""

_QUANTITY = re.compile(rf"(?P<number>{NUMBER})\s*(?P<unit>[^\s\d].*)?", re.ASCII)
_WEIGHT = re.compile(rf"(?P<number>{NUMBER})\s*(?:per\s+(?P<unit>\S+))?", re.ASCII)


@dataclass(frozen=True)
class Unit:
    """A canonical unit.

    Attributes:
        name: Its name.
        measures: What is measured in it.
        spellings: What may follow a number, and what one of each is in this unit; empty text for a bare number.
        worst: Largest raw cost that is charged where a constraint does not say ``worst``; None if it must say.
        per_step: How often it is divided by a step, so that seconds are accepted where a step is known in seconds.
        time: Whether it counts time, in steps or as a part of the task's limit.
    """

    name: str
    measures: str
    spellings: Mapping[str, float]
    worst: float | None = None
    per_step: int = 0
    time: bool = False


UNITS: dict[str, Unit] = {
    unit.name: unit
    for unit in (
        Unit("m", "length", {"m": 1.0, "cm": 0.01, "mm": 0.001}, 0.3),
        Unit("deg", "angle", {"deg": 1.0, "rad": 180.0 / math.pi}, 180.0),
        Unit("steps", "time", {}, time=True),
        Unit("fraction", "part of a whole, 0 to 1", {"": 1.0, "fraction": 1.0, "%": 0.01}, 1.0),
        Unit("ratio", "number without a unit, 0 or more", {"": 1.0, "%": 0.01}, 3.0),
        Unit("of limit", "time as a part of the task's limit", {"": 1.0, "%": 0.01}, 1.0, time=True),
        Unit("signal", "the recorded signal's own unit", {"": 1.0}),
        Unit("m/step", "speed", {"m/step": 1.0, "cm/step": 0.01, "mm/step": 0.001}, 0.1, per_step=1),
        Unit("m/step2", "acceleration", {"m/step2": 1.0, "cm/step2": 0.01, "mm/step2": 0.001}, 0.1, per_step=2),
    )
}
"""Canonical units by name."""

DEFAULT_WORST = {name: unit.worst for name, unit in UNITS.items() if unit.worst is not None}
"""Largest raw cost that is charged where a constraint does not say ``worst``, by canonical unit."""


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


def step_factor(unit: str, held: int) -> float:
    """What numbers in a canonical unit are multiplied by where a step lasts ``held`` of the former ones.

    A speed of 1 m/step becomes ``held`` m/step, 10 steps become ``10 / held``; lengths, angles and parts of the limit
    stay as they are.
    """
    return 1.0 / held if unit == "steps" else float(held ** UNITS[unit].per_step)


def _factors(name: str, clock: Clock) -> dict[str, float]:
    """Accepted spellings and what one of each is in the canonical unit."""
    unit, hz = UNITS[name], clock.control_hz
    factors = dict(unit.spellings)
    if unit.time:
        whole = clock.limit if name == "of limit" else 1
        factors |= dict.fromkeys(("steps", "step"), 1.0 / whole) | ({} if hz is None else {"s": hz / whole})
    elif unit.per_step and hz is not None:
        factors |= {key.replace("step", "s"): factor / hz**unit.per_step for key, factor in unit.spellings.items()}
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
    number, name = float(match["number"]), " ".join((match["unit"] or "").split())
    factors = _factors(unit, clock)
    if name not in factors:
        problem = f"unit {name!r} does not fit" if name else "the unit is missing"
        seconds = " (seconds need 'control_hz')" if clock.control_hz is None and re.search(r"(^|/)s2?$", name) else ""
        raise UnitMismatchError(
            f"{text!r}: {problem} for {UNITS[unit].measures}; accepted: {spellings(unit, clock)}{seconds}"
        )
    value = number * factors[name]
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is too large")
    if unit == "fraction" and not 0.0 <= value <= 1.0:
        raise ValueError(f"{text!r} is outside 0 to 1")
    if unit != "signal" and not signed and value < 0.0:
        raise ValueError(f"{text!r} is negative")
    return value


def parse_weight(text: str, unit: str, clock: Clock) -> float:
    """Weight that makes a cost in ``unit`` unit-free, e.g. ``"0.02 per cm"`` is 2 for a cost in meters.

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
    number, name = float(match["number"]), match["unit"] or ""
    factors = _factors(unit, clock)
    if name not in factors:
        problem = f"unit {name!r} does not fit" if name else "'per <unit>' is missing"
        raise UnitMismatchError(f"{text!r}: {problem} for a cost in {unit}; accepted: {spellings(unit, clock)}")
    value = number / factors[name]
    if not math.isfinite(value) or value < 0.0:
        raise ValueError(f"{text!r} must be finite and not negative")
    return value
