"""Thresholds from data: what counts as "as good as it gets" in a task, learned from its successes.

``C_i = sum_j lambda_ij max(0, C_ij - tau_ij)``: where no trajectory comes below tau_ij, the constraint adds the same to
all of them and R_ext saturates. So a threshold is raised to a low quantile of what successful trajectories reach. It
is never lowered (whoever wrote a lax threshold meant it), and constraints tagged ``safety`` keep theirs: their limits
follow from what is harmful, not from what is usual.
"""

import dataclasses
import math
from array import array
from collections.abc import Mapping, Sequence

import numpy as np

from grape.core.errors import SettingsError, require_known
from grape.core.preferences import ConstraintScore, StageScore
from grape.costs.language import RESERVED_NAMES
from grape.costs.specification import Constraint, CostSpecification

__all__ = ["MIN_SUCCESSES", "Place", "SuccessCosts", "reprice", "thresholds_by_hand", "with_thresholds"]

MIN_SUCCESSES = 8
"""Successful episodes of a task below which its thresholds stay as they are."""

Place = tuple[int, str]
"""A constraint: number of its stage (that of the outcome comes last) and its name."""


class SuccessCosts:
    """Raw costs of a task's successes where thresholds may be raised, eight bytes each.

    Args:
        specification: What the successes are priced with.
    """

    def __init__(self, specification: CostSpecification) -> None:
        self._thresholds: dict[Place, float] = {}
        self._costs: dict[Place, array[float]] = {}
        self._at: dict[Place, int] = {}
        self._count = 0
        for number, constraints in enumerate(_constraints(specification)):
            for position, constraint in enumerate(constraints):
                if "safety" not in constraint.objectives:
                    place = number, constraint.name
                    self._thresholds[place] = constraint.threshold
                    self._costs[place] = array("d")
                    # A priced stage's completion, which has no threshold, comes before its constraints.
                    self._at[place] = position - len(constraints)

    def add(self, stages: Sequence[StageScore]) -> None:
        """Count one success."""
        self._count += 1
        for (number, name), position in self._at.items():
            if stages[number].reached:
                self._costs[number, name].append(stages[number].constraints[position].cost)

    def thresholds(self, quantile: float) -> dict[Place, float]:
        """Thresholds that the successes suggest, only those that differ from the specification's.

        Args:
            quantile: In [0, 1]; 0.25: a quarter of the successes pay nothing.
        """
        if self._count < MIN_SUCCESSES:
            return {}
        suggested = {
            place: float(np.quantile(costs, quantile))
            for place, costs in self._costs.items()
            if len(costs) >= MIN_SUCCESSES
        }
        return {place: value for place, value in suggested.items() if value > self._thresholds[place]}


def thresholds_by_hand(
    specifications: Mapping[str, CostSpecification], values: Mapping[str, float]
) -> dict[str, dict[Place, float]]:
    """Thresholds that the user gave, by task.

    Args:
        specifications: That of each task.
        values: Threshold by ``"stage/constraint"``, for every task that has it, or by ``"task/stage/constraint"``.

    Raises:
        SettingsError: No task has such a constraint, or a value is negative or not finite.
    """
    thresholds: dict[str, dict[Place, float]] = {task: {} for task in specifications}
    names: dict[str, list[tuple[str, Place]]] = {}
    for task, specification in specifications.items():
        stages = [*(stage.name for stage in specification.stages), "outcome"]
        for number, constraints in enumerate(_constraints(specification)):
            for constraint in constraints:
                name = f"{stages[number]}/{constraint.name}"
                for spelling in (name, f"{task}/{name}"):
                    names.setdefault(spelling, []).append((task, (number, constraint.name)))
    for name, value in sorted(values.items(), key=lambda item: item[0].count("/")):
        require_known("constraint", name, names)
        if not (math.isfinite(value) and value >= 0):
            raise SettingsError(f"--threshold-values {name} is {value}.", "A threshold is a number from 0 upwards.")
        for task, place in names[name]:
            thresholds[task][place] = value
    return thresholds


def with_thresholds(specification: CostSpecification, thresholds: Mapping[Place, float]) -> CostSpecification:
    """The specification with other thresholds at the given places."""
    if not thresholds:
        return specification
    groups = [
        tuple(
            dataclasses.replace(constraint, threshold=thresholds.get((number, constraint.name), constraint.threshold))
            for constraint in constraints
        )
        for number, constraints in enumerate(_constraints(specification))
    ]
    return dataclasses.replace(
        specification,
        stages=tuple(
            dataclasses.replace(stage, constraints=constraints)
            for stage, constraints in zip(specification.stages, groups, strict=False)
        ),
        outcome=dataclasses.replace(specification.outcome, constraints=groups[-1]),
    )


def reprice(stages: Sequence[StageScore], specification: CostSpecification) -> tuple[StageScore, ...]:
    """Stage scores under the thresholds of ``specification``, from the raw costs already measured.

    Equals evaluating the trajectory again with ``specification``, provided that it differs from the one evaluated in
    thresholds only; where stages may change places, they keep the order that was taken.
    """
    # A stage that was never entered is charged all that it can cost for not being done.
    penalties = [
        stage.penalty + (0.0 if score.reached else stage.max_contribution)
        for stage, score in zip(specification.stages, stages, strict=False)
    ]
    return tuple(
        _repriced(stage, penalty, [constraint.threshold for constraint in constraints])
        for stage, penalty, constraints in zip(
            stages, [*penalties, specification.outcome.unfinished], _constraints(specification), strict=True
        )
    )


def _constraints(specification: CostSpecification) -> list[tuple[Constraint, ...]]:
    return [*(stage.constraints for stage in specification.stages), specification.outcome.constraints]


def _repriced(stage: StageScore, penalty: float, thresholds: Sequence[float]) -> StageScore:
    # An outcome that is unknown has no constraint of completion.
    completion = [item for item in stage.constraints if item.name in RESERVED_NAMES]
    others = stage.constraints[len(completion) :]
    constraints = (
        *(_with_penalty(item, penalty) for item in completion),
        *(_with_threshold(constraint, threshold) for constraint, threshold in zip(others, thresholds, strict=True)),
    )
    return dataclasses.replace(
        stage, cost=sum(constraint.contribution for constraint in constraints), constraints=constraints
    )


def _with_penalty(completion: ConstraintScore, penalty: float) -> ConstraintScore:
    contribution = completion.cost * penalty
    if (completion.weight, completion.contribution) == (penalty, contribution):
        return completion
    return dataclasses.replace(completion, weight=penalty, contribution=contribution)


def _with_threshold(constraint: ConstraintScore, threshold: float) -> ConstraintScore:
    if constraint.threshold == threshold:
        return constraint
    contribution = constraint.weight * max(0.0, constraint.cost - threshold)
    return dataclasses.replace(constraint, threshold=threshold, contribution=contribution)
