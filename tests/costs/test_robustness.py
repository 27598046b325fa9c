"""Formulas against the published semantics: signs, laws, values by hand, lost states."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.trajectories import Trajectory
from grape.costs import evaluate, parse_specification, unavailable_constraints
from grape.costs.formulas import Call, Condition
from grape.costs.measurement import Recording, truth
from grape.costs.robustness import stage_violation, violation
from grape.costs.specification import CostSpecification

MakeTrajectory = Callable[..., Trajectory]


def at_least(signal: str, value: float) -> Condition:
    return Condition("holds", Call("signal_at_least", (("signal", signal), ("value", value))))


def over(operator: str, *operands: Condition) -> Condition:
    return Condition(operator, operands=operands)  # type: ignore[arg-type]


P, Q = at_least("p", 0.0), at_least("q", 0.0)  # robustness is the signal itself


def recording_of(make_trajectory: MakeTrajectory, p: list[float], q: list[float] | None = None) -> Recording:
    return Recording(make_trajectory({}, {"p": p, "q": q or [0.0] * len(p)}), limit=16)


@pytest.mark.parametrize(
    ("formula", "due"),
    [
        (P, [2, 0, 1, 0]),
        (over("not", P), [0, 1, 0, 3]),
        (over("all", P, Q), [2, 1, 4, 0]),
        (over("any", P, Q), [0, 0, 1, 0]),
        (over("always", P), [2, 1, 1, 0]),
        (over("eventually", P), [0, 0, 0, 0]),
        (over("eventually", Q), [0, 0, 0, 0]),
        (over("eventually", over("all", P, at_least("q", 3.0))), [0.5, 0.5, 0.5, 0.5]),
        # p has to hold up to a state at which q does: from 0 q does at once; from 1 it does at 3, but p is -1 at 2.
        (over("until", P, Q), [0, 1, 1, 0]),
        # From 0 it is better to lack 1 of q at once than 2 of p for q at 3.
        (over("until", P, at_least("q", 2.0)), [1, 1, 1, 0]),
        (over("always", over("eventually", P)), [0, 0, 0, 0]),
    ],
)
def test_violations_by_hand(make_trajectory: MakeTrajectory, formula: Condition, due: list[float]) -> None:
    recording = recording_of(make_trajectory, [-2, 1, -1, 3], [1, -1, -4, 2.5])
    curve, known = stage_violation(recording, formula, 0, 3)
    np.testing.assert_allclose(curve, due)
    assert known == 4
    if not formula.temporal:
        np.testing.assert_allclose(violation(recording, formula), due)


SIGNAL = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=9)
STATE = st.recursive(
    st.sampled_from([P, Q, at_least("p", 1.5)]),
    lambda inner: st.builds(
        lambda operator, one, other: over(operator, one) if operator == "not" else over(operator, one, other),
        st.sampled_from(["not", "all", "any"]),
        inner,
        inner,
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(p=SIGNAL, formula=STATE, other=STATE, data=st.data())
def test_robustness_has_the_sign_of_truth(
    make_trajectory: MakeTrajectory, p: list[float], formula: Condition, other: Condition, data: st.DataObject
) -> None:
    """A positive robustness means that the formula holds, a negative one that it fails."""
    q = data.draw(st.lists(st.floats(-5, 5, width=32), min_size=len(p), max_size=len(p)))
    recording = recording_of(make_trajectory, p, q)
    verdict = truth(recording, formula)
    assert not (verdict[violation(recording, formula) > 1e-5] == 1.0).any()
    assert not (verdict[violation(recording, over("not", formula)) > 1e-5] == 0.0).any()
    # Looking back over a whole stage at its last state is looking ahead over it from its first.
    for made in (over("always", formula), over("eventually", formula), over("until", formula, other)):
        holds = truth(recording, made, 0)[-1]
        cost, denied = (stage_violation(recording, item, 0, len(p) - 1)[0][0] for item in (made, over("not", made)))
        assert not (cost > 1e-5 and holds == 1.0)
        assert not (denied > 1e-5 and holds == 0.0)


@settings(max_examples=40, deadline=None)
@given(p=SIGNAL, formula=STATE)
def test_laws(make_trajectory: MakeTrajectory, p: list[float], formula: Condition) -> None:
    recording = recording_of(make_trajectory, p)
    last = len(p) - 1
    twice = over("not", over("not", formula))
    np.testing.assert_array_equal(violation(recording, twice), violation(recording, formula))
    for one, other in (
        (over("eventually", formula), over("not", over("always", over("not", formula)))),
        (over("eventually", formula), over("until", over("any", formula, over("not", formula)), formula)),
    ):
        left, right = (stage_violation(recording, item, 0, last)[0] for item in (one, other))
        if other.operator == "not":
            np.testing.assert_array_equal(left, right)
        else:
            assert (left <= right).all()


@settings(max_examples=60, deadline=None)
@given(p=SIGNAL, data=st.data())
def test_until_is_its_definition(make_trajectory: MakeTrajectory, p: list[float], data: st.DataObject) -> None:
    """The best later state for q, with p at every state before it."""
    q = data.draw(st.lists(st.floats(-5, 5, width=32), min_size=len(p), max_size=len(p)))
    due = [max(min([q[there], *p[state:there]]) for there in range(state, len(p))) for state in range(len(p))]
    curve, _ = stage_violation(recording_of(make_trajectory, p, q), over("until", P, Q), 0, len(p) - 1)
    np.testing.assert_array_equal(curve, np.maximum(0.0, -np.array(due)))


def test_lost_states_leave_known_what_the_rest_decides(make_trajectory: MakeTrajectory) -> None:
    nan = math.nan
    recording = recording_of(make_trajectory, [nan, nan, -1, 2], [1, -1, nan, nan])
    np.testing.assert_array_equal(violation(recording, over("any", P, Q)), [0, nan, nan, 0])
    np.testing.assert_array_equal(violation(recording, over("all", P, Q)), [nan, nan, nan, nan])
    curve, known = stage_violation(recording, over("always", P), 0, 3)
    np.testing.assert_array_equal(curve, [nan, nan, 1, 0])
    assert known == 2


def test_conditions_over_time_look_back(make_trajectory: MakeTrajectory) -> None:
    """In done_when "eventually" is "has held since the stage began"; unknown states decide nothing."""
    recording = recording_of(make_trajectory, [1, -1, 1, -1, math.nan], [-1, -1, 1, 1, 1])
    for formula, start, due in [
        (over("eventually", P), 1, [0, 1, 1, 1]),
        (over("always", P), 0, [1, 0, 0, 0, 0]),
        (over("always", P), 2, [1, 0, 0]),
        (over("until", P, Q), 0, [0, 0, 0, 0, 0]),
        (over("until", P, Q), 2, [1, 1, 1]),
        (over("always", over("not", Q)), 0, [1, 1, 0, 0, 0]),
        (over("eventually", over("all", P, over("not", Q))), 3, [0, 0]),
    ]:
        np.testing.assert_array_equal(truth(recording, formula, start)[start:], due, err_msg=str(formula))
    unknown = recording_of(make_trajectory, [math.nan, 1, -1])
    np.testing.assert_array_equal(truth(unknown, over("eventually", P)), [math.nan, 1, 1])
    np.testing.assert_array_equal(truth(unknown, over("always", P)), [math.nan, math.nan, 0])


SPECIFICATION = """\
version: 1
limit: 10 steps
keypoints: [gripper, block]
signals: [grasped]
stages:
  - name: carry
    done_when: {all: [{eventually: {grasped: {}}}, {released: {}}]}
    subgoal:
      - {name: either, cost: {any: [{near: {of: gripper, to: block, within: 10 cm}}, {grasped: {}}]}, weight: 2,
         worst: 2, objectives: [completion]}
    path:
      - {name: close, cost: {always: {near: {of: gripper, to: block, within: 10 cm}}}, weight: 1 per m, worst: 50 cm,
         objectives: [safety]}
      - {name: slow, cost: {all: [{at_rest: {of: gripper, within: 10 cm/step}}]}, aggregate: max, worst: 50 cm/step,
         weight: 1 per m/step, objectives: [safety]}
      - {name: once, cost: {eventually: {at_rest: {of: gripper, within: 1 cm/step}}}, weight: 1 per m/step,
         objectives: [efficiency]}
"""


@pytest.fixture(scope="module")
def specification() -> CostSpecification:
    return parse_specification(SPECIFICATION, "carry.yaml")


def test_a_stage_priced_by_formulas(specification: CostSpecification, make_trajectory: MakeTrajectory) -> None:
    """Grasped at state 1, released at 3: the stage ends there, though nothing is grasped at its end."""
    keypoints = {
        "gripper": [[x, 0, 0] for x in (0.0, 0.1, 0.4, 0.6, 0.6)],
        "block": [[x, 0, 0] for x in (0.2, 0.2, 0.2, 0.2, 0.2)],
    }
    carry, _ = evaluate(specification, make_trajectory(keypoints, {"grasped": [0, 1, 1, 0, 0]}))
    assert (carry.start, carry.end, carry.done) == (0, 3, True)
    _, either, close, slow, once = carry.constraints
    # 0.4 m away: 0.3 over the bound, of 0.3 m that a length may cost at most; nothing held is 1 of 1.
    assert (either.cost, either.unit) == (pytest.approx(1.0, abs=1e-6), "ratio")
    assert (close.cost, close.unit) == (pytest.approx(0.3, abs=1e-6), "m")
    assert close.curve == pytest.approx([0.3] * 4, abs=1e-6)
    assert slow.cost == pytest.approx(0.2, abs=1e-6)
    assert once.cost == pytest.approx(0.09, abs=1e-6)  # the slowest of its steps is 10 cm long
    assert len(once.curve) == 4


def test_formulas_of_lost_keypoints_are_unavailable(
    specification: CostSpecification, make_trajectory: MakeTrajectory
) -> None:
    keypoints = {"gripper": np.full((5, 3), np.nan), "block": np.zeros((5, 3))}
    stages = evaluate(specification, make_trajectory(keypoints, {"grasped": [0, 1, 1, 1, 1]}))
    assert unavailable_constraints(stages) == ("carry/close", "carry/slow", "carry/once")
    stages = evaluate(specification, make_trajectory(keypoints, {"grasped": [0, 1, 1, 0, 0]}))
    assert unavailable_constraints(stages)[0] == "carry/either"  # nothing held: the lost gripper would decide
    cut = dataclasses.replace(specification, stages=specification.stages[:1])
    assert evaluate(cut, make_trajectory({"gripper": [[0, 0, 0]], "block": [[0, 0, 0]]}, {"grasped": [0]}))[0].cost > 0
