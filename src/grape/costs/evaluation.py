"""What a recorded trajectory costs under a specification: stages found, constraints evaluated, R_ext.

A stage starts at the state where the one before it ended and ends at its first state where ``done_when`` holds, or has
held for the number of states in a row that the stage asks for. From these boundaries follow three cases, ordered so
that progress never costs more (``D_i`` is the most that the stage's constraints can cost, ``U_i >= D_i`` the penalty of
an unfinished stage):

* finished: ``0 <= C_i <= D_i``;
* entered but not finished, until the last state: ``U_i <= C_i <= U_i + D_i``;
* never entered: ``C_i = U_i + D_i``, all of it charged for not being done, since nothing happened that its constraints
  could measure.

The penalty is itself a constraint, named ``done``, with cost 0 or 1 and weight ``U_i`` (``U_i + D_i`` for a stage that
was never entered), so that ``C_i = sum_j lambda_ij * max(0, C_ij - tau_ij)`` stays the whole truth. A state in which a
solved episode succeeds ends all stages. Where the outcome is unknown, nothing is charged for it, nor for a stage of
which only the simulator's verdict could tell that it is done. The last entry, ``outcome``, judges the final state
whatever the stages did.

Where groups of stages may change places, all orders are evaluated and the cheapest counts. An episode that was recorded
to its last step (``meta.until``) has to be done at the end: what counts is the last onset of success, and the last
stage ends where its ``done_when`` begins to hold for good. Everything is pure numpy.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grape.core.errors import CompatibilityError, DataError, did_you_mean
from grape.core.preferences import ConstraintScore, StageScore
from grape.core.trajectories import Trajectory
from grape.costs.formulas import Call, Condition
from grape.costs.measurement import Recording, relation_cost, truth
from grape.costs.robustness import stage_violation, violation
from grape.costs.specification import Constraint, CostSpecification, Outcome, Stage

__all__ = ["evaluate", "external_reward", "unavailable_constraints"]

Float64 = npt.NDArray[np.float64]

MIN_MEASURED = 0.5
"""Share of a stage's states at which a path constraint must be measurable."""


def evaluate(specification: CostSpecification, trajectory: Trajectory) -> tuple[StageScore, ...]:
    """Cost of each stage, then of the outcome.

    A constraint that cannot be measured because a keypoint was lost (NaN) is charged its ``worst``, keeps an empty
    curve, and is listed by :func:`unavailable_constraints`: it is never silently zero. States of a path constraint
    at which a keypoint is lost are left out as long as half of the stage's states are measurable; in curves they are
    bridged linearly.

    Args:
        specification: Stages and constraints.
        trajectory: What was recorded; images are not looked at.

    Returns:
        One score a stage, in the order of the specification, and a last one named ``outcome``; where stages may change
        places, :attr:`~grape.core.preferences.StageScore.position` names the order that was taken. A stage that was
        never entered has ``end = start - 1``. All numbers are finite.

    Raises:
        CompatibilityError: The specification was written for another task.
        DataError: The recording lacks a keypoint or signal that the specification speaks of.
    """
    _require_fit(specification, trajectory)
    pricing = _Pricing(specification, trajectory)
    orders = specification.orders()
    cheapest = min(map(pricing.stages, orders), key=_total_of_stages)
    if len(orders) == 1:
        cheapest = [dataclasses.replace(stage, position=None) for stage in cheapest]
    return (*cheapest, pricing.outcome())


def external_reward(stages: Sequence[StageScore]) -> float:
    """``R_ext = prod_i exp(-C_i)`` in (0, 1] (arXiv 2411.19309, external reward); kept above 0 where it underflows."""
    return max(math.exp(-sum(stage.cost for stage in stages)), float(np.finfo(np.float64).tiny))


def unavailable_constraints(stages: Sequence[StageScore]) -> tuple[str, ...]:
    """Constraints of entered stages that could not be measured, as ``"stage/constraint"``."""
    return tuple(
        f"{stage.name}/{constraint.name}"
        for stage in stages
        if stage.reached
        for constraint in stage.constraints
        if not constraint.curve
    )


def _require_fit(specification: CostSpecification, trajectory: Trajectory) -> None:
    meta = trajectory.meta
    if specification.task and specification.task != meta.task:
        raise CompatibilityError(
            f"Cost specification {specification.source or specification.task} is for task '{specification.task}', "
            f"episode {meta.episode_id} is of task '{meta.task}'.",
            "Choose the specification of that task.",
        )
    for kind, declared, recorded in (
        ("keypoint", specification.recorded_keypoints, trajectory.keypoints),
        ("signal", specification.signals, trajectory.signals),
    ):
        missing = [name for name in declared if name not in recorded]
        if missing:
            raise DataError(
                f"Episode {meta.episode_id} holds no {kind} {missing[0]!r}, which the cost specification "
                f"{specification.source or specification.task} speaks of.",
                did_you_mean(missing[0], recorded),
            )


class _Pricing:
    """Prices one recording's stages, in any of the orders that the specification allows."""

    def __init__(self, specification: CostSpecification, trajectory: Trajectory) -> None:
        self._specification = specification
        self._recording = Recording(trajectory, specification.limit, specification.sources)
        self._success = trajectory.meta.success
        self._to_the_end = trajectory.meta.until == "last-step"
        self._solved_at = _solved_at(trajectory)
        self._final = self._recording.rows - 1 if self._solved_at is None else self._solved_at
        self._entered: dict[tuple[int, int, bool], StageScore] = {}

    def stages(self, order: Sequence[int]) -> list[StageScore]:
        """Scores of the stages when done in this order, as the specification lists them."""
        scores: dict[int, StageScore] = {}
        start: int | None = 0
        for place, number in enumerate(order):
            stage = self._specification.stages[number]
            if start is None:
                score = _never_entered(stage, self._recording.rows)
            else:
                key = (number, start, self._to_the_end and place == len(order) - 1)
                if key not in self._entered:
                    self._entered[key] = self._priced(stage, start, to_the_end=key[2])
                score = self._entered[key]
                start = score.end if score.done else None
            scores[number] = dataclasses.replace(score, position=place)
        return [scores[number] for number in range(len(order))]

    def outcome(self) -> StageScore:
        """Score of the final state: the recording's last one, or the first of success that ended it."""
        final = self._recording.rows - 1 if self._to_the_end else self._final
        solved = None if self._success is None else self._solved_at is not None
        outcome = self._specification.outcome
        constraints = tuple(
            _constraint(constraint, self._recording, final, final) for constraint in outcome.constraints
        )
        if solved is not None:
            constraints = (_verdict(outcome, solved), *constraints)
        return StageScore("outcome", final, final, True, bool(solved), _total(constraints), constraints)

    def _priced(self, stage: Stage, start: int, *, to_the_end: bool) -> StageScore:
        """Score of a stage that was entered; ``to_the_end``: what holds at its end must hold from there on."""
        holds = truth(self._recording, stage.done_when, start)[start : self._final + 1]
        held = _held(holds == 1.0, stage.held_states)
        ends = np.flatnonzero(held)
        if to_the_end:
            ends = ends[ends > np.flatnonzero(np.concatenate([[True], ~held]))[-1] - 1]
        finished = len(ends) > 0
        end = start + int(ends[0]) if finished else self._final
        undone: Float64 = np.where(held[: end - start + 1], 0.0, 1.0)
        if not finished and self._solved_at is not None:
            finished, undone[-1] = True, 0.0
        charged = not finished and not (self._success is None and bool(np.isnan(holds).all()))
        return _entered(stage, self._recording, start, end, finished, undone, charged=charged)


def _held(holds: npt.NDArray[np.bool_], states: int) -> npt.NDArray[np.bool_]:
    """Where something has held at this many states in a row, that one included, ``(n,)``."""
    at = np.arange(len(holds))
    broken = np.maximum.accumulate(np.where(holds, -1, at))
    return at - broken >= states


def _solved_at(trajectory: Trajectory) -> int | None:
    """State at which a solved episode succeeds, else None.

    The first state of success; in an episode that was recorded to its last step, the first after which success stays.
    """
    if not trajectory.meta.success:
        return None
    succeeded = np.asarray(trajectory.signals["success"]) > 0.5
    if trajectory.meta.until == "last-step":
        return min(int(np.flatnonzero(np.concatenate([[True], ~succeeded]))[-1]), trajectory.steps)
    return int(succeeded.argmax()) if succeeded.any() else trajectory.steps


def _entered(
    stage: Stage, recording: Recording, start: int, end: int, finished: bool, undone: Float64, *, charged: bool
) -> StageScore:
    curve = undone if charged or finished else np.zeros_like(undone)
    done = _completion(stage.penalty, charged=charged, curve=tuple(curve.tolist()))
    constraints = (done, *(_constraint(constraint, recording, start, end) for constraint in stage.constraints))
    return StageScore(stage.name, start, end, True, finished, _total(constraints), constraints)


def _never_entered(stage: Stage, rows: int) -> StageScore:
    """All that the stage can cost is charged for its not being done; its constraints had nothing to measure."""
    done = _completion(stage.penalty + stage.max_contribution, charged=True)
    constraints = (done, *(_score(constraint, 0.0, ()) for constraint in stage.constraints))
    return StageScore(stage.name, rows, rows - 1, False, False, _total(constraints), constraints)


def _completion(penalty: float, *, charged: bool, curve: tuple[float, ...] = ()) -> ConstraintScore:
    """The constraint ``done`` of a stage."""
    cost = 1.0 if charged else 0.0
    return ConstraintScore("done", "subgoal", cost, 0.0, penalty, cost * penalty, "fraction", ("completion",), curve)


def _verdict(outcome: Outcome, solved: bool) -> ConstraintScore:
    """What the simulator's word costs: nothing for a success, the outcome's whole penalty for a failure."""
    failed = 0.0 if solved else 1.0
    return ConstraintScore(
        name="success",
        kind="subgoal",
        cost=failed,
        threshold=0.0,
        weight=outcome.unfinished,
        contribution=failed * outcome.unfinished,
        unit="fraction",
        objectives=("completion",),
        curve=(failed,),
    )


def _total(constraints: Sequence[ConstraintScore]) -> float:
    return sum(constraint.contribution for constraint in constraints)


def _total_of_stages(stages: Sequence[StageScore]) -> float:
    return sum(stage.cost for stage in stages)


def _constraint(constraint: Constraint, recording: Recording, start: int, end: int) -> ConstraintScore:
    """Score of a constraint over the states ``start..end`` of an entered stage."""
    first = start + constraint.of_steps
    if isinstance(constraint.cost, Condition) and constraint.cost.temporal:
        ahead, known = stage_violation(recording, constraint.cost, first, end)
        cost = _first_known(ahead) if known >= MIN_MEASURED * len(ahead) else math.nan
        return _priced(constraint, cost, np.concatenate([np.full(first - start, np.nan), ahead]))
    values = _values(recording, constraint.cost)
    if constraint.kind == "subgoal":
        return _priced(constraint, float(values[end]), values[start : end + 1])
    if constraint.over_stage:
        increments = values[start + 1 : end + 1]
        traveled = np.concatenate([[0.0], np.cumsum(_bridged(increments))])
        return _priced(constraint, _mean(increments) * len(increments), traveled)
    cost = _aggregate(constraint.aggregate, values[first : end + 1], (end - start) / recording.limit)
    return _priced(constraint, cost, values[start : end + 1])


def _values(recording: Recording, cost: Call | Condition) -> Float64:
    """Cost at each state of the recording; of accumulating relations the increment of each step."""
    return relation_cost(recording, cost) if isinstance(cost, Call) else violation(recording, cost)


def _first_known(curve: Float64) -> float:
    """First value that is not NaN; 0 for a stage without the steps that it would speak of."""
    known = curve[~np.isnan(curve)]
    return float(known[0]) if len(known) else 0.0


def _priced(constraint: Constraint, cost: float, curve: Float64) -> ConstraintScore:
    if math.isnan(cost):
        return _score(constraint, constraint.worst, ())
    return _score(constraint, cost, tuple(_bridged(curve).tolist()))


def _score(constraint: Constraint, cost: float, curve: tuple[float, ...]) -> ConstraintScore:
    cost, weight = min(cost, constraint.worst), constraint.weight * constraint.factor
    return ConstraintScore(
        name=constraint.name,
        kind=constraint.kind,
        cost=cost,
        threshold=constraint.threshold,
        weight=weight,
        contribution=weight * max(0.0, cost - constraint.threshold),
        unit=constraint.unit,
        objectives=constraint.objectives,
        curve=curve,
    )


def _aggregate(how: str, values: Float64, duration: float) -> float:
    """One number of the values at a stage's states; NaN if too few are known.

    Args:
        how: ``"mean"``, ``"max"``, or ``"integral"``: the mean times the stage's duration, so that a violation
            counts for as long as it lasts, in the cost's unit times the task's limit.
        values: Costs at the states, ``(n,)``; ``n`` may be 0 for a stage without a step, which costs nothing.
        duration: The stage's steps over the task's limit.
    """
    mean = _mean(values)
    if how == "mean" or math.isnan(mean):
        return mean
    return float(np.nanmax(values, initial=0.0)) if how == "max" else mean * duration


def _mean(values: Float64) -> float:
    """Mean of the known values; 0 for no values, NaN if fewer than half are known."""
    if not len(values):
        return 0.0
    lost = np.isnan(values)
    if not lost.any():
        return float(values.sum()) / len(values)
    known = values[~lost]
    return float(known.mean()) if len(known) >= MIN_MEASURED * len(values) else math.nan


def _bridged(curve: Float64) -> Float64:
    """The curve with unknown values interpolated from known ones, for drawing."""
    lost = np.isnan(curve)
    if not lost.any():
        return curve
    if lost.all():
        return np.zeros_like(curve)
    at = np.arange(len(curve))
    return np.interp(at, at[~lost], curve[~lost])
