"""What a cost specification is, once parsed: stages, conditions and constraints in canonical units.

``C_i = sum_j lambda_ij * max(0, C_ij - tau_ij)`` a stage and ``R_ext = prod_i exp(-C_i)`` a trajectory
(arXiv 2411.19309, guided-cost preference generation).
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from grape.core.errors import require_known
from grape.core.files import content_hash
from grape.costs.formulas import Call, Condition
from grape.costs.language import AGGREGATIONS, OBJECTIVES
from grape.costs.units import Clock
from grape.costs.vocabulary import QUANTITIES

__all__ = [
    "AGGREGATIONS",
    "OBJECTIVES",
    "Constraint",
    "CostSpecification",
    "KeypointSource",
    "Outcome",
    "Stage",
    "adjust_objectives",
    "image_keypoint",
    "specification_hash",
    "specification_text",
    "specification_to_dict",
]

UNFINISHED_MARGIN = 0.1
"""How much more an unfinished stage costs, at least, than the costliest finish of it (unit-free)."""


@dataclass(frozen=True)
class Constraint:
    """One cost within a stage.

    Attributes:
        name: Unique within its stage.
        kind: ``"subgoal"``: the cost at the stage's last state. ``"path"``: over the stage.
        cost: What is measured: a relation, or a formula whose violation is the cost.
        aggregate: One of :data:`AGGREGATIONS` for a path constraint over states; empty for subgoals and where
            :attr:`over_stage` holds.
        threshold: tau_ij in the cost's canonical unit.
        weight: lambda_ij, per canonical unit.
        worst: Largest C_ij that is charged; what a stage that was never entered is charged.
        objectives: Some of :data:`OBJECTIVES`.
        description: For people.
        factor: What :func:`adjust_objectives` multiplies the weight of measured costs by; penalties leave it out.
    """

    name: str
    kind: Literal["subgoal", "path"]
    cost: Call | Condition
    aggregate: str
    threshold: float
    weight: float
    worst: float
    objectives: tuple[str, ...]
    description: str = ""
    factor: float = 1.0

    @property
    def unit(self) -> str:
        """Canonical unit of cost, threshold and worst."""
        return self.cost.unit

    @property
    def over_stage(self) -> bool:
        """Whether the cost speaks of the stage as a whole: ``path_length``, ``duration``, formulas over time."""
        if isinstance(self.cost, Call):
            return QUANTITIES[self.cost.word.quantity].per == "stage"
        return self.cost.temporal

    @property
    def of_steps(self) -> bool:
        """Whether it describes steps rather than states, so that the stage's first state has no part in it."""
        return any(QUANTITIES[call.word.quantity].per == "step" for call in self.cost.calls())

    @property
    def max_contribution(self) -> float:
        """Largest contribution to the stage's cost as the specification was written, unit-free."""
        return self.weight * max(0.0, self.worst - self.threshold)


@dataclass(frozen=True)
class Stage:
    """A consecutive part of the task.

    Attributes:
        name: Unique within the specification.
        done_when: The stage ends at its first state where this holds, see :attr:`held_states`.
        constraints: Its costs.
        unfinished: Charged when the stage ends without ``done_when``; None derives it and a value below
            :attr:`max_contribution` is raised to it, see :attr:`penalty`.
        description: For people.
        held_for: Steps for which ``done_when`` must have held: field ``for``.
    """

    name: str
    done_when: Condition
    constraints: tuple[Constraint, ...]
    unfinished: float | None = None
    description: str = ""
    held_for: float = 1.0

    @property
    def held_states(self) -> int:
        """Successive states of the stage at which ``done_when`` must hold; the stage ends at the last of them."""
        return max(1, math.ceil(self.held_for - 1e-6))

    @property
    def end_text(self) -> str:
        """``done_when`` with the states for which it must hold, for people."""
        return str(self.done_when) + (f" for {self.held_states} states" if self.held_states > 1 else "")

    @property
    def max_contribution(self) -> float:
        """Largest cost of the stage when it was finished, as the specification was written."""
        return sum(constraint.max_contribution for constraint in self.constraints)

    @property
    def penalty(self) -> float:
        """Charged when the stage was not finished, unit-free.

        Never less than any finish of the stage can cost: of two recordings that agree up to this stage, the one
        that finished it is the cheaper one. Factors of objectives do not change it: they weigh what happened.
        """
        if self.unfinished is None:
            return self.max_contribution + UNFINISHED_MARGIN
        return max(self.unfinished, self.max_contribution)


@dataclass(frozen=True)
class Outcome:
    """How the episode ended: subgoals evaluated at the last state, whatever the stages did.

    Attributes:
        constraints: Subgoal constraints, e.g. how far the object still is from its goal.
        unfinished: Charged when the task was not solved, unit-free.
    """

    constraints: tuple[Constraint, ...] = ()
    unfinished: float = 1.0


_Part = TypeVar("_Part", Stage, Outcome)


@dataclass(frozen=True)
class KeypointSource:
    """Where one keypoint of a specification comes from.

    Attributes:
        name: What the specification calls it.
        kind: ``"object"``: a simulator's object or place, recorded under the simulator's name. ``"picture"``: a point
            that was numbered on the image shown to a model. ``"track"``: a point that a tracker followed through the
            images, recorded under the tracker's name. ``"mean_of"``: computed from other keypoints.
        recorded: Its name in recordings; empty for ``"mean_of"``.
        number: The number on the image, from 0; None for other kinds.
        mean_of: Names of the specification's keypoints whose mean it is.
        offset: Added to the mean, meters along the world's axes.
        description: For people.
    """

    name: str
    kind: Literal["object", "picture", "track", "mean_of"]
    recorded: str = ""
    number: int | None = None
    mean_of: tuple[str, ...] = ()
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    description: str = ""


def image_keypoint(number: int) -> str:
    """Name under which recordings hold the point with this number on the image, e.g. ``"point_3"``."""
    return f"point_{number}"


@dataclass(frozen=True)
class CostSpecification:
    """Stages and constraints of one task, with weights and thresholds.

    Attributes:
        suite: Suite the names come from; empty if the file does not say.
        task: Task it was written for; empty for any.
        limit: Decisions after which an episode ends without success; durations are fractions of it.
        control_hz: Decisions a second; None if the file does not say.
        keypoints: Keypoints it may speak of, by the names it uses.
        signals: Signals it may speak of.
        stages: In order.
        any_order: Names of the stages of each group that may change places with the others; together they are
            neighbors in ``stages``. Empty where the order is fixed.
        outcome: How the end is judged.
        description: For people.
        sources: Where keypoints come from, for those that say so; the others have the recording's own names.
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
    sources: tuple[KeypointSource, ...] = ()
    any_order: tuple[tuple[str, ...], ...] = ()
    source: str = dataclasses.field(default="", compare=False)

    @property
    def clock(self) -> Clock:
        """How the task's time is counted."""
        return Clock(self.limit, self.control_hz)

    @property
    def recorded_keypoints(self) -> tuple[str, ...]:
        """Names of the keypoints that a recording must hold, in the order of :attr:`keypoints`."""
        sources = {item.name: item for item in self.sources}
        names = (sources[name].recorded if name in sources else name for name in self.keypoints)
        return tuple(dict.fromkeys(name for name in names if name))

    def orders(self) -> tuple[tuple[int, ...], ...]:
        """Orders in which the stages may be done, as positions in :attr:`stages`; the listed one comes first."""
        positions = {stage.name: position for position, stage in enumerate(self.stages)}
        groups = [tuple(positions[name] for name in group) for group in self.any_order]
        free = [position for group in groups for position in group]
        listed = range(len(self.stages))
        before, after = (listed[: free[0]], listed[free[-1] + 1 :]) if free else (listed, range(0))
        return tuple(
            (*before, *itertools.chain.from_iterable(order), *after) for order in itertools.permutations(groups)
        )

    def with_constraints(self, change: Callable[[Constraint], Constraint]) -> "CostSpecification":
        """A copy in which each constraint, those of the outcome included, is changed."""

        def changed(part: _Part) -> _Part:
            return dataclasses.replace(part, constraints=tuple(map(change, part.constraints)))

        return dataclasses.replace(self, stages=tuple(map(changed, self.stages)), outcome=changed(self.outcome))

    def calls(self) -> Iterator[tuple[str, Call]]:
        """Every relation with the place where it is used, e.g. ``("stage 'reach', done_when", ...)``."""
        for stage in self.stages:
            for call in stage.done_when.calls():
                yield f"stage '{stage.name}', done_when", call
            for constraint in stage.constraints:
                for call in constraint.cost.calls():
                    yield f"stage '{stage.name}', constraint '{constraint.name}'", call
        for constraint in self.outcome.constraints:
            for call in constraint.cost.calls():
                yield f"outcome, constraint '{constraint.name}'", call


def specification_to_dict(specification: CostSpecification) -> dict[str, Any]:
    """Everything that shapes the costs, as JSON values in canonical units; descriptions and source are left out."""

    def constraint_value(constraint: Constraint) -> dict[str, Any]:
        return {
            "name": constraint.name,
            "kind": constraint.kind,
            "cost": formula_value(constraint.cost),
            "aggregate": constraint.aggregate,
            "threshold": constraint.threshold,
            "weight": constraint.weight,
            "worst": constraint.worst,
            "unit": constraint.unit,
            "objectives": list(constraint.objectives),
        } | ({} if constraint.factor == 1.0 else {"factor": constraint.factor})

    def formula_value(formula: Call | Condition) -> dict[str, Any]:
        if isinstance(formula, Call):
            return {formula.relation: dict(formula.arguments)}
        if formula.call is not None:
            return formula_value(formula.call)
        return {formula.operator: [formula_value(operand) for operand in formula.operands]}

    def source_value(source: KeypointSource) -> dict[str, Any]:
        value = dataclasses.asdict(source) | {"mean_of": list(source.mean_of), "offset": list(source.offset)}
        return {key: item for key, item in value.items() if key not in ("kind", "number", "description")}

    value = {
        "suite": specification.suite,
        "task": specification.task,
        "limit": specification.limit,
        "control_hz": specification.control_hz,
        "keypoints": sorted(specification.keypoints),
        "signals": sorted(specification.signals),
        "stages": [
            {
                "name": stage.name,
                "done_when": formula_value(stage.done_when),
                "constraints": [constraint_value(constraint) for constraint in stage.constraints],
                "unfinished": stage.penalty,
                **({} if stage.held_states == 1 else {"for": stage.held_states}),
            }
            for stage in specification.stages
        ],
        "outcome": {
            "constraints": [constraint_value(constraint) for constraint in specification.outcome.constraints],
            "unfinished": specification.outcome.unfinished,
        },
    }
    if specification.any_order:
        value["any_order"] = [list(group) for group in specification.any_order]
    if specification.sources:
        value["sources"] = [
            source_value(source) for source in sorted(specification.sources, key=lambda item: item.name)
        ]
    return value


def specification_hash(specification: CostSpecification) -> str:
    """SHA-256 over everything that shapes the costs: changes of wording or of unit spelling keep it."""
    return content_hash(specification_to_dict(specification))


def adjust_objectives(
    specification: CostSpecification,
    weights: Mapping[str, float] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> CostSpecification:
    """The specification with the tagged constraints' weights and thresholds multiplied.

    Weights of costs that are measured on recorded states change. What an unfinished stage, or one that was never
    entered, is charged for that stays as it is, so that objectives weigh what happened.

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
        factor, threshold = constraint.factor, constraint.threshold
        for tag in constraint.objectives:
            factor *= weights.get(tag, 1.0)
            threshold *= thresholds.get(tag, 1.0)
        return dataclasses.replace(
            constraint, factor=factor, threshold=threshold, worst=max(constraint.worst, threshold)
        )

    return specification.with_constraints(adjusted)


def specification_text(specification: CostSpecification) -> str:
    """Stages, conditions and constraints, one a line, in canonical units."""
    title = "/".join(part for part in (specification.suite, specification.task) if part) or specification.source
    lines = [f"{title}: {specification.description}".rstrip(": "), f"limit {specification.limit} steps"]
    for number, stage in enumerate(specification.stages, start=1):
        lines += ["", f"{number}. {stage.name}" + (f": {stage.description}" if stage.description else "")]
        lines.append(f"   done when {stage.end_text}; unfinished costs {stage.penalty:.3g}")
        lines += map(_line_of, stage.constraints)
    if specification.any_order:
        groups = "; ".join(", ".join(group) for group in specification.any_order)
        lines += ["", f"in any order, the cheapest counts: {groups}"]
    lines += ["", f"outcome: a failure costs {specification.outcome.unfinished:.3g}"]
    lines += map(_line_of, specification.outcome.constraints)
    return "\n".join(lines)


def _line_of(constraint: Constraint) -> str:
    how = " ".join(part for part in (constraint.kind, constraint.aggregate) if part)
    tags = ", ".join(constraint.objectives)
    return (
        f"   - {constraint.name} ({how}; {tags}): {constraint.weight * constraint.factor:g} x {constraint.cost} "
        f"above {constraint.threshold:g} {constraint.unit}, at most {constraint.max_contribution:.3g}"
    )
