"""From the YAML of a specification to :class:`~grape.costs.specification.CostSpecification`, strictly.

All problems of a file are collected and reported together, each with its line and field.
"""

import dataclasses
import re
from pathlib import Path
from typing import Literal, cast

import yaml

from grape.core.errors import DataError, did_you_mean
from grape.core.reading import read_file
from grape.costs.formula_reader import LARGEST, FormulaReader
from grape.costs.formulas import Call, Condition
from grape.costs.keypoints import PROVENANCES, KeypointSource, image_keypoint
from grape.costs.specification import (
    AGGREGATIONS,
    OBJECTIVES,
    Constraint,
    CostSpecification,
    Outcome,
    Stage,
)
from grape.costs.units import DEFAULT_WORST, Clock
from grape.costs.yaml_nodes import MAX_CHARACTERS, Node, compose

__all__ = ["LANGUAGE_VERSION", "RESERVED_NAMES", "load_specification", "parse_specification"]

LANGUAGE_VERSION = "1"

MAX_STAGES = 64
"""Checks compare every stage with every other: a longer list would only keep the machine busy."""

MAX_CONSTRAINTS = 64
"""Of a stage or of the outcome, those of 'every_stage' included."""

RESERVED_NAMES = ("done", "success", "outcome")
"""Names that the evaluation gives to its own entries."""

_KINDS = ("subgoal", "path")


def load_specification(path: Path) -> CostSpecification:
    """Read a specification from a YAML (or JSON) file.

    Raises:
        DataError: The file is missing or is no valid specification; all problems are listed with line and field.
    """
    try:
        text = read_file(path, max_bytes=4 * MAX_CHARACTERS).decode("utf-8-sig")
    except DataError as error:
        raise DataError(f"Cost specification {error.message}", "Check the path.") from error
    except UnicodeDecodeError as error:
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
        ordered = sorted(dict.fromkeys(reader.problems), key=lambda problem: problem[0])
        count = len(ordered)
        listing = "".join(f"\n  line {line}, {where}: {message}." for line, where, message in ordered)
        raise DataError(
            f"{source} is no valid cost specification, {count} problem{'s' if count > 1 else ''}:{listing}",
            "See docs/costs.md for the language.",
        )
    return specification


class _SpecificationReader(FormulaReader):
    """Builds the parts; where one is broken, notes why and goes on with a stand-in that is never returned."""

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
        self.clock = Clock(1, hz)
        self.clock = Clock(self._limit(fields["limit"]) if "limit" in fields else 1, hz)
        common: tuple[Constraint, ...] = ()
        if "every_stage" in fields:
            common = self._constraints(self.mapping(fields["every_stage"], "every_stage", (), _KINDS), "every_stage")
        stages = []
        for node, where in self.sequence(fields["stages"], "stages") if "stages" in fields else []:
            stages.append(self._stage(node, where, common))
        if "stages" in fields and not 1 <= len(stages) <= MAX_STAGES:
            self.problem(fields["stages"], "stages", f"from 1 to {MAX_STAGES} stages are needed, found {len(stages)}")
        keypoints, sources = self._keypoints(fields)
        return CostSpecification(
            suite=self.name(fields["suite"], "suite") if "suite" in fields else "",
            task=self.name(fields["task"], "task") if "task" in fields else "",
            limit=self.clock.limit,
            control_hz=self.clock.control_hz,
            keypoints=keypoints,
            signals=self._names(fields, "signals"),
            stages=tuple(stages),
            outcome=self._outcome(fields["outcome"]) if "outcome" in fields else Outcome(),
            description=self._description(fields, ""),
            sources=sources,
            source=source,
        )

    def _control_hz(self, node: Node) -> float | None:
        text = self.number_or_text(node, "control_hz")
        match = re.fullmatch(r"(\d+\.?\d*)(?:\s*Hz)?", text, re.ASCII)
        if match is not None and 1e-6 <= float(match[1]) < 1e6:  # far below, squares of it vanish
            return float(match[1])
        if text:
            self.problem(node, "control_hz", f"{text!r} is no rate; write e.g. '10 Hz'")
        return None

    def _limit(self, node: Node) -> int:
        steps = self.quantity(node, "limit", "steps")
        if steps < 1.0 or abs(steps - round(steps)) > 1e-6 or steps > 1e6:
            if steps:
                self.problem(node, "limit", "must be a whole number of steps, at least 1")
            return 1
        return round(steps)

    def _names(self, fields: dict[str, Node], field: str) -> tuple[str, ...]:
        names: list[str] = []
        for node, where in self.sequence(fields[field], field) if field in fields else []:
            name = self.name(node, where)
            if name in names:
                self.problem(node, where, f"{name!r} is listed twice")
            names.append(name)
        return tuple(names)

    def _keypoints(self, fields: dict[str, Node]) -> tuple[tuple[str, ...], tuple[KeypointSource, ...]]:
        """Names of the keypoints, and where those come from that say so."""
        names: list[str] = []
        sources: list[KeypointSource] = []
        for node, where in self.sequence(fields["keypoints"], "keypoints") if "keypoints" in fields else []:
            if isinstance(node, yaml.MappingNode):
                sources.append(self._source(node, where, names))
                name = sources[-1].name
            else:
                name = self.name(node, where)
            if name in names:
                self.problem(node, where, f"{name!r} is listed twice")
            names.append(name)
        return tuple(names), tuple(sources)

    def _source(self, node: Node, where: str, earlier: list[str]) -> KeypointSource:
        fields = self.mapping(node, where, required=("name",), optional=(*PROVENANCES, "offset", "description"))
        name = self.name(fields["name"], f"{where}.name") if "name" in fields else ""
        given = [kind for kind in PROVENANCES if kind in fields]
        if len(given) != 1:
            self.problem(node, where, f"exactly one of {', '.join(PROVENANCES)} says where the keypoint comes from")
            return KeypointSource(name, "object", name)
        kind, place = cast(Literal["object", "picture", "track", "mean_of"], given[0]), f"{where}.{given[0]}"
        description = self._description(fields, where)
        if kind == "mean_of":
            parts = tuple(self.name(item, spot) for item, spot in self.sequence(fields[kind], place))
            for part in parts:
                if part not in earlier:
                    self.problem(
                        fields[kind], place, f"{part!r} is not listed before. {did_you_mean(part, earlier)[:-1]}"
                    )
            if not parts and isinstance(fields[kind], yaml.SequenceNode):
                self.problem(fields[kind], place, "needs at least one keypoint")
            offset = self._offset(fields["offset"], f"{where}.offset") if "offset" in fields else (0.0, 0.0, 0.0)
            return KeypointSource(name, kind, mean_of=parts, offset=offset, description=description)
        if "offset" in fields:
            self.problem(
                fields["offset"], f"{where}.offset", "belongs to 'mean_of'; a mean of one keypoint is that one"
            )
        if kind == "picture":
            number = self._image_number(fields[kind], place)
            return KeypointSource(name, kind, image_keypoint(number), number, description=description)
        return KeypointSource(name, kind, self.name(fields[kind], place), description=description)

    def _offset(self, node: Node, where: str) -> tuple[float, float, float]:
        fields = self.mapping(node, where, optional=("x", "y", "z"))
        x, y, z = (
            self.quantity(fields[axis], f"{where}.{axis}", "m", signed=True) if axis in fields else 0.0
            for axis in "xyz"
        )
        return x, y, z

    def _image_number(self, node: Node, where: str) -> int:
        text = self.number_or_text(node, where)
        if re.fullmatch(r"\d{1,4}", text, re.ASCII):
            return int(text)
        if text:
            self.problem(node, where, f"{text!r} is no number of a point on the image; write e.g. 3")
        return 0

    def _stage(self, node: Node, where: str, common: tuple[Constraint, ...]) -> Stage:
        fields = self.mapping(
            node, where, required=("name", "done_when"), optional=("description", "unfinished", *_KINDS)
        )
        constraints = self._constraints(fields, where)
        own = {constraint.name for constraint in constraints}
        constraints += tuple(constraint for constraint in common if constraint.name not in own)
        if len(constraints) > MAX_CONSTRAINTS:
            message = f"has {len(constraints)} constraints with those of 'every_stage'; at most {MAX_CONSTRAINTS}"
            self.problem(node, where, message)
        done_when = Condition("all")
        if "done_when" in fields:
            done_when = self.bounded_formula(fields["done_when"], f"{where}.done_when")
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
        return self.quantity(fields["unfinished"], f"{where}.unfinished", "ratio")

    def _description(self, fields: dict[str, Node], where: str) -> str:
        node = fields.get("description")
        if node is None or (isinstance(node, yaml.ScalarNode) and node.style and not node.value):
            return ""
        return self.text(node, f"{where}.description" if where else "description")

    def _entry_name(self, fields: dict[str, Node], where: str) -> str:
        if "name" not in fields:
            return ""
        name = self.name(fields["name"], f"{where}.name")
        if name in RESERVED_NAMES:
            self.problem(fields["name"], f"{where}.name", f"{name!r} is reserved")
        return name

    def _constraints(self, fields: dict[str, Node], where: str) -> tuple[Constraint, ...]:
        constraints: list[Constraint] = []
        for kind in _KINDS:
            for node, place in self.sequence(fields[kind], f"{where}.{kind}") if kind in fields else []:
                if len(constraints) == MAX_CONSTRAINTS:
                    self.problem(node, place, f"more than {MAX_CONSTRAINTS} constraints in the same place")
                    return tuple(constraints)
                constraint = self._constraint(node, place, cast(Literal["subgoal", "path"], kind))
                if constraint.name in {other.name for other in constraints}:
                    self.problem(node, f"{place}.name", f"a second constraint {constraint.name!r} in the same place")
                constraints.append(constraint)
        return tuple(constraints)

    def _constraint(self, node: Node, where: str, kind: Literal["subgoal", "path"]) -> Constraint:
        optional = ["threshold", "worst", "description", *(["aggregate"] if kind == "path" else [])]
        fields = self.mapping(node, where, ("name", "cost", "weight", "objectives"), optional)
        cost = self.cost(fields["cost"], f"{where}.cost") if "cost" in fields else None
        threshold, weight, worst = 0.0, 0.0, 0.0
        if cost is not None:
            unit = cost.unit
            if "threshold" in fields:
                threshold = self.quantity(fields["threshold"], f"{where}.threshold", unit)
            if "weight" in fields:
                weight = self.weight(fields["weight"], f"{where}.weight", unit)
            if "worst" in fields:
                worst = self.quantity(fields["worst"], f"{where}.worst", unit)
            elif unit in DEFAULT_WORST:
                worst = DEFAULT_WORST[unit]
            else:
                self.problem(node, where, "field 'worst' is needed for a cost in a signal's own unit")
        constraint = Constraint(
            name=self._entry_name(fields, where),
            kind=kind,
            cost=cost or Call("duration"),
            aggregate="",
            threshold=threshold,
            weight=weight,
            worst=worst,
            objectives=self._objectives(fields["objectives"], f"{where}.objectives") if "objectives" in fields else (),
            description=self._description(fields, where),
        )
        if cost is None:
            return constraint
        if constraint.dearest > LARGEST:
            message = f"can cost {constraint.dearest:g}, weight times (worst - threshold); at most {LARGEST:g}"
            self.problem(node, where, message)
        return dataclasses.replace(constraint, aggregate=self._aggregate(fields, node, where, constraint))

    def _aggregate(self, fields: dict[str, Node], node: Node, where: str, constraint: Constraint) -> str:
        if constraint.over_stage:
            if isinstance(constraint.cost, Call):
                how = f"{constraint.cost.relation} adds up over the stage"
            else:
                how = f"{constraint.cost.operator} speaks of the whole stage"
            if constraint.kind == "subgoal":
                self.problem(node, f"{where}.cost", f"{how} and belongs under 'path'")
            elif "aggregate" in fields:
                self.problem(fields["aggregate"], f"{where}.aggregate", f"{how} by itself; leave 'aggregate' out")
            return ""
        if constraint.kind == "subgoal":
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
