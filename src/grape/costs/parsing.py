"""From the YAML of a specification to :class:`~grape.costs.specification.CostSpecification`, strictly.

All problems of a file are collected and reported together, each with its line and field.
"""

import re
from pathlib import Path
from typing import Literal, cast

import yaml

from grape.core.errors import DataError, did_you_mean
from grape.costs.specification import (
    AGGREGATIONS,
    OBJECTIVES,
    Call,
    Condition,
    Constraint,
    CostSpecification,
    Outcome,
    Stage,
)
from grape.costs.units import DEFAULT_WORST, Clock, parse_quantity, parse_weight
from grape.costs.vocabulary import AXES, QUANTITIES, RELATIONS, Relation
from grape.costs.yaml_nodes import Node, NodeReader, compose

__all__ = ["LANGUAGE_VERSION", "RESERVED_NAMES", "load_specification", "parse_specification"]

LANGUAGE_VERSION = "1"

RESERVED_NAMES = ("done", "success", "outcome")
"""Names that the evaluation gives to its own entries."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}", re.ASCII)  # LIBERO names its tasks by whole sentences
_COMBINATORS = ("not", "all", "any")
_KINDS = ("subgoal", "path")
_FALLBACK_CLOCK = Clock(limit=1, control_hz=1.0)


def load_specification(path: Path) -> CostSpecification:
    """Read a specification from a YAML (or JSON) file.

    Raises:
        DataError: The file is missing or is no valid specification; all problems are listed with line and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"Cost specification {path} does not exist.", "Check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cost specification {path} cannot be read: {error}.") from error
    return parse_specification(text, str(path))


def parse_specification(text: str, source: str) -> CostSpecification:
    """Parse a specification.

    Args:
        text: YAML.
        source: What messages call it, e.g. its path.

    Raises:
        DataError: As :func:`load_specification`.
    """
    reader = _SpecificationReader()
    specification = reader.specification(compose(text, source), source)
    if reader.problems:
        count = len(reader.problems)
        ordered = sorted(reader.problems, key=lambda problem: problem[0])
        listing = "".join(f"\n  line {line}, {where}: {message}." for line, where, message in ordered)
        raise DataError(
            f"{source} is no valid cost specification, {count} problem{'s' if count > 1 else ''}:{listing}",
            "See docs/costs.md for the language.",
        )
    return specification


class _SpecificationReader(NodeReader):
    """Builds the parts; where one is broken, notes why and goes on with a stand-in that is never returned."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = _FALLBACK_CLOCK

    def specification(self, root: Node, source: str) -> CostSpecification:
        fields = self.mapping(
            root,
            "",
            required=("version", "limit", "keypoints", "signals", "stages"),
            optional=("suite", "task", "description", "control_hz", "every_stage", "outcome"),
        )
        version = self.number_or_text(fields["version"], "version") if "version" in fields else ""
        if version not in ("", LANGUAGE_VERSION):
            self.problem(fields["version"], "version", f"{version} is not known; this is {LANGUAGE_VERSION}")
        hz = self._control_hz(fields["control_hz"]) if "control_hz" in fields else None
        self.clock = Clock(self._limit(fields["limit"], hz) if "limit" in fields else 1, hz)
        common: tuple[Constraint, ...] = ()
        if "every_stage" in fields:
            common = self._constraints(self.mapping(fields["every_stage"], "every_stage", (), _KINDS), "every_stage")
        stages = []
        for node, where in self.sequence(fields["stages"], "stages") if "stages" in fields else []:
            stages.append(self._stage(node, where, common))
        if "stages" in fields and not stages:
            self.problem(fields["stages"], "stages", "at least one stage is needed")
        return CostSpecification(
            suite=self._name(fields["suite"], "suite") if "suite" in fields else "",
            task=self._name(fields["task"], "task") if "task" in fields else "",
            limit=self.clock.limit,
            control_hz=self.clock.control_hz,
            keypoints=self._names(fields, "keypoints"),
            signals=self._names(fields, "signals"),
            stages=tuple(stages),
            outcome=self._outcome(fields["outcome"]) if "outcome" in fields else Outcome(),
            description=self.text(fields["description"], "description") if "description" in fields else "",
            source=source,
        )

    def _control_hz(self, node: Node) -> float | None:
        text = self.number_or_text(node, "control_hz")
        match = re.fullmatch(r"(\d+\.?\d*)(?:\s*Hz)?", text, re.ASCII)
        if match is not None and 0.0 < float(match[1]) < 1e6:
            return float(match[1])
        if text:
            self.problem(node, "control_hz", f"{text!r} is no rate; write e.g. '10 Hz'")
        return None

    def _limit(self, node: Node, hz: float | None) -> int:
        steps = self._quantity(node, "limit", "steps", Clock(1, hz))
        if steps < 1.0 or abs(steps - round(steps)) > 1e-6 or steps > 1e6:
            if steps:
                self.problem(node, "limit", "must be a whole number of steps, at least 1")
            return 1
        return round(steps)

    def _name(self, node: Node, where: str) -> str:
        text = self.text(node, where)
        if text and not _NAME.fullmatch(text):
            self.problem(node, where, f"{text!r} is no name; letters, digits, '_', '-', '.', starting with a letter")
        return text

    def _names(self, fields: dict[str, Node], field: str) -> tuple[str, ...]:
        names: list[str] = []
        for node, where in self.sequence(fields[field], field) if field in fields else []:
            name = self._name(node, where)
            if name in names:
                self.problem(node, where, f"{name!r} is listed twice")
            names.append(name)
        return tuple(names)

    def _stage(self, node: Node, where: str, common: tuple[Constraint, ...]) -> Stage:
        fields = self.mapping(
            node, where, required=("name", "done_when"), optional=("description", "unfinished", *_KINDS)
        )
        constraints = self._constraints(fields, where)
        own = {constraint.name for constraint in constraints}
        constraints += tuple(constraint for constraint in common if constraint.name not in own)
        done_when = Condition("all")
        if "done_when" in fields:
            done_when = self._condition(fields["done_when"], f"{where}.done_when")
        return Stage(
            name=self._entry_name(fields, where),
            done_when=done_when,
            constraints=constraints,
            unfinished=self._penalty(fields, where),
            description=self._description(fields, where),
        )

    def _outcome(self, node: Node) -> Outcome:
        fields = self.mapping(node, "outcome", optional=("unfinished", "subgoal"))
        penalty = self._penalty(fields, "outcome")
        return Outcome(self._constraints(fields, "outcome"), 1.0 if penalty is None else penalty)

    def _penalty(self, fields: dict[str, Node], where: str) -> float | None:
        if "unfinished" not in fields:
            return None
        return self._quantity(fields["unfinished"], f"{where}.unfinished", "ratio", self.clock)

    def _description(self, fields: dict[str, Node], where: str) -> str:
        return self.text(fields["description"], f"{where}.description") if "description" in fields else ""

    def _entry_name(self, fields: dict[str, Node], where: str) -> str:
        if "name" not in fields:
            return ""
        name = self._name(fields["name"], f"{where}.name")
        if name in RESERVED_NAMES:
            self.problem(fields["name"], f"{where}.name", f"{name!r} is reserved")
        return name

    def _constraints(self, fields: dict[str, Node], where: str) -> tuple[Constraint, ...]:
        constraints: list[Constraint] = []
        for kind in _KINDS:
            for node, place in self.sequence(fields[kind], f"{where}.{kind}") if kind in fields else []:
                constraint = self._constraint(node, place, cast(Literal["subgoal", "path"], kind))
                if constraint.name in {other.name for other in constraints}:
                    self.problem(node, f"{place}.name", f"a second constraint {constraint.name!r} in the same place")
                constraints.append(constraint)
        return tuple(constraints)

    def _constraint(self, node: Node, where: str, kind: Literal["subgoal", "path"]) -> Constraint:
        optional = ["threshold", "worst", "description", *(["aggregate"] if kind == "path" else [])]
        fields = self.mapping(node, where, ("name", "cost", "weight", "objectives"), optional)
        call = self._call(fields["cost"], f"{where}.cost") if "cost" in fields else None
        threshold, weight, worst, aggregate = 0.0, 0.0, 0.0, ""
        if call is not None:
            unit = call.word.unit
            if "threshold" in fields:
                threshold = self._quantity(fields["threshold"], f"{where}.threshold", unit, self.clock)
            if "weight" in fields:
                weight = self._quantity(fields["weight"], f"{where}.weight", unit, self.clock, weight=True)
            if "worst" in fields:
                worst = self._quantity(fields["worst"], f"{where}.worst", unit, self.clock)
            elif unit in DEFAULT_WORST:
                worst = DEFAULT_WORST[unit]
            else:
                self.problem(node, where, "field 'worst' is needed for a cost in a signal's own unit")
            aggregate = self._aggregate(fields, node, where, kind, call)
        return Constraint(
            name=self._entry_name(fields, where),
            kind=kind,
            cost=call or Call("duration"),
            aggregate=aggregate,
            threshold=threshold,
            weight=weight,
            worst=worst,
            objectives=self._objectives(fields["objectives"], f"{where}.objectives") if "objectives" in fields else (),
            description=self._description(fields, where),
        )

    def _aggregate(self, fields: dict[str, Node], node: Node, where: str, kind: str, call: Call) -> str:
        accumulates = QUANTITIES[call.word.quantity].per == "stage"
        if kind == "subgoal":
            if accumulates:
                self.problem(node, f"{where}.cost", f"{call.relation} belongs under 'path': it adds up over the stage")
            return ""
        if accumulates:
            if "aggregate" in fields:
                message = f"{call.relation} adds up over the stage by itself; leave 'aggregate' out"
                self.problem(fields["aggregate"], f"{where}.aggregate", message)
            return ""
        if "aggregate" not in fields:
            self.problem(node, where, f"field 'aggregate' is missing: {', '.join(AGGREGATIONS)}")
            return "mean"
        aggregate = self.text(fields["aggregate"], f"{where}.aggregate")
        if aggregate and aggregate not in AGGREGATIONS:
            message = f"unknown aggregation {aggregate!r}. {did_you_mean(aggregate, AGGREGATIONS)[:-1]}"
            self.problem(fields["aggregate"], f"{where}.aggregate", message)
        return aggregate

    def _objectives(self, node: Node, where: str) -> tuple[str, ...]:
        tags: list[str] = []
        for item, place in self.sequence(node, where):
            tag = self.text(item, place)
            if tag and tag not in OBJECTIVES:
                self.problem(item, place, f"unknown objective {tag!r}. {did_you_mean(tag, OBJECTIVES)[:-1]}")
            if tag not in tags:
                tags.append(tag)
        if isinstance(node, yaml.SequenceNode) and not tags:
            self.problem(node, where, f"at least one of {', '.join(OBJECTIVES)}")
        return tuple(tags)

    def _condition(self, node: Node, where: str) -> Condition:
        entries = self.entries(node, where)
        operator = next(iter(entries), "")
        if len(entries) == 1 and operator in _COMBINATORS:
            inner = entries[operator]
            if operator == "not":
                return Condition("not", operands=(self._condition(inner, f"{where}.not"),))
            operands = tuple(
                self._condition(item, place) for item, place in self.sequence(inner, f"{where}.{operator}")
            )
            if not operands and isinstance(inner, yaml.SequenceNode):
                self.problem(inner, f"{where}.{operator}", "needs at least one condition")
            return Condition(cast(Literal["all", "any"], operator), operands=operands)
        call = self._call(node, where, extra=_COMBINATORS)
        if call is not None and not call.word.bounded:
            self.problem(node, where, f"{call.relation} only measures and never holds; use a relation with a bound")
        return Condition("holds", call or Call("duration"))

    def _call(self, node: Node, where: str, extra: tuple[str, ...] = ()) -> Call | None:
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
                value = self._quantity(value_node, place, parameter.unit, self.clock)
                if parameter.positive and value == 0.0 and not self._noted(place):
                    self.problem(value_node, place, "must be greater than zero")
                arguments.append((parameter.name, value))
                continue
            text = self._name(value_node, place) if parameter.kind != "axis" else self.text(value_node, place)
            if parameter.kind == "axis" and text and text not in AXES:
                self.problem(value_node, place, f"{text!r} is no axis; one of {', '.join(AXES)}")
            arguments.append((parameter.name, text))
        return Call(relation.name, tuple(arguments))

    def _noted(self, where: str) -> bool:
        """Whether the last problem was this field's."""
        return bool(self.problems) and self.problems[-1][1] == where

    def _quantity(self, node: Node, where: str, unit: str, clock: Clock, weight: bool = False) -> float:
        text = self.number_or_text(node, where)
        if text:
            try:
                return parse_weight(text, unit, clock) if weight else parse_quantity(text, unit, clock)
            except ValueError as error:
                self.problem(node, where, str(error))
        return 0.0
