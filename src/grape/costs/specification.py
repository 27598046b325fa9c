"""What a cost specification is, once parsed: stages, conditions and constraints in canonical units.

``C_i = sum_j lambda_ij * max(0, C_ij - tau_ij)`` a stage and ``R_ext = prod_i exp(-C_i)`` a trajectory
(arXiv 2411.19309, guided-cost preference generation).
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from grape.core.errors import require_known
from grape.core.files import content_hash
from grape.costs.units import Clock
from grape.costs.vocabulary import RELATIONS, Relation

__all__ = [
    "AGGREGATIONS",
    "OBJECTIVES",
    "Call",
    "Condition",
    "Constraint",
    "CostSpecification",
    "Outcome",
    "Stage",
    "adjust_objectives",
    "specification_hash",
    "specification_to_dict",
]

OBJECTIVES = ("completion", "safety", "efficiency")
"""Tags a constraint may carry; preferences reach an objective by changing the tagged weights and thresholds."""

AGGREGATIONS = ("mean", "max", "integral")
"""How a path constraint's values at the states of a stage become one number."""

UNFINISHED_MARGIN = 0.1
"""How much more an unfinished stage costs, at least, than the dearest finish of it (unit-free)."""


@dataclass(frozen=True)
class Call:
    """A relation with its arguments.

    Attributes:
        relation: A name in :data:`grape.costs.vocabulary.RELATIONS`.
        arguments: Parameter name and value: a keypoint's, signal's or axis' name, or a number in canonical unit.
    """

    relation: str
    arguments: tuple[tuple[str, str | float], ...] = ()

    @functools.cached_property
    def word(self) -> Relation:
        """The relation's entry in the vocabulary."""
        return RELATIONS[self.relation]

    @functools.cached_property
    def bounds(self) -> tuple[float, float]:
        """Where the relation holds: smallest and largest value of its quantity, infinite where unbounded."""
        values = dict(self.arguments)
        low, high = (
            unbounded if bound is None else float(values[bound]) if isinstance(bound, str) else bound
            for bound, unbounded in ((self.word.lower, -math.inf), (self.word.upper, math.inf))
        )
        return low, high

    @functools.cached_property
    def measured(self) -> tuple[tuple[str, str | float], ...]:
        """The quantity's own arguments by name, without the bound."""
        values, renamed = dict(self.arguments), self.word.arguments
        bounds = (self.word.upper, self.word.lower)
        return tuple(sorted((name, values[renamed.get(name, name)]) for name in values if name not in bounds))

    def names(self, kind: Literal["keypoint", "signal"]) -> Iterator[str]:
        """Names of keypoints or signals it speaks of."""
        for name, value in self.arguments:
            if self.word.parameter(name).kind == kind:
                yield str(value)

    def __str__(self) -> str:
        values = (
            f"{name} {value:g} {self.word.parameter(name).unit}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self.arguments
        )
        return f"{self.relation}({', '.join(values)})"


@dataclass(frozen=True)
class Condition:
    """A predicate over one state: a relation that holds, or a combination.

    Attributes:
        operator: ``"holds"`` (of ``call``), ``"not"`` (one operand), ``"all"`` or ``"any"``.
        call: The relation; only for ``"holds"``.
        operands: The combined conditions.
    """

    operator: Literal["holds", "not", "all", "any"]
    call: Call | None = None
    operands: tuple["Condition", ...] = ()

    def calls(self) -> Iterator[Call]:
        """All relations in it, from left to right."""
        if self.call is not None:
            yield self.call
        for operand in self.operands:
            yield from operand.calls()

    def __str__(self) -> str:
        if self.call is not None:
            return str(self.call)
        if self.operator == "not":
            return f"not {self.operands[0]}"
        return "(" + (" and " if self.operator == "all" else " or ").join(map(str, self.operands)) + ")"


@dataclass(frozen=True)
class Constraint:
    """One cost within a stage.

    Attributes:
        name: Unique within its stage.
        kind: ``"subgoal"``: the cost at the stage's last state. ``"path"``: over the stage.
        cost: What is measured.
        aggregate: One of :data:`AGGREGATIONS` for a path constraint over states; empty for subgoals and for
            relations that accumulate over the stage by themselves (``path_length``, ``duration``).
        threshold: tau_ij in the cost's canonical unit.
        weight: lambda_ij, per canonical unit.
        worst: Largest C_ij that is charged; what a stage that was never entered is charged.
        objectives: Some of :data:`OBJECTIVES`.
        description: For people.
    """

    name: str
    kind: Literal["subgoal", "path"]
    cost: Call
    aggregate: str
    threshold: float
    weight: float
    worst: float
    objectives: tuple[str, ...]
    description: str = ""

    @property
    def unit(self) -> str:
        """Canonical unit of cost, threshold and worst."""
        return self.cost.word.unit

    @property
    def dearest(self) -> float:
        """Largest contribution to the stage's cost, unit-free."""
        return self.weight * max(0.0, self.worst - self.threshold)


@dataclass(frozen=True)
class Stage:
    """A consecutive part of the task.

    Attributes:
        name: Unique within the specification.
        done_when: The stage ends at its first state where this holds.
        constraints: Its costs.
        unfinished: Charged when the stage ends without ``done_when``; None derives it and a value below
            :attr:`dearest` is raised to it, see :attr:`penalty`.
        description: For people.
    """

    name: str
    done_when: Condition
    constraints: tuple[Constraint, ...]
    unfinished: float | None = None
    description: str = ""

    @property
    def dearest(self) -> float:
        """Largest cost of the stage when it was finished."""
        return sum(constraint.dearest for constraint in self.constraints)

    @property
    def penalty(self) -> float:
        """Charged when the stage was not finished, unit-free.

        Never less than any finish of the stage can cost: of two recordings that agree up to this stage, the one
        that finished it is the cheaper one.
        """
        return self.dearest + UNFINISHED_MARGIN if self.unfinished is None else max(self.unfinished, self.dearest)


@dataclass(frozen=True)
class Outcome:
    """How the episode ended: subgoals evaluated at the last state, whatever the stages did.

    Attributes:
        constraints: Subgoal constraints, e.g. how far the object still is from its goal.
        unfinished: Charged when the task was not solved, unit-free.
    """

    constraints: tuple[Constraint, ...] = ()
    unfinished: float = 1.0


@dataclass(frozen=True)
class CostSpecification:
    """Stages and constraints of one task, with weights and thresholds.

    Attributes:
        suite: Suite the names come from; empty if the file does not say.
        task: Task it was written for; empty for any.
        limit: Decisions after which an episode ends without success; durations are fractions of it.
        control_hz: Decisions a second; None if the file does not say.
        keypoints: Keypoints it may speak of.
        signals: Signals it may speak of.
        stages: In order.
        outcome: How the end is judged.
        description: For people.
        source: Where it was read from, for messages.
    """

    suite: str
    task: str
    limit: int
    control_hz: float | None
    keypoints: tuple[str, ...]
    signals: tuple[str, ...]
    stages: tuple[Stage, ...]
    outcome: Outcome = Outcome()
    description: str = ""
    source: str = dataclasses.field(default="", compare=False)

    @property
    def clock(self) -> Clock:
        """How the task's time is counted."""
        return Clock(self.limit, self.control_hz)

    def calls(self) -> Iterator[tuple[str, Call]]:
        """Every relation with the place where it is used, e.g. ``("stage 'reach', done_when", ...)``."""
        for stage in self.stages:
            for call in stage.done_when.calls():
                yield f"stage '{stage.name}', done_when", call
            for constraint in stage.constraints:
                yield f"stage '{stage.name}', constraint '{constraint.name}'", constraint.cost
        for constraint in self.outcome.constraints:
            yield f"outcome, constraint '{constraint.name}'", constraint.cost


def specification_to_dict(specification: CostSpecification) -> dict[str, Any]:
    """Everything that shapes the costs, as JSON values in canonical units; descriptions and source are left out."""

    def constraint_value(constraint: Constraint) -> dict[str, Any]:
        return {
            "name": constraint.name,
            "kind": constraint.kind,
            "cost": {constraint.cost.relation: dict(constraint.cost.arguments)},
            "aggregate": constraint.aggregate,
            "threshold": constraint.threshold,
            "weight": constraint.weight,
            "worst": constraint.worst,
            "unit": constraint.unit,
            "objectives": list(constraint.objectives),
        }

    def condition_value(condition: Condition) -> dict[str, Any]:
        if condition.call is not None:
            return {condition.call.relation: dict(condition.call.arguments)}
        return {condition.operator: [condition_value(operand) for operand in condition.operands]}

    return {
        "suite": specification.suite,
        "task": specification.task,
        "limit": specification.limit,
        "control_hz": specification.control_hz,
        "keypoints": sorted(specification.keypoints),
        "signals": sorted(specification.signals),
        "stages": [
            {
                "name": stage.name,
                "done_when": condition_value(stage.done_when),
                "constraints": [constraint_value(constraint) for constraint in stage.constraints],
                "unfinished": stage.penalty,
            }
            for stage in specification.stages
        ],
        "outcome": {
            "constraints": [constraint_value(constraint) for constraint in specification.outcome.constraints],
            "unfinished": specification.outcome.unfinished,
        },
    }


def specification_hash(specification: CostSpecification) -> str:
    """SHA-256 over everything that shapes the costs: changes of wording or of unit spelling keep it."""
    return content_hash(specification_to_dict(specification))


def adjust_objectives(
    specification: CostSpecification,
    weights: Mapping[str, float] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> CostSpecification:
    """The specification with the tagged constraints' weights and thresholds multiplied.

    Args:
        specification: Where to start.
        weights: Factor a tag, e.g. ``{"safety": 4.0}``; a constraint with several tags gets their product.
        thresholds: Factor a tag for thresholds.

    Raises:
        SettingsError: A tag is unknown.
    """
    weights, thresholds = weights or {}, thresholds or {}
    for tag in {*weights, *thresholds}:
        require_known("objective", tag, OBJECTIVES)

    def adjusted(constraint: Constraint) -> Constraint:
        weight, threshold = constraint.weight, constraint.threshold
        for tag in constraint.objectives:
            weight *= weights.get(tag, 1.0)
            threshold *= thresholds.get(tag, 1.0)
        return dataclasses.replace(
            constraint, weight=weight, threshold=threshold, worst=max(constraint.worst, threshold)
        )

    outcome = specification.outcome
    return dataclasses.replace(
        specification,
        stages=tuple(
            dataclasses.replace(stage, constraints=tuple(map(adjusted, stage.constraints)))
            for stage in specification.stages
        ),
        outcome=dataclasses.replace(outcome, constraints=tuple(map(adjusted, outcome.constraints))),
    )
