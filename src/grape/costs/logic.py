"""What conditions imply: contradictions found by intersecting intervals, without looking at data.

Conditions are bounds on quantities (see :mod:`grape.costs.vocabulary`). A condition's disjunctive normal form is a list
of clauses, each a table of the intervals that it allows to quantities; a clause is impossible where an interval is
empty. Operators over time are read as what they say of the present state, so that nothing possible is ever called
impossible.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

from grape.costs.formulas import TEMPORAL, Call, Condition
from grape.costs.vocabulary import QUANTITIES

__all__ = ["always", "contradicts", "leads"]

MAX_CLAUSES = 512
"""Conditions with a larger normal form are not analyzed."""

_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


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


def contradicts(*conditions: Condition) -> bool:
    """Whether no state satisfies all conditions at once, as far as intervals can tell."""
    clauses = _clauses(Condition("all", operands=conditions))
    return clauses is not None and all(map(_impossible, clauses))


def always(condition: Condition) -> bool:
    """Whether every state satisfies the condition, as far as intervals can tell."""
    return contradicts(Condition("not", operands=(condition,)))


def leads(first: Condition, second: Condition) -> bool:
    """Whether ``first`` can hold and ``second`` holds wherever it does."""
    return not contradicts(first) and contradicts(first, Condition("not", operands=(second,)))
