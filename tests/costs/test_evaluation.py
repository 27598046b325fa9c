"""Segmentation, aggregation and what a trajectory costs; the examples are worked out by hand in the comments."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.preferences import StageScore
from grape.core.trajectories import Trajectory
from grape.costs import (
    adjust_objectives,
    evaluate,
    external_reward,
    parse_specification,
    specification_hash,
    unavailable_constraints,
)
from grape.costs.language import Amount
from grape.costs.specification import CostSpecification
from grape.costs.vocabulary import QUANTITIES, RELATIONS

MakeTrajectory = Callable[..., Trajectory]

SPECIFICATION = """\
version: 1
task: push-block
limit: 10 steps
keypoints: [gripper, block, goal]
signals: [touching, success]
stages:
  - name: reach
    done_when: {near: {of: gripper, to: block, within: 10 cm}}
    subgoal:
      - {name: at-block, cost: {distance: {of: gripper, to: block}}, threshold: 5 cm, worst: 45 cm, weight: 1 per m,
         objectives: [completion]}
    path:
      - {name: calm, cost: {undisturbed: {of: block, within: 1 cm}}, aggregate: max, worst: 11 cm, weight: 2 per m,
         objectives: [safety]}
      - {name: time, cost: {duration: {}}, weight: 0.3, threshold: 1 step, objectives: [efficiency]}
  - name: push
    done_when: {near: {of: block, to: goal, within: 10 cm}}
    path:
      - {name: hold, cost: {touching: {}}, aggregate: mean, weight: 0.4, objectives: [completion]}
      - {name: far, cost: {distance: {of: gripper, to: block}}, aggregate: integral, worst: 1 m, weight: 1 per m,
         objectives: [efficiency]}
      - {name: way, cost: {path_length: {of: gripper, reference: 50 cm}}, weight: 0.2, threshold: 1,
         objectives: [efficiency]}
  - name: leave
    done_when: {clear_of: {of: gripper, to: block, by: 20 cm}}
    unfinished: 2
outcome:
  unfinished: 1.5
  subgoal:
    - {name: block-at-goal, cost: {distance: {of: block, to: goal}}, worst: 60 cm, weight: 1 per m,
       objectives: [completion]}
"""


@pytest.fixture(scope="session")
def specification() -> CostSpecification:
    return parse_specification(SPECIFICATION, "push-block.yaml")


def on_x(*positions: float) -> list[list[float]]:
    return [[x, 0.0, 0.0] for x in positions]


# Gripper reaches the block at state 2 (0.1 m away), pushes it from 0.5 to 1.0 and leaves.
GRIPPER = (0.0, 0.2, 0.4, 0.6, 0.9, 0.6)
BLOCK = (0.5, 0.5, 0.5, 0.7, 1.0, 1.0)
GOAL = (1.0,) * 6
TOUCHING = [0, 0, 0, 1, 1, 0]


@pytest.fixture
def example(make_trajectory: MakeTrajectory) -> Trajectory:
    keypoints = {"gripper": on_x(*GRIPPER), "block": on_x(*BLOCK), "goal": on_x(*GOAL)}
    return make_trajectory(keypoints, {"touching": TOUCHING, "success": [0, 0, 0, 0, 0, 1]}, success=True)


def parts(stage: StageScore) -> dict[str, tuple[float, float]]:
    """Cost and contribution by constraint."""
    return {part.name: (part.cost, part.contribution) for part in stage.constraints}


def test_a_solved_episode_by_hand(specification: CostSpecification, example: Trajectory) -> None:
    reach, push, leave, outcome = evaluate(specification, example)
    assert [(stage.start, stage.end) for stage in (reach, push, leave, outcome)] == [(0, 2), (2, 4), (4, 5), (5, 5)]
    assert all(stage.reached and stage.done for stage in (reach, push, leave, outcome))
    # reach: 0.1 m at its end, 0.05 over the threshold; block untouched; 2 of 10 steps, 1 over the threshold.
    assert parts(reach) == {
        "done": (0.0, 0.0),
        "at-block": (pytest.approx(0.1), pytest.approx(0.05)),
        "calm": (0.0, 0.0),
        "time": (pytest.approx(0.2), pytest.approx(0.03)),
    }
    assert reach.cost == pytest.approx(0.08)
    # push, states 2..4: not touching in 1 of 3; mean distance 0.1 for 2 of 10 steps; way 0.5 m over 0.5 m.
    assert parts(push) == {
        "done": (0.0, 0.0),
        "hold": (pytest.approx(1 / 3), pytest.approx(0.4 / 3)),
        "far": (pytest.approx(0.02), pytest.approx(0.02)),
        "way": (pytest.approx(1.0, abs=1e-6), pytest.approx(0.0, abs=1e-6)),
    }
    assert parts(leave) == {"done": (0.0, 0.0)}
    assert parts(outcome) == {"success": (0.0, 0.0), "block-at-goal": (0.0, 0.0)}
    assert external_reward([reach, push, leave, outcome]) == pytest.approx(math.exp(-0.08 - 0.4 / 3 - 0.02), rel=1e-5)


def test_curves_are_the_raw_cost_at_the_stage_s_states(specification: CostSpecification, example: Trajectory) -> None:
    reach, push, *_ = evaluate(specification, example)
    curves = {part.name: part.curve for part in (*reach.constraints, *push.constraints[1:])}
    assert curves["at-block"] == pytest.approx([0.5, 0.3, 0.1])
    assert curves["time"] == pytest.approx([0.0, 0.1, 0.2])
    assert curves["done"] == (1.0, 1.0, 0.0)
    assert curves["hold"] == (1.0, 0.0, 0.0)
    assert curves["way"] == pytest.approx([0.0, 0.4, 1.0])


def test_a_failure_by_hand(specification: CostSpecification, make_trajectory: MakeTrajectory) -> None:
    """The block is reached at state 1 and not pushed: 'push' unfinished, 'leave' never entered."""
    keypoints = {"gripper": on_x(0.3, 0.4, 0.4, 0.4), "block": on_x(*[0.5] * 4), "goal": on_x(*[1.0] * 4)}
    reach, push, leave, outcome = evaluate(specification, make_trajectory(keypoints, {"touching": [0] * 4}))
    assert (reach.done, push.done, leave.done, outcome.done) == (True, False, False, False)
    assert (push.reached, push.start, push.end) == (True, 1, 3)
    assert (leave.reached, leave.start, leave.end) == (False, 4, 3)
    max_contribution = 0.4 * 1 + 1.0 * 1 + 0.2 * 2  # hold + far + way at their worst
    assert parts(push)["done"] == (1.0, pytest.approx(max_contribution + 0.1))
    assert push.cost == pytest.approx(max_contribution + 0.1 + 0.4 + 0.1 * 2 / 10)
    assert leave.cost == pytest.approx(2.0)
    assert parts(leave) == {"done": (1.0, pytest.approx(2.0))}
    assert parts(outcome) == {"success": (1.0, 1.5), "block-at-goal": (0.5, 0.5)}


def test_success_ends_all_stages(specification: CostSpecification, make_trajectory: MakeTrajectory) -> None:
    """A task solved in another way than foreseen does not pay for stages that it had no need of."""
    keypoints = {"gripper": on_x(*[0.0] * 4), "block": on_x(0.5, 0.7, 1.0, 0.2), "goal": on_x(*[1.0] * 4)}
    signals = {"touching": [0] * 4, "success": [0, 0, 1, 0]}
    reach, push, leave, outcome = evaluate(specification, make_trajectory(keypoints, signals, success=True))
    assert [(stage.start, stage.end, stage.done) for stage in (reach, push, leave)] == [
        (0, 2, True),
        (2, 2, True),
        (2, 2, True),
    ]
    assert reach.constraints[0].curve == (1.0, 1.0, 0.0)
    assert parts(reach)["at-block"] == (0.45, pytest.approx(0.4))  # 1 m, charged as its worst
    assert parts(outcome) == {"success": (0.0, 0.0), "block-at-goal": (0.0, 0.0)}


def test_a_stage_may_end_where_it_starts(specification: CostSpecification, make_trajectory: MakeTrajectory) -> None:
    keypoints = {"gripper": on_x(0.5, 0.5), "block": on_x(0.5, 0.5), "goal": on_x(0.5, 0.5)}
    reach, push, leave, _ = evaluate(specification, make_trajectory(keypoints, {"touching": [1, 1]}))
    assert [(stage.start, stage.end) for stage in (reach, push, leave)] == [(0, 0), (0, 0), (0, 1)]
    assert reach.cost == push.cost == 0.0


def test_an_episode_without_a_step_has_a_cost(
    specification: CostSpecification, make_trajectory: MakeTrajectory
) -> None:
    keypoints = {"gripper": on_x(0.0), "block": on_x(0.5), "goal": on_x(1.0)}
    stages = evaluate(specification, make_trajectory(keypoints, {"touching": [0]}))
    assert [stage.reached for stage in stages] == [True, False, False, True]
    assert 0.0 < external_reward(stages) < 1.0


AGGREGATES = """\
version: 1
limit: 8 steps
keypoints: []
signals: [s, end]
stages:
  - name: all
    done_when: {grasped: {signal: end}}
    path:
      - {name: mean, cost: {signal_at_most: {signal: s, value: 0}}, aggregate: mean, worst: 9, weight: 1,
         objectives: [safety]}
      - {name: max, cost: {signal_at_most: {signal: s, value: 0}}, aggregate: max, worst: 9, weight: 1,
         objectives: [safety]}
      - {name: integral, cost: {signal_at_most: {signal: s, value: 0}}, aggregate: integral, worst: 9, weight: 1,
         objectives: [safety]}
"""


@pytest.mark.parametrize(
    ("values", "mean", "largest", "integral"),
    [
        ([0, 0, 0, 0, 0], 0.0, 0.0, 0.0),
        ([1, 2, 3, 4, 0], 2.0, 4.0, 1.0),  # 4 of 8 steps
        ([2, 2, 2, 2, 2, 2, 2, 2, 2], 2.0, 2.0, 2.0),  # a full limit
        ([3], 3.0, 3.0, 0.0),
        ([1, math.nan, 3], 2.0, 3.0, 0.5),
    ],
)
def test_aggregations(
    make_trajectory: MakeTrajectory, values: list[float], mean: float, largest: float, integral: float
) -> None:
    trajectory = make_trajectory({}, {"s": values, "end": [0] * len(values)})
    stage = evaluate(parse_specification(AGGREGATES, "x"), trajectory)[0]
    costs = {part.name: part.cost for part in stage.constraints}
    assert costs == {"done": 1.0, "mean": mean, "max": largest, "integral": integral}


def test_costs_do_not_grow_with_the_number_of_steps(make_trajectory: MakeTrajectory) -> None:
    """The same violation recorded at every second state costs the same, where the limit counts the same time."""
    wave = np.sin(np.linspace(0, 3, 9)) ** 2
    coarse = make_trajectory({}, {"s": wave[::2], "end": [0] * 5})
    fine = make_trajectory({}, {"s": wave, "end": [0] * 9})
    coarse_stage = evaluate(parse_specification(AGGREGATES.replace("8 steps", "4 steps"), "x"), coarse)[0]
    fine_stage = evaluate(parse_specification(AGGREGATES, "x"), fine)[0]
    for one, other in zip(coarse_stage.constraints, fine_stage.constraints, strict=True):
        assert one.cost == pytest.approx(other.cost, abs=0.06), one.name


def test_a_lost_keypoint_makes_its_constraints_unavailable(
    specification: CostSpecification, example: Trajectory
) -> None:
    lost = np.array(example.keypoints["gripper"])
    lost[2:] = np.nan
    stages = evaluate(specification, dataclasses.replace(example, keypoints={**example.keypoints, "gripper": lost}))
    assert unavailable_constraints(stages) == ("reach/at-block", "push/far")
    at_block = stages[0].constraints[1]
    assert (at_block.cost, at_block.curve) == (0.45, ())  # charged as its worst, not as nothing
    assert stages[0].end == 5  # 'reach' is not known to be done before the episode is solved
    assert unavailable_constraints(evaluate(specification, example)) == ()


def test_a_keypoint_lost_for_a_moment_is_left_out_of_means(
    specification: CostSpecification, example: Trajectory
) -> None:
    lost = np.array(example.keypoints["gripper"])
    lost[3] = np.nan
    stages = evaluate(specification, dataclasses.replace(example, keypoints={**example.keypoints, "gripper": lost}))
    far = stages[1].constraints[2]
    assert far.cost == pytest.approx(0.1 * 2 / 10)
    assert far.curve == pytest.approx([0.1, 0.1, 0.1])
    assert unavailable_constraints(stages) == ("push/way",)  # neither step can be measured


def test_a_recording_of_another_task_or_without_the_names_is_refused(
    specification: CostSpecification, example: Trajectory
) -> None:
    other = dataclasses.replace(example, meta=dataclasses.replace(example.meta, task="open-door"))
    with pytest.raises(CompatibilityError, match="is of task 'open-door'"):
        evaluate(specification, other)
    keypoints = {"griper" if name == "gripper" else name: point for name, point in example.keypoints.items()}
    with pytest.raises(DataError, match="Did you mean 'griper'"):
        evaluate(specification, dataclasses.replace(example, keypoints=keypoints))


def test_objectives_move_costs_in_the_intended_direction(specification: CostSpecification, example: Trajectory) -> None:
    before = evaluate(specification, example)
    slower_is_dearer = evaluate(adjust_objectives(specification, {"efficiency": 3.0}), example)
    assert parts(slower_is_dearer[0])["time"][1] == pytest.approx(3 * parts(before[0])["time"][1])
    assert parts(slower_is_dearer[0])["at-block"] == parts(before[0])["at-block"]
    lenient = adjust_objectives(specification, thresholds={"efficiency": 2.0})
    assert parts(evaluate(lenient, example)[0])["time"][1] == pytest.approx(0.0, abs=1e-9)
    assert specification_hash(lenient) != specification_hash(specification)
    assert specification_hash(adjust_objectives(specification)) == specification_hash(specification)
    with pytest.raises(SettingsError, match="Did you mean 'safety'"):
        adjust_objectives(specification, {"saftey": 2.0})


def test_objectives_weigh_what_happened(specification: CostSpecification, make_trajectory: MakeTrajectory) -> None:
    """Whatever the factors, being unfinished or never entered costs what the specification says, tagged completion."""
    keypoints = {"gripper": on_x(*[0.0] * 4), "block": on_x(0.5, 0.5, 0.7, 0.5), "goal": on_x(*[1.0] * 4)}
    episode = make_trajectory(keypoints, {"touching": [0] * 4})
    plain = evaluate(specification, episode)
    assert [stage.reached for stage in plain] == [True, False, False, True]
    for stage, described in zip(plain[1:3], specification.stages[1:], strict=True):
        done, *measured = stage.constraints
        assert (done.cost, done.weight, done.objectives) == (
            1.0,
            described.penalty + described.max_contribution,
            ("completion",),
        )
        assert [(item.cost, item.contribution, item.curve) for item in measured] == [(0.0, 0.0, ())] * len(measured)
    for weights in ({"safety": 4.0}, {"safety": 0.0, "efficiency": 7.0}, {"completion": 3.0}):
        stages = evaluate(adjust_objectives(specification, weights), episode)
        for stage, before in zip(stages, plain, strict=True):
            for item, was in zip(stage.constraints, before.constraints, strict=True):
                factor = 1.0 if item.name in ("done", "success") else weights.get(item.objectives[0], 1.0)
                assert item.contribution == pytest.approx(factor * was.contribution), (stage.name, item.name)
    assert parts(plain[0])["calm"] == (pytest.approx(0.11), pytest.approx(0.22))  # something unsafe did happen


def test_factors_multiply_and_thresholds_by_factor_move_penalties(specification: CostSpecification) -> None:
    twice = adjust_objectives(adjust_objectives(specification, {"safety": 2.0}), {"safety": 3.0})
    assert twice == adjust_objectives(specification, {"safety": 6.0})
    assert [stage.penalty for stage in twice.stages] == [stage.penalty for stage in specification.stages]
    lenient = adjust_objectives(specification, thresholds={"efficiency": 2.0})
    assert lenient.stages[0].penalty < specification.stages[0].penalty


ANY_FLOAT = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), rows=st.integers(1, 7), success=st.booleans())
def test_costs_are_finite_for_any_recording(
    specification: CostSpecification, make_trajectory: MakeTrajectory, data: st.DataObject, rows: int, success: bool
) -> None:
    draw = st.lists(ANY_FLOAT, min_size=rows * 3, max_size=rows * 3)
    keypoints = {name: np.reshape(data.draw(draw), (rows, 3)) for name in ("gripper", "block", "goal")}
    signals = {"touching": data.draw(draw)[:rows], "success": data.draw(draw)[:rows]}
    with np.errstate(all="ignore"):
        stages = evaluate(specification, make_trajectory(keypoints, signals, success=success))
    assert [stage.name for stage in stages] == ["reach", "push", "leave", "outcome"]
    for stage, described in zip(stages, specification.stages, strict=False):
        assert 0.0 <= stage.cost <= described.penalty + described.max_contribution + 1e-9
        assert stage.cost == pytest.approx(
            sum(part.weight * max(0.0, part.cost - part.threshold) for part in stage.constraints)
        )
        for part in stage.constraints:
            assert math.isfinite(part.cost)
            assert np.isfinite(part.curve).all()
            assert len(part.curve) in (0, stage.end - stage.start + 1)
    assert 0.0 < external_reward(stages) <= 1.0


WIDE = """\
version: 1
limit: 10 steps
keypoints: [a, b, c, {name: m, mean_of: [a, b], offset: {z: -2 cm}}]
signals: [grasped, touching, success, opened, gripper_opening, s]
stages:
  - {name: empty, done_when: {opened: {at_least: 0}}}
"""
WIDE_STAGE = """
  - name: wide-%d
    done_when: {until: {hold: {not: {grasped: {}}}, reach: {inside: {of: a, to: m, x: 1 cm, y: 1 cm, z: 1 cm}}}}
    path:
"""


@functools.cache
def wide_specification() -> CostSpecification:
    """Every relation as a path constraint, and every bounded one under operators over time, in stages of 64."""
    words = {"of": "a", "to": "b", "base": "b", "tip": "m", "axis": "-y", "signal": "s"}
    amounts = {"m": "3 cm", "deg": "20 deg", "m/step": "2 cm/step", "fraction": "0.5", "signal": "1"}
    lines: list[str] = []
    for relation in RELATIONS.values():
        arguments = {
            item.name: amounts[item.kind.unit] if isinstance(item.kind, Amount) else words[item.name]
            for item in relation.parameters
            if item.required
        }
        call = json.dumps({relation.name: arguments})
        costs = {"plain": (call, relation.unit)}
        if relation.bounded:
            costs["always"] = (f"{{always: {call}}}", relation.unit)
        if relation.bounded and relation.unit != "signal":
            mixed = "fraction" if relation.unit == "fraction" else "ratio"
            costs["until"] = (f"{{until: {{hold: {call}, reach: {{grasped: {{}}}}}}}}", mixed)
        for kind, (cost, unit) in costs.items():
            per = f" per {unit}" if unit in ("m", "deg", "m/step", "m/step2") else ""
            over_stage = kind != "plain" or QUANTITIES[relation.quantity].per == "stage"
            how = ("" if over_stage else ", aggregate: integral") + (", worst: 5" if unit == "signal" else "")
            start = f"      - {{name: {kind}-{relation.name}, cost: {cost}, "
            lines.append(f"{start}weight: 1{per}{how}, objectives: [safety]}}")
    stages = [WIDE_STAGE % first + "\n".join(lines[first : first + 64]) for first in range(0, len(lines), 64)]
    return parse_specification(WIDE + "".join(stages), "wide.yaml")


@settings(max_examples=30, deadline=None)
@given(data=st.data(), rows=st.integers(1, 5), same=st.booleans())
def test_all_words_are_finite_and_repeatable_for_any_recording(
    make_trajectory: MakeTrajectory, data: st.DataObject, rows: int, same: bool
) -> None:
    """NaN, infinities, one state, keypoints that coincide or never move: costs stay finite and equal each time."""
    specification = wide_specification()
    draw = st.lists(ANY_FLOAT, min_size=3 if same else rows * 3, max_size=3 if same else rows * 3)
    keypoints = {name: np.resize(data.draw(draw), (rows, 3)) for name in "abc"}
    signals = {name: np.resize(data.draw(draw), rows) for name in specification.signals}
    trajectory = make_trajectory(keypoints, signals, success=data.draw(st.booleans()))
    with np.errstate(all="ignore"):
        stages = evaluate(specification, trajectory)
        assert evaluate(specification, trajectory) == stages
    bound = max(stage.penalty + stage.max_contribution for stage in specification.stages)
    assert all(0.0 <= stage.cost <= bound + 1e-6 for stage in stages)
    for stage in stages:
        for part in stage.constraints:
            assert math.isfinite(part.cost)
            assert np.isfinite(part.curve).all()
            assert len(part.curve) in (0, stage.end - stage.start + 1)


def cut(trajectory: Trajectory, steps: int) -> Trajectory:
    """The first ``steps`` decisions of an episode that was not solved."""
    return dataclasses.replace(
        trajectory,
        meta=dataclasses.replace(trajectory.meta, steps=steps, success=False),
        frames=trajectory.frames[: steps + 1],
        proprio=trajectory.proprio[: steps + 1],
        actions=trajectory.actions[:steps],
        labels=trajectory.labels[:steps],
        action_tokens=trajectory.action_tokens[:steps],
        token_logps=trajectory.token_logps[:steps],
        keypoints={name: point[: steps + 1] for name, point in trajectory.keypoints.items()},
        signals={name: signal[: steps + 1] for name, signal in trajectory.signals.items()},
    )


@settings(max_examples=80, deadline=None)
@given(xs=st.lists(st.floats(0, 1, width=32), min_size=27, max_size=27), touch=st.booleans())
def test_whoever_got_further_on_the_same_way_pays_less(
    specification: CostSpecification, make_trajectory: MakeTrajectory, xs: list[float], touch: bool
) -> None:
    """Of two first parts of one recording, the one that finished more stages costs less in its stages."""
    names = ("gripper", "block", "goal")
    keypoints = {name: on_x(*xs[9 * i : 9 * i + 9]) for i, name in enumerate(names)}
    whole = make_trajectory(keypoints, {"touching": [touch] * 9})
    costs = []
    for steps in range(9):
        stages = evaluate(specification, cut(whole, steps))[:-1]
        costs.append((sum(stage.done for stage in stages), sum(stage.cost for stage in stages)))
    for done, cost in costs:
        for more_done, less_cost in costs:
            if more_done > done:
                assert less_cost < cost


def test_rewards_stay_positive_where_the_exponential_underflows() -> None:
    stage = StageScore("s", 0, 0, True, False, 5000.0)
    assert 0.0 < external_reward([stage]) < 1e-300
    assert external_reward([]) == 1.0
