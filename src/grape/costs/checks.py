"""Static checks: what is wrong with a specification before any trajectory is looked at.

A finding is an error where the specification cannot mean what its author wanted, else a warning. Contradictions and
implications are those of :mod:`grape.costs.logic`.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from grape.core.errors import DataError, did_you_mean
from grape.costs.formulas import Call, Condition, as_condition
from grape.costs.logic import always, contradicts, leads
from grape.costs.specification import Constraint, CostSpecification, Stage
from grape.costs.vocabulary import QUANTITIES

__all__ = ["Finding", "check_specification", "find_problems"]


@dataclass(frozen=True)
class Finding:
    """Something found by a static check.

    Attributes:
        code: Stable name of the check, e.g. ``"unknown-keypoint"``.
        where: Place in the specification.
        message: One sentence.
        error: Whether the specification is unusable; otherwise a warning.
    """

    code: str
    where: str
    message: str
    error: bool = True

    def __str__(self) -> str:
        return f"[{self.code}] {self.where}: {self.message}"


def check_specification(
    specification: CostSpecification, keypoints: Collection[str], signals: Collection[str], camera: bool | None = None
) -> None:
    """Refuse a specification that cannot be evaluated as meant on recordings with these names.

    Args:
        specification: What to check.
        keypoints: Names of the recorded keypoints.
        signals: Names of the recorded signals.
        camera: Whether the recordings note their camera; None if unknown.

    Raises:
        DataError: There are errors; all are listed, unknown names with the closest known ones.
    """
    errors = [finding for finding in find_problems(specification, keypoints, signals, camera) if finding.error]
    if errors:
        count = len(errors)
        listing = "".join(f"\n  {finding}" for finding in errors)
        raise DataError(
            f"Cost specification {specification.source or specification.task} has {count} "
            f"problem{'s' if count > 1 else ''}:{listing}",
            "Fix the file; docs/costs.md explains each code.",
        )


def find_problems(
    specification: CostSpecification,
    keypoints: Collection[str] | None = None,
    signals: Collection[str] | None = None,
    camera: bool | None = None,
) -> tuple[Finding, ...]:
    """All findings of the static checks, in the order of the file.

    Args:
        specification: What to check.
        keypoints: Recorded keypoints; None leaves out the comparison with a recording.
        signals: Recorded signals; None likewise.
        camera: Whether the recordings note their camera; None likewise.
    """
    orders = [[specification.stages[position] for position in order] for order in specification.orders()]
    return (
        *_name_findings(specification, keypoints, signals),
        *(_frame_findings(specification) if camera is False else ()),
        *_persistence_findings(specification),
        *dict.fromkeys(finding for stages in orders for finding in _stage_findings(stages)),
        *dict.fromkeys(finding for stages in orders for finding in _grasp_findings(specification, stages)),
        *_constraint_findings(specification),
    )


def _name_findings(
    specification: CostSpecification, keypoints: Collection[str] | None, signals: Collection[str] | None
) -> Iterator[Finding]:
    for kind, declared, recorded in (
        ("keypoint", specification.keypoints, keypoints),
        ("signal", specification.signals, signals),
    ):
        used: set[str] = set()
        for where, call in specification.calls():
            for name in call.names("keypoint" if kind == "keypoint" else "signal"):
                if name not in declared and name not in used:
                    message = f"{kind} {name!r} is not listed under '{kind}s'. {did_you_mean(name, declared)}"
                    yield Finding(f"undeclared-{kind}", where, message)
                used.add(name)
        for name in declared:
            if recorded is not None and name not in recorded:
                message = f"{kind} {name!r} is not recorded. {did_you_mean(name, recorded)}"
                yield Finding(f"unknown-{kind}", f"{kind}s", message)
            if name not in used:
                yield Finding(f"unused-{kind}", f"{kind}s", f"{kind} {name!r} is listed but not used.", error=False)


def _frame_findings(specification: CostSpecification) -> Iterator[Finding]:
    """Of recordings that note no camera."""
    for where, call in specification.calls():
        if dict(call.arguments).get("frame") == "camera":
            yield Finding("unknown-frame", where, "frame 'camera' is not recorded: no camera is noted. Use 'world'.")


def _persistence_findings(specification: CostSpecification) -> Iterator[Finding]:
    for stage in specification.stages:
        if stage.held_states > specification.limit + 1:
            most = specification.limit + 1
            message = f"asks for {stage.held_states} states in a row; an episode has at most {most}."
            yield Finding("unreachable-stage", f"stage '{stage.name}', for", message)


def _stage_findings(stages: Sequence[Stage]) -> Iterator[Finding]:
    """Findings on stages that are done in this order."""
    seen: set[str] = set()
    succeeded = Condition("holds", Call("succeeded", (("signal", "success"),)))
    for number, stage in enumerate(stages):
        where = f"stage '{stage.name}'"
        if stage.name in seen:
            yield Finding("duplicate-stage", where, "an earlier stage has the same name.")
        seen.add(stage.name)
        if contradicts(stage.done_when):
            message = f"{stage.done_when} can never hold: the stage cannot end and later stages are unreachable."
            yield Finding("unreachable-stage", f"{where}, done_when", message)
            continue
        if always(stage.done_when):
            yield Finding("empty-stage", f"{where}, done_when", f"{stage.done_when} always holds.")
        elif number and leads(stages[number - 1].done_when, stage.done_when):
            message = f"holds whenever stage '{stages[number - 1].name}' ends, so the stage ends where it starts."
            yield Finding("empty-stage", f"{where}, done_when", message)
        for before in range(number - 1):
            between = stages[before + 1 : number]
            if leads(stages[before].done_when, stage.done_when) and not any(
                contradicts(other.done_when, stage.done_when) for other in between
            ):
                message = f"holds whenever stage '{stages[before].name}' ends, long before this stage's turn."
                yield Finding("stage-out-of-order", f"{where}, done_when", message, error=False)
                break
        if number < len(stages) - 1 and leads(stage.done_when, succeeded):
            message = "success ends all stages, so the later ones are never entered on their own account."
            yield Finding("stage-after-success", f"{where}, done_when", message)


def _constraint_findings(specification: CostSpecification) -> Iterator[Finding]:
    tags: set[str] = set()
    for where, call in specification.calls():
        arguments = dict(call.arguments)
        pairs = [(arguments.get(one), arguments.get(other)) for one, other in (("of", "to"), ("base", "tip"))]
        if any(one is not None and one == other for one, other in pairs):
            yield Finding("self-comparison", where, f"{call} compares a keypoint with itself and is constant.")
    yield from _subgoal_findings(specification)
    places = [(f"stage '{stage.name}'", stage.constraints) for stage in specification.stages]
    for place, constraints in [*places, ("outcome", specification.outcome.constraints)]:
        for constraint in constraints:
            tags.update(constraint.objectives)
            named = f"{place}, constraint '{constraint.name}'"
            if reason := _never_binds(constraint):
                yield Finding("never-binds", named, f"never costs: {reason}.")
            elif _never_holds(constraint.cost):
                yield Finding("never-holds", named, f"{constraint.cost} can never hold: it costs in every recording.")
    for tag in ("safety", "efficiency"):
        if tag not in tags:
            message = f"no constraint is tagged {tag!r}, so that objective cannot be weighted."
            yield Finding("objective-without-constraint", "constraints", message, error=False)


def _subgoal_findings(specification: CostSpecification) -> Iterator[Finding]:
    for stage in specification.stages:
        for constraint in stage.constraints:
            condition = as_condition(constraint.cost)
            if constraint.kind == "path" or condition is None or contradicts(condition) or contradicts(stage.done_when):
                continue
            if contradicts(stage.done_when, condition):
                where = f"stage '{stage.name}', constraint '{constraint.name}'"
                message = f"{constraint.cost} cannot hold where the stage is done ({stage.done_when})."
                yield Finding("subgoal-contradicts-end", where, message)


def _never_holds(cost: Call | Condition) -> bool:
    condition = as_condition(cost)
    return condition is not None and contradicts(condition)


def _never_binds(constraint: Constraint) -> str:
    """Why the constraint's contribution is zero for every recording; empty if it can bind."""
    if constraint.weight == 0.0:
        return "its weight is zero"
    if constraint.threshold >= constraint.worst:
        return f"its threshold {constraint.threshold:g} {constraint.unit} is not below worst {constraint.worst:g}"
    if isinstance(constraint.cost, Condition):
        return f"{constraint.cost} always holds" if always(constraint.cost) else ""
    quantity = QUANTITIES[constraint.cost.word.quantity]
    low, high = constraint.cost.bounds
    largest = quantity.high
    if math.isfinite(high):
        largest = quantity.high - high
    elif math.isfinite(low):
        largest = low - quantity.low
    if constraint.threshold >= largest:
        return f"{constraint.cost} costs at most {max(0.0, largest):g} {constraint.unit}"
    return ""


def _grasp_findings(specification: CostSpecification, stages: Sequence[Stage]) -> Iterator[Finding]:
    """Grasps and releases that contradict each other in this order, by the signal that says whether something is held.

    Relation ``released`` serves for other flags as well (a collision that is over), so a signal counts where
    ``grasped`` is used with it or where its name says so.
    """
    flags = [(call.relation, name) for _, call in specification.calls() for name in call.names("signal")]
    signals = dict.fromkeys(
        name
        for relation, name in flags
        if relation == "grasped" or (relation == "released" and name.startswith("grasped"))
    )
    for signal in signals:
        yield from _findings_of_signal(stages, signal)


def _findings_of_signal(stages: Sequence[Stage], signal: str) -> Iterator[Finding]:
    held = Condition("holds", Call("grasped", (("signal", signal),)))
    free = Condition("holds", Call("released", (("signal", signal),)))
    known = "free"  # nothing is held when an episode begins
    awaited = False
    for stage in stages:
        where = f"stage '{stage.name}'"
        if not awaited and leads(free, stage.done_when) and not always(stage.done_when):
            message = f"waits for a release ({stage.done_when}), but no stage before it waits for a grasp."
            yield Finding("grasp-inconsistency", f"{where}, done_when", message)
        after = "held" if leads(stage.done_when, held) else "free" if leads(stage.done_when, free) else "unknown"
        for constraint in stage.constraints:
            if reason := _impossible_path(constraint, known, after, held, free):
                yield Finding("grasp-inconsistency", f"{where}, constraint '{constraint.name}'", reason, error=False)
        known = after
        awaited |= any(
            call.relation == "grasped" and signal in call.names("signal") for call in stage.done_when.calls()
        )


def _impossible_path(constraint: Constraint, before: str, after: str, held: Condition, free: Condition) -> str:
    """Why a path constraint cannot hold throughout a stage between two states of the grasp; empty if it can."""
    condition = as_condition(constraint.cost)
    if constraint.kind != "path" or condition is None or condition.temporal:
        return ""
    if before == after == "held" and contradicts(condition, held):
        return f"{constraint.cost} cannot hold: the object is held when the stage begins and when it ends."
    if before == "free" and contradicts(condition, free) and after in ("held", "free"):
        return f"{constraint.cost} cannot hold: nothing is held yet when the stage begins."
    return ""
