"""Relations with arguments, and formulas of them: what ``done_when`` and a constraint's cost are written in.

A formula combines relations by ``not``, ``all`` and ``any``, and over a stage's time by ``always``, ``eventually`` and
``until``: signal temporal logic without time bounds (Maler & Nickovic 2004, "Monitoring temporal properties of
continuous signals"). :mod:`grape.costs.measurement` tells whether one holds, :mod:`grape.costs.robustness` by how much.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from grape.costs.language import COMBINATORS, Amount, Choice, Name
from grape.costs.units import DEFAULT_WORST, step_factor
from grape.costs.vocabulary import RELATIONS, Relation

__all__ = ["TEMPORAL", "Call", "Condition", "Operator", "as_condition"]

Operator = Literal["holds", "not", "all", "any", "always", "eventually", "until"]

TEMPORAL = tuple(name for name, combinator in COMBINATORS.items() if combinator.temporal)
"""Operators that speak of several states of a stage."""


@dataclass(frozen=True)
class Call:
    """A relation with its arguments.

    Attributes:
        relation: A name in :data:`grape.costs.vocabulary.RELATIONS`.
        arguments: Parameter name and value: a keypoint's, signal's, axis' or frame's name, or a number in canonical
            unit.
    """

    relation: str
    arguments: tuple[tuple[str, str | float], ...] = ()

    @functools.cached_property
    def word(self) -> Relation:
        """The relation's entry in the vocabulary."""
        return RELATIONS[self.relation]

    @property
    def unit(self) -> str:
        """Canonical unit of its cost."""
        return self.word.unit

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
        own = {name: values[renamed.get(name, name)] for name in values if name not in bounds}
        return tuple(sorted((own | dict(self.word.constants)).items()))

    def calls(self) -> Iterator["Call"]:
        """Itself, as the one relation in it."""
        yield self

    def names(self, kind: Literal["keypoint", "signal", "frame"]) -> Iterator[str]:
        """Names of keypoints, signals or frames it speaks of."""
        for name, value in self.arguments:
            holds = self.word.kind(name)
            if isinstance(holds, Name | Choice) and holds.of == kind:
                yield str(value)

    def at_lower_rate(self, held: int) -> "Call":
        """The same bound where a step lasts ``held`` of the former ones: speeds by the step are converted."""

        def converted(name: str, value: str | float) -> str | float:
            kind = self.word.kind(name)
            return float(value) * step_factor(kind.unit, held) if isinstance(kind, Amount) else value

        return Call(self.relation, tuple((name, converted(name, value)) for name, value in self.arguments))

    def __str__(self) -> str:
        kinds = ((name, value, self.word.kind(name)) for name, value in self.arguments)
        values = (
            f"{name} {value:g} {kind.unit}" if isinstance(kind, Amount) else f"{name} {value}"
            for name, value, kind in kinds
        )
        return f"{self.relation}({', '.join(values)})"


@dataclass(frozen=True)
class Condition:
    """A formula: a relation that holds, or a combination.

    Attributes:
        operator: ``"holds"`` (of ``call``); ``"not"``, ``"always"`` and ``"eventually"`` (one operand); ``"all"`` and
            ``"any"``; ``"until"`` (two operands: what holds, until what).
        call: The relation; only for ``"holds"``.
        operands: The combined formulas.
    """

    operator: Operator
    call: Call | None = None
    operands: tuple["Condition", ...] = ()

    @functools.cached_property
    def temporal(self) -> bool:
        """Whether it speaks of several states."""
        return self.operator in TEMPORAL or any(operand.temporal for operand in self.operands)

    @functools.cached_property
    def unit(self) -> str:
        """Unit of its robustness: that of its relations where they share one, else ``"ratio"``, see :meth:`scale`."""
        units = {call.unit for call in self.calls()}
        return units.pop() if len(units) == 1 else "ratio"

    def scale(self, call: Call) -> float:
        """What one of the formula's unit is in the unit of a relation in it.

        In a formula of several units each margin is divided by what :data:`grape.costs.units.DEFAULT_WORST` charges
        at most in its unit, so that margins of different kinds can be compared.
        """
        return 1.0 if self.unit == call.unit else DEFAULT_WORST[call.unit]

    def calls(self) -> Iterator[Call]:
        """All relations in it, from left to right."""
        if self.call is not None:
            yield self.call
        for operand in self.operands:
            yield from operand.calls()

    def at_lower_rate(self, held: int) -> "Condition":
        """The same formula with the bounds of its relations converted, see :meth:`Call.at_lower_rate`."""
        call = None if self.call is None else self.call.at_lower_rate(held)
        return Condition(self.operator, call, tuple(operand.at_lower_rate(held) for operand in self.operands))

    def __str__(self) -> str:
        if self.call is not None:
            return str(self.call)
        if self.operator == "until":
            return f"({self.operands[0]} until {self.operands[1]})"
        if self.operator in ("not", "always", "eventually"):
            return f"{self.operator} {self.operands[0]}"
        return "(" + (" and " if self.operator == "all" else " or ").join(map(str, self.operands)) + ")"


def as_condition(cost: Call | Condition) -> Condition | None:
    """When a cost is zero before its threshold, as a condition; None for relations that only measure."""
    if isinstance(cost, Condition):
        return cost
    return Condition("holds", cost) if cost.word.bounded else None
