"""Reads names, quantities, relations and formulas from YAML nodes."""

import re
from collections.abc import Callable
from typing import cast

import yaml

from grape.core.errors import did_you_mean
from grape.costs.formulas import COMBINATORS, TEMPORAL, Call, Condition, Operator
from grape.costs.units import Clock, UnitMismatchError, parse_quantity, parse_weight
from grape.costs.vocabulary import AXES, FRAMES, RELATIONS, Parameter, Relation
from grape.costs.yaml_nodes import Node, NodeReader

__all__ = ["LARGEST", "MAX_RELATIONS", "FormulaReader"]

LARGEST = 1e6
"""Of quantities in their canonical unit, and of what a constraint can cost: sums of costs stay finite and exact."""

MAX_RELATIONS = 256
"""Of a formula, each of which is measured at every state."""

_LARGEST_WEIGHT = 1e12  # canonical time is the step: 1 per m/s2 at 1 kHz is already 1e6 per m/step2

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}", re.ASCII)  # LIBERO names its tasks by whole sentences
_SPELLINGS = {"and": "all", "or": "any"}
_CHOICES = {"axis": AXES, "frame": FRAMES}


class FormulaReader(NodeReader):
    """Builds formulas; where one is broken, notes why and goes on with a stand-in that is never returned.

    Attributes:
        clock: How the task's time is counted, for times and speeds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(limit=1, control_hz=1.0)

    def name(self, node: Node, where: str) -> str:
        """A name of the language; empty with a problem noted where it is none."""
        text = self.text(node, where)
        if text and not _NAME.fullmatch(text):
            self.problem(node, where, f"{text!r} is no name; letters, digits, '_', '-', '.', starting with a letter")
        return text

    def formula(self, node: Node, where: str, *, ahead: bool = False) -> Condition:
        """A formula over relations that say when they hold.

        Args:
            node: The formula.
            where: Its place.
            ahead: Operators over time may stand in each other, since the whole stage is known.
        """
        entries = self.entries(node, where)
        written = next(iter(entries), "")
        operator = _SPELLINGS.get(written, written)
        if len(entries) != 1 or operator not in COMBINATORS:
            call = self.call(node, where, extra=COMBINATORS)
            if call is not None and not call.word.bounded:
                self.problem(node, where, f"{call.relation} only measures and never holds; use a relation with a bound")
            return Condition("holds", call or Call("duration"))
        inner, place = entries[written], f"{where}.{written}"
        if operator == "until":
            fields = self.mapping(inner, place, required=("hold", "reach"))
            names = [name for name in ("hold", "reach") if name in fields]
            operands = tuple(self.formula(fields[name], f"{place}.{name}", ahead=ahead) for name in names)
        elif operator in ("all", "any"):
            operands = tuple(self.formula(item, spot, ahead=ahead) for item, spot in self.sequence(inner, place))
            if not operands and isinstance(inner, yaml.SequenceNode):
                self.problem(inner, place, "needs at least one condition")
        else:
            operands = (self.formula(inner, place, ahead=ahead),)
        if operator in TEMPORAL and not ahead and any(operand.temporal for operand in operands):
            self.problem(inner, place, "operators over time cannot stand in each other in 'done_when'")
        return Condition(cast(Operator, operator), operands=operands)

    def bounded_formula(self, node: Node, where: str, *, ahead: bool = False) -> Condition:
        """As :meth:`formula`, of at most :data:`MAX_RELATIONS` relations; more are noted."""
        formula = self.formula(node, where, ahead=ahead)
        count = len(list(formula.calls()))
        if count > MAX_RELATIONS:
            self.problem(node, where, f"has {count} relations; a formula has at most {MAX_RELATIONS}")
        return formula

    def cost(self, node: Node, where: str) -> Call | Condition | None:
        """What a constraint measures: a relation, or the violation of a formula; None with a problem noted."""
        entries = self.entries(node, where)
        written = next(iter(entries), "")
        if len(entries) != 1 or _SPELLINGS.get(written, written) not in COMBINATORS:
            return self.call(node, where, extra=COMBINATORS)
        before = len(self.problems)
        formula = self.bounded_formula(node, where, ahead=True)
        if len(self.problems) > before:
            return None
        signals = {name for call in formula.calls() if call.unit == "signal" for name in call.names("signal")}
        if len(signals) > 1 or (signals and formula.unit != "signal"):
            message = f"[unit-mismatch] {sorted(signals)[0]!r} has a unit of its own, which compares with no other"
            self.problem(node, where, f"{message}; write a constraint for each")
            return None
        return formula

    def call(self, node: Node, where: str, extra: tuple[str, ...] = ()) -> Call | None:
        """A relation with its arguments; None with a problem noted where it is none."""
        entries = self.entries(node, where)
        if len(entries) != 1:
            if isinstance(node, yaml.MappingNode):
                self.problem(node, where, f"expected exactly one relation, found {len(entries)}")
            return None
        name, arguments_node = next(iter(entries.items()))
        if name not in RELATIONS:
            self.problem(node, where, f"unknown relation {name!r}. {did_you_mean(name, [*RELATIONS, *extra])[:-1]}")
            return None
        return self._arguments(RELATIONS[name], arguments_node, f"{where}.{name}")

    def _arguments(self, relation: Relation, node: Node, where: str) -> Call:
        required = [parameter.name for parameter in relation.parameters if parameter.default is None]
        optional = [parameter.name for parameter in relation.parameters if parameter.default is not None]
        fields = self.mapping(node, where, required, optional)
        arguments: list[tuple[str, str | float]] = []
        for parameter in relation.parameters:
            place = f"{where}.{parameter.name}"
            if parameter.name not in fields:
                arguments.append((parameter.name, 0.0 if parameter.default is None else parameter.default))
                continue
            value_node = fields[parameter.name]
            if parameter.kind == "quantity":
                value = self.quantity(value_node, place, parameter.unit)
                if parameter.positive and value == 0.0 and not self._noted(place):
                    self.problem(value_node, place, "must be greater than zero")
                arguments.append((parameter.name, value))
                continue
            arguments.append((parameter.name, self._word(parameter, value_node, place)))
        return Call(relation.name, tuple(arguments))

    def _word(self, parameter: Parameter, node: Node, where: str) -> str:
        if parameter.kind not in _CHOICES:
            return self.name(node, where)
        choices, text = _CHOICES[parameter.kind], self.text(node, where)
        if text and text not in choices:
            article = "an" if parameter.kind == "axis" else "a"
            self.problem(node, where, f"{text!r} is not {article} {parameter.kind}; one of {', '.join(choices)}")
        return text

    def _noted(self, where: str) -> bool:
        """Whether the last problem was this field's."""
        return bool(self.problems) and self.problems[-1][1] == where

    def quantity(self, node: Node, where: str, unit: str, *, signed: bool = False) -> float:
        """A quantity in the canonical unit; 0 with a problem noted where it is none."""
        return self._parsed(node, where, lambda text: parse_quantity(text, unit, self.clock, signed=signed), LARGEST)

    def weight(self, node: Node, where: str, unit: str) -> float:
        """A weight of costs in the canonical unit; 0 with a problem noted where it is none."""
        return self._parsed(node, where, lambda text: parse_weight(text, unit, self.clock), _LARGEST_WEIGHT)

    def _parsed(self, node: Node, where: str, parse: Callable[[str], float], largest: float) -> float:
        text = self.number_or_text(node, where)
        if text:
            try:
                value = parse(text)
                if abs(value) <= largest:
                    return value
                self.problem(node, where, f"{text!r} is too large; at most {largest:g} in the canonical unit")
            except UnitMismatchError as error:
                self.problem(node, where, f"[unit-mismatch] {error}")
            except ValueError as error:
                self.problem(node, where, str(error))
        return 0.0
