"""Reads what the tables of :mod:`grape.costs.language` describe from YAML nodes: fields, quantities, formulas."""

import re
from collections.abc import Callable
from typing import Any, cast

import yaml

from grape.core.errors import did_you_mean
from grape.costs import language
from grape.costs.formulas import Call, Condition, Operator
from grape.costs.units import RATE, Clock, UnitMismatchError, parse_quantity, parse_weight
from grape.costs.vocabulary import RELATIONS
from grape.costs.yaml_nodes import Node, NodeReader

__all__ = ["LARGEST", "FieldReader", "MappingReader"]

MAX_RELATIONS = 256
"""Of a formula, each of which is measured at every state."""

LARGEST = 1e6
"""Of quantities in their canonical unit, and of what a constraint can cost: sums of costs stay finite and exact."""

_LARGEST_WEIGHT = 1e12  # canonical time is the step: 1 per m/s2 at 1 kHz is already 1e6 per m/step2

_OPERATORS = {name: item for item in language.COMBINATORS.values() for name in (item.name, item.spelling) if name}


class MappingReader:
    """A mapping of the file: calling it with a field's name reads that field as the language's table says.

    Of alternatives, a field is required that all of them require.
    """

    def __init__(self, reader: "FieldReader", node: Node, where: str, *alternatives: language.Kind) -> None:
        tables = [
            {field.name: field for field in kind.fields} for kind in alternatives if isinstance(kind, language.Fields)
        ]
        self.table = {name: field for table in reversed(tables) for name, field in table.items()}
        required = [name for name in tables[0] if all(name in table and table[name].required for table in tables)]
        self.reader, self.node, self.where = reader, node, where
        self.nodes = reader.mapping(node, where, required, [name for name in self.table if name not in required])

    def __contains__(self, name: str) -> bool:
        return name in self.nodes

    def __call__(self, name: str, unit: str = "") -> Any:
        """Value of a field; its default where it is absent."""
        field = self.table[name]
        if name in self.nodes:
            return self.reader.read(field.kind, self.nodes[name], self.place(name), unit)
        return _stand_in(field.kind) if field.required else field.default

    def items(self, name: str) -> list[tuple[language.Kind, Node, str]]:
        """Kind, node and place of each item of a field that is a list, none where it is absent."""
        kind = self.table[name].kind
        if name not in self.nodes or not isinstance(kind, language.Items):
            return []
        return [(kind.of, node, where) for node, where in self.reader.sequence(self.nodes[name], self.place(name))]

    def place(self, name: str) -> str:
        """What messages call a field."""
        return f"{self.where}.{name}" if self.where else name

    def problem(self, name: str, message: str) -> None:
        """Note what is wrong with a field; with the mapping for the empty name."""
        self.reader.problem(self.nodes.get(name, self.node), self.place(name) if name else self.where, message)


def _stand_in(kind: language.Kind) -> Any:
    """Value of a required field that is missing, whose file is refused."""
    if isinstance(kind, language.Items):
        return ()
    return {language.Amount: 0.0, language.Scalar: 0.0, language.Ref: None}.get(type(kind), "")


class FieldReader(NodeReader):
    """Reads fields; where one is broken, notes why and goes on with a stand-in that is never returned.

    Args:
        constructs: What builds those constructs that fields refer to and that are no formulas.

    Attributes:
        clock: How the task's time is counted, for times and speeds.
    """

    def __init__(self, **constructs: Callable[[Node, str], Any]) -> None:
        super().__init__()
        self.clock = Clock(limit=1, control_hz=1.0)
        self._constructs = constructs

    def read(self, kind: language.Kind, node: Node, where: str, unit: str = "") -> Any:
        """Value of a node of some kind; what is no such value is noted, and something else of the type returned.

        Args:
            kind: What is expected.
            node: Where it stands.
            where: What messages call the place.
            unit: Unit of the constraint's cost, for quantities that have that unit.
        """
        match kind:
            case language.Fields():
                return MappingReader(self, node, where, kind)
            case language.Items(item, needs):
                values = tuple(self.read(item, part, place) for part, place in self.sequence(node, where))
                if needs and isinstance(node, yaml.SequenceNode) and not values:
                    self.problem(node, where, needs)
                return values
            case language.Ref(name):
                return self._defined(name, node, where)
            case language.Scalar("text"):
                quoted = isinstance(node, yaml.ScalarNode) and node.style and not node.value
                return "" if quoted else self.text(node, where)
            case language.Name():
                return self.name(kind, node, where)
            case language.Choice(what, words):
                text = self.text(node, where)
                if text and text not in words:
                    self.problem(node, where, f"unknown {what} {text!r}. {did_you_mean(text, words)[:-1]}")
                return text
            case language.Whole(low, high, refusal):
                text = self.number_or_text(node, where)
                if re.fullmatch(str(low) if low == high else r"\d{1,4}", text, re.ASCII):
                    return int(text)
                if text:
                    self.problem(node, where, refusal.format(text))
                return 0
            case language.Scalar("rate"):
                return self._rate(node, where)
            case language.Scalar():
                return self._parsed(node, where, lambda text: parse_weight(text, unit, self.clock), _LARGEST_WEIGHT)
            case language.Amount():
                return self._amount(kind, node, where, kind.unit or unit)

    def _defined(self, name: str, node: Node, where: str) -> Any:
        if name in language.COSTS:
            return self._cost(node, where)
        if isinstance(language.DEFINITIONS[name], language.Formula):
            return self._formula(node, where, name)
        return self._constructs[name](node, where)

    def fields(self, name: str, node: Node, where: str) -> MappingReader:
        """The fields of a construct that is a mapping."""
        return MappingReader(self, node, where, *cast(tuple[language.Kind, ...], language.DEFINITIONS[name]))

    def name(self, kind: language.Name, node: Node, where: str) -> str:
        """A name; empty with a problem noted where it is none."""
        text = self.text(node, where)
        if text and not re.fullmatch(language.NAME_PATTERN, text, re.ASCII):
            self.problem(node, where, f"{text!r} is no name; letters, digits, '_', '-', '.', starting with a letter")
        if text in kind.reserved:
            self.problem(node, where, f"{text!r} is reserved")
        return text

    def _rate(self, node: Node, where: str) -> float | None:
        text = self.number_or_text(node, where)
        if re.fullmatch(RATE, re.sub(r"\s+", " ", text, flags=re.ASCII), re.ASCII):
            hz = float(text.removesuffix("Hz"))
            if 1e-6 <= hz < 1e6:  # far below, squares of it vanish
                return hz
        if text:
            self.problem(node, where, f"{text!r} is no rate; write e.g. '10 Hz'")
        return None

    def _amount(self, kind: language.Amount, node: Node, where: str, unit: str) -> float:
        before = len(self.problems)
        value = self._parsed(
            node, where, lambda text: parse_quantity(text, unit, self.clock, signed=kind.signed), LARGEST
        )
        if kind.positive and value == 0.0 and len(self.problems) == before:
            self.problem(node, where, "must be greater than zero")
        return value

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

    def _formula(self, node: Node, where: str, kind: str) -> Condition:
        """A formula over relations that say when they hold; ``kind`` is a formula in the language's definitions."""
        entries = self.entries(node, where)
        written = next(iter(entries), "")
        if len(entries) != 1 or written not in _OPERATORS:
            call = self._call(node, where)
            if call is not None and not call.word.bounded:
                self.problem(node, where, f"{call.relation} only measures and never holds; use a relation with a bound")
            return Condition("holds", call or Call("duration"))
        operator, inner, place = _OPERATORS[written], entries[written], f"{where}.{written}"
        definition = cast(language.Formula, language.DEFINITIONS[kind])
        of = (definition.temporal or kind) if operator.temporal else definition.combined
        value = self.read(operator.written(of), inner, place)
        if isinstance(value, MappingReader):
            value = tuple(value(name) for name in operator.operands if name in value)
        operands = value if isinstance(value, tuple) else (value,)
        nested = operator.temporal and any(operand.temporal for operand in operands)
        if nested and not cast(language.Formula, language.DEFINITIONS[of]).temporal:
            self.problem(inner, place, "operators over time cannot stand in each other in 'done_when'")
        return Condition(cast(Operator, operator.name), operands=operands)

    def bounded(self, formula: Condition, node: Node, where: str) -> Condition:
        """The formula, after a note if it has more than :data:`MAX_RELATIONS` relations."""
        count = len(list(formula.calls()))
        if count > MAX_RELATIONS:
            self.problem(node, where, f"has {count} relations; a formula has at most {MAX_RELATIONS}")
        return formula

    def _cost(self, node: Node, where: str) -> Call | Condition | None:
        """What a constraint measures: a relation, or the violation of a formula; None with a problem noted."""
        entries = self.entries(node, where)
        if len(entries) != 1 or next(iter(entries)) not in _OPERATORS:
            return self._call(node, where)
        before = len(self.problems)
        formula = self.bounded(self._formula(node, where, "formula"), node, where)
        if len(self.problems) > before:
            return None
        signals = {name for call in formula.calls() if call.unit == "signal" for name in call.names("signal")}
        if len(signals) > 1 or (signals and formula.unit != "signal"):
            message = f"[unit-mismatch] {sorted(signals)[0]!r} has a unit of its own, which compares with no other"
            self.problem(node, where, f"{message}; write a constraint for each")
            return None
        return formula

    def _call(self, node: Node, where: str) -> Call | None:
        """A relation with its arguments; None with a problem noted where it is none."""
        entries = self.entries(node, where)
        if len(entries) != 1:
            if isinstance(node, yaml.MappingNode):
                self.problem(node, where, f"expected exactly one relation, found {len(entries)}")
            return None
        name, arguments = next(iter(entries.items()))
        if name not in RELATIONS:
            known = did_you_mean(name, [*RELATIONS, *language.COMBINATORS])
            self.problem(node, where, f"unknown relation {name!r}. {known[:-1]}")
            return None
        fields = MappingReader(self, arguments, f"{where}.{name}", language.Fields(RELATIONS[name].parameters))
        return Call(name, tuple((parameter, fields(parameter)) for parameter in fields.table))
