import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.costs import builtin_specification, parse_specification
from grape.costs.builtins import at_lower_rate
from grape.costs.specification import CostSpecification
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


BOUNDED = """\
version: 1
limit: {limit} steps
control_hz: {hz} Hz
keypoints: [gripper, block]
signals: [grasped]
stages:
  - name: stop
    done_when:
      any:
        - {{at_rest: {{of: block, within: {speed}}}}}
        - all:
            - {{not: {{at_rest: {{of: gripper, within: {fast}}}}}}}
            - {{near: {{of: gripper, to: block, within: 3 cm}}}}
    for: {held_for} steps
    path:
      - name: calm
        cost: {{at_rest: {{of: gripper, within: {fast}}}}}
        aggregate: max
        threshold: {tau}
        worst: {worst}
        weight: {weight} per m/step
        objectives: [safety]
      - {{name: calm-always, cost: {{always: {{at_rest: {{of: gripper, within: {fast}}}}}}}, worst: {worst},
         weight: {weight} per m/step, objectives: [safety]}}
"""
BY_SECOND = {"speed": "4 cm/s", "fast": "1 m/s", "tau": "20 cm/s", "worst": "2 m/s"}


def test_bounds_within_conditions_are_converted_like_thresholds() -> None:
    """A specification at 20 Hz, made slower by a factor of 10, is the one whose bounds were written by the second."""
    fast = parse_specification(BOUNDED.format(limit=200, hz=20, weight=10, held_for=30, **BY_SECOND), "fast.yaml")
    slow = parse_specification(BOUNDED.format(limit=20, hz=2, weight=1, held_for=3, **BY_SECOND), "slow.yaml")
    converted = at_lower_rate(fast, "", 10)
    assert list(map(str, numbers(converted))) == list(map(str, numbers(slow)))
    call = converted.stages[0].done_when.operands[0].call
    assert call is not None
    assert call.bounds[1] == pytest.approx(0.02)  # 2 mm a step of 50 ms are 2 cm a step of 500 ms
    by_step = BOUNDED.format(
        limit=200,
        hz=20,
        weight=10,
        held_for=30,
        speed="2 mm/step",
        fast="5 cm/step",
        tau="1 cm/step",
        worst="10 cm/step",
    )
    assert list(map(str, numbers(parse_specification(by_step, "step.yaml")))) == list(map(str, numbers(fast)))


def numbers(specification: CostSpecification) -> Iterator[object]:
    """Everything that depends on how long a step is; texts of formulas round their numbers."""
    yield specification.limit
    yield specification.control_hz
    for stage in specification.stages:
        yield stage.end_text
        for constraint in stage.constraints:
            yield constraint.cost
            yield from (f"{value:g}" for value in (constraint.threshold, constraint.worst, constraint.weight))


def test_lengths_and_the_built_in_costs_of_slower_suites_keep_their_other_bounds() -> None:
    task = "put_the_bowl_on_the_plate"
    one, other = (builtin_specification(suite, task) for suite in ("libero_goal", "libero_goal_2hz"))
    assert [stage.done_when for stage in one.stages] == [stage.done_when for stage in other.stages]
    assert [stage.penalty for stage in one.stages] == pytest.approx([stage.penalty for stage in other.stages])
