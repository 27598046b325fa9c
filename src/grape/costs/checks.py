"""Static checks: what is wrong with a specification before any trajectory is looked at.

Conditions are bounds on quantities (see :mod:`grape.costs.vocabulary`), so contradictions and implications between
them are found by intersecting intervals over the condition's disjunctive normal form. A finding is an error where
the specification cannot mean what its author wanted, else a warning.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from grape.core.errors import DataError, did_you_mean
from grape.costs.formulas import TEMPORAL, Call, Condition
from grape.costs.specification import Constraint, CostSpecification
from grape.costs.vocabulary import QUANTITIES

__all__ = ["Finding", "check_specification", "find_problems"]

MAX_CLAUSES = 512
"""Conditions with a larger normal form are not analysed."""

_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


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


def check_specification(specification: CostSpecification, keypoints: Collection[str], signals: Collection[str]) -> None:
    """Refuse a specification that cannot be evaluated as meant on recordings with these names.

    Args:
        specification: What to check.
        keypoints: Names of the recorded keypoints.
        signals: Names of the recorded signals.

    Raises:
        DataError: There are errors; all are listed, unknown names with the closest known ones.
    """
    errors = [finding for finding in find_problems(specification, keypoints, signals) if finding.error]
    if errors:
        count = len(errors)
        listing = "".join(f"\n  {finding}" for finding in errors)
        raise DataError(
            f"Cost specification {specification.source or specification.task} has {count} "
            f"problem{'s' if count > 1 else ''}:{listing}",
            "Mend the file; docs/costs.md explains each code.",
        )


def find_problems(
    specification: CostSpecification, keypoints: Collection[str] | None = None, signals: Collection[str] | None = None
) -> tuple[Finding, ...]:
    """All findings of the static checks, in the order of the file.

    Args:
        specification: What to check.
        keypoints: Recorded keypoints; None leaves out the comparison with a recording.
        signals: Recorded signals; None likewise.
    """
    return (
        *_name_findings(specification, keypoints, signals),
        *_stage_findings(specification),
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


def _stage_findings(specification: CostSpecification) -> Iterator[Finding]:
    seen: set[str] = set()
    stages = specification.stages
    succeeded = Condition("holds", Call("succeeded", (("signal", "success"),)))
    for number, stage in enumerate(stages):
        where = f"stage '{stage.name}'"
        if stage.name in seen:
            yield Finding("duplicate-stage", where, "an earlier stage has the same name.")
        seen.add(stage.name)
        if _contradicts(stage.done_when):
            message = f"{stage.done_when} can never hold: the stage cannot end and later stages are unreachable."
            yield Finding("unreachable-stage", f"{where}, done_when", message)
            continue
        if _always(stage.done_when):
            yield Finding("empty-stage", f"{where}, done_when", f"{stage.done_when} always holds.")
        elif number and _leads(stages[number - 1].done_when, stage.done_when):
            message = f"holds whenever stage '{stages[number - 1].name}' ends, so the stage ends where it starts."
            yield Finding("empty-stage", f"{where}, done_when", message)
        if number < len(stages) - 1 and _leads(stage.done_when, succeeded):
            message = "success ends all stages, so the later ones are never entered on their own account."
            yield Finding("stage-after-success", f"{where}, done_when", message)


def _constraint_findings(specification: CostSpecification) -> Iterator[Finding]:
    tags: set[str] = set()
    for where, call in specification.calls():
        arguments = dict(call.arguments)
        if "to" in arguments and arguments.get("of") == arguments["to"]:
            yield Finding("self-comparison", where, f"{call} compares a keypoint with itself and is constant.")
    places = [(f"stage '{stage.name}'", stage.constraints) for stage in specification.stages]
    for place, constraints in [*places, ("outcome", specification.outcome.constraints)]:
        for constraint in constraints:
            tags.update(constraint.objectives)
            reason = _never_binds(constraint)
            if reason:
                yield Finding("never-binds", f"{place}, constraint '{constraint.name}'", f"never costs: {reason}.")
    for tag in ("safety", "efficiency"):
        if tag not in tags:
            message = f"no constraint is tagged {tag!r}, so that objective cannot be weighted."
            yield Finding("objective-without-constraint", "constraints", message, error=False)


def _never_binds(constraint: Constraint) -> str:
    """Why the constraint's contribution is zero for every recording; empty if it can bind."""
    if constraint.weight == 0.0:
        return "its weight is zero"
    if constraint.threshold >= constraint.worst:
        return f"its threshold {constraint.threshold:g} {constraint.unit} is not below worst {constraint.worst:g}"
    if isinstance(constraint.cost, Condition):
        return f"{constraint.cost} always holds" if _always(constraint.cost) else ""
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


@dataclass(frozen=True)
class _Interval:
    low: float
    high: float
    low_open: bool = False
    high_open: bool = False

    @property
    def empty(self) -> bool:
        return self.low > self.high or (self.low == self.high and (self.low_open or self.high_open))

    def meet(self, other: "_Interval") -> "_Interval":
        low, high = max(self.low, other.low), min(self.high, other.high)
        return _Interval(
            low,
            high,
            (self.low_open and self.low == low) or (other.low_open and other.low == low),
            (self.high_open and self.high == high) or (other.high_open and other.high == high),
        )

    @property
    def mirrored(self) -> "_Interval":
        return _Interval(-self.high, -self.low, self.high_open, self.low_open)


_Clause: TypeAlias = dict[_Key, _Interval]


def _literal(call: Call, positive: bool) -> _Clause:
    """The quantity a relation bounds, and the values it allows."""
    quantity = QUANTITIES[call.word.quantity]
    low, high = call.bounds
    if positive:
        interval = _Interval(low, high)
    elif math.isinf(low):
        interval = _Interval(1.0, math.inf) if quantity.whole else _Interval(high, math.inf, low_open=True)
    else:
        interval = _Interval(-math.inf, 0.0) if quantity.whole else _Interval(-math.inf, low, high_open=True)
    interval = interval.meet(_Interval(quantity.low, quantity.high))
    names = {name: str(value) for name, value in call.measured}
    if quantity.name == "offset" and names["axis"].startswith("-"):
        names |= {"of": names["to"], "to": names["of"], "axis": names["axis"][1:]}
    if quantity.mirrored and names["of"] > names["to"]:
        names["of"], names["to"] = names["to"], names["of"]
        interval = interval.mirrored if quantity.mirrored < 0 else interval
    return {(quantity.name, tuple(sorted(names.items()))): interval}


def _merge(left: _Clause, right: _Clause) -> _Clause:
    merged = dict(left)
    for key, interval in right.items():
        merged[key] = merged[key].meet(interval) if key in merged else interval
    return merged


def _clauses(condition: Condition, positive: bool = True) -> list[_Clause] | None:
    """Disjunctive normal form; None where it grows beyond :data:`MAX_CLAUSES`."""
    if condition.call is not None:
        return [_literal(condition.call, positive)]
    if condition.operator == "not":
        return _clauses(condition.operands[0], not positive)
    if condition.operator == ("always" if positive else "eventually"):
        return _clauses(condition.operands[0], positive)  # at every state, so also at this one
    if condition.operator in TEMPORAL:  # at some other state: says nothing of this one, unless it can never be
        part = _clauses(condition.operands[-1], positive)
        never = part is not None and all(map(_impossible, part)) and (positive or condition.operator != "until")
        return part if never else [{}]
    parts = [_clauses(operand, positive) for operand in condition.operands]
    result: list[_Clause] = []
    if (condition.operator == "any") == positive:
        for part in parts:
            if part is None or len(result) + len(part) > MAX_CLAUSES:
                return None
            result.extend(part)
        return result
    result = [{}]
    for part in parts:
        if part is None or len(result) * len(part) > MAX_CLAUSES:
            return None
        result = [_merge(left, right) for left in result for right in part]
    return result


def _impossible(clause: _Clause) -> bool:
    """Whether no state satisfies the clause; a bound on a distance also bounds its horizontal and vertical parts."""
    widened = clause
    for (quantity, names), interval in clause.items():
        if quantity == "distance" and math.isfinite(interval.high):
            reach = interval.high
            for part in ("distance_xy", "distance_z"):
                widened = _merge(widened, {(part, names): _Interval(0.0, reach)})
            widened = _merge(widened, {("height", names): _Interval(-reach, reach)})
            for axis in ("x", "y", "z"):
                along: _Key = ("offset", tuple(sorted((*names, ("axis", axis)))))
                widened = _merge(widened, {along: _Interval(-reach, reach)})
    return any(interval.empty for interval in widened.values())


def _contradicts(*conditions: Condition) -> bool:
    """Whether no state satisfies all conditions at once, as far as intervals can tell."""
    clauses = _clauses(Condition("all", operands=conditions))
    return clauses is not None and all(map(_impossible, clauses))


def _always(condition: Condition) -> bool:
    """Whether every state satisfies the condition, as far as intervals can tell."""
    return _contradicts(Condition("not", operands=(condition,)))


def _leads(first: Condition, second: Condition) -> bool:
    """Whether ``first`` can hold and ``second`` holds wherever it does."""
    return not _contradicts(first) and _contradicts(first, Condition("not", operands=(second,)))
