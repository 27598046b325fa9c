import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.costs.units import UNITS, Clock, parse_quantity, parse_weight, spellings

CLOCK = Clock(limit=16, control_hz=10.0)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("4 cm", "m", 0.04),
        ("4cm", "m", 0.04),
        ("1.5e1 mm", "m", 0.015),
        (".5 m", "m", 0.5),
        ("20 deg", "deg", 20.0),
        ("3.141592653589793 rad", "deg", 180.0),
        ("3 steps", "steps", 3.0),
        ("0.3 s", "steps", 3.0),
        ("0.9", "fraction", 0.9),
        ("90 %", "fraction", 0.9),
        ("4 steps", "of limit", 0.25),
        ("0.4 s", "of limit", 0.25),
        ("25 %", "of limit", 0.25),
        ("20 cm/s", "m/step", 0.02),
        ("2 cm/step", "m/step", 0.02),
        ("1 m/s2", "m/step2", 0.01),
        ("1.2", "ratio", 1.2),
        ("-3", "signal", -3.0),
    ],
)
def test_quantities_become_canonical(text: str, unit: str, value: float) -> None:
    assert parse_quantity(text, unit, CLOCK) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "unit", "says"),
    [
        ("4", "m", "unit is missing"),
        ("4 deg", "m", "'deg' does not fit"),
        ("4 cm cm", "m", "'cm cm' does not fit"),
        ("cm", "m", "no quantity"),
        ("4 5 cm", "m", "no quantity"),
        ("nan m", "m", "no quantity"),
        ("1e999 m", "m", "too large"),
        ("-1 cm", "m", "negative"),
        ("1.2", "fraction", "outside 0 to 1"),
        ("٤ cm", "m", "no quantity"),
        ("1_0 cm", "m", "'_0 cm' does not fit"),
    ],
)
def test_odd_quantities_are_refused(text: str, unit: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_quantity(text, unit, CLOCK)


def test_seconds_need_the_control_rate() -> None:
    with pytest.raises(ValueError, match="seconds need 'control_hz'"):
        parse_quantity("1 s", "steps", Clock(limit=16))


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [("2 per m", "m", 2.0), ("0.02 per cm", "m", 2.0), ("0.5", "fraction", 0.5), ("0.1 per step", "of limit", 1.6)],
)
def test_weights_are_per_canonical_unit(text: str, unit: str, value: float) -> None:
    assert parse_weight(text, unit, CLOCK) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2", "'per <unit>' is missing"),
        ("2 per deg", "'deg' does not fit"),
        ("two per m", "no weight"),
        ("-1 per m", "not negative"),
        ("2 cm", "no weight"),
    ],
)
def test_weights_of_a_length_need_a_length(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_weight(text, "m", CLOCK)


@given(value=st.floats(0, 1), unit=st.sampled_from(sorted(UNITS)), data=st.data())
def test_every_spelling_means_the_same_cost(value: float, unit: str, data: st.DataObject) -> None:
    """``weight * quantity`` does not depend on the unit both are written in."""
    names = [name for name in spellings(unit, CLOCK).split(", ") if name != "a bare number"] or [""]
    name = data.draw(st.sampled_from(names))
    try:
        quantity = parse_quantity(f"{value!r} {name}".strip(), unit, CLOCK)
    except ValueError:
        assert unit == "fraction"
        return
    weight = parse_weight(f"3 per {name}" if name else "3", unit, CLOCK)
    assert math.isclose(weight * quantity, 3 * value, rel_tol=1e-9, abs_tol=1e-12)
