"""From the YAML of a specification to :class:`~grape.costs.specification.CostSpecification`, strictly.

:mod:`grape.costs.field_reader` reads each field as the language's tables say; what depends on two fields at once is
checked here. All problems of a file are collected and reported together, each
with its line and field.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from grape.core.errors import DataError, did_you_mean
from grape.core.reading import read_file
from grape.costs import language
from grape.costs.field_reader import LARGEST, FieldReader, MappingReader
from grape.costs.formulas import Call, Condition
from grape.costs.specification import Constraint, CostSpecification, KeypointSource, Outcome, Stage, image_keypoint
from grape.costs.units import DEFAULT_WORST, Clock
from grape.costs.yaml_nodes import MAX_CHARACTERS, Node, compose

__all__ = ["load_specification", "parse_specification"]

MAX_CONSTRAINTS = 64
"""Of a stage or of the outcome, those of 'every_stage' included."""


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


class _SpecificationReader(FieldReader):
    """Builds the constructs of the language.

    Attributes:
        listed: Names in the list that is being read, for means of keypoints.
        common: Constraints of every stage.
    """

    def __init__(self) -> None:
        super().__init__(keypoint=self._keypoint, stage=self._stage)
        self.listed: list[str] = []
        self.common: tuple[Constraint, ...] = ()

    def specification(self, root: Node, source: str) -> CostSpecification:
        """The whole file."""
        fields = MappingReader(self, root, "", language.SPECIFICATION)
        fields("version")
        hz = fields("control_hz")
        self.clock = Clock(1, hz)
        self.clock = Clock(self._limit(fields), hz)
        self.common = self._constraints(fields("every_stage"))
        stages = fields("stages")
        if len(stages) > language.MAX_STAGES:
            fields.problem("stages", f"from 1 to {language.MAX_STAGES} stages are needed, found {len(stages)}")
        any_order = self._any_order(fields, [stage.name for stage in stages])
        keypoints = self._names(fields, "keypoints")
        outcome = fields("outcome")
        return CostSpecification(
            limit=self.clock.limit,
            control_hz=hz,
            keypoints=tuple(item.name if isinstance(item, KeypointSource) else item for item in keypoints),
            signals=tuple(self._names(fields, "signals")),
            stages=stages,
            outcome=Outcome(self._constraints(outcome), outcome("unfinished")) if outcome else Outcome(),
            sources=tuple(item for item in keypoints if isinstance(item, KeypointSource)),
            any_order=any_order,
            source=source,
            **{name: fields(name) for name in ("suite", "task", "description")},
        )

    def _limit(self, fields: MappingReader) -> int:
        steps: float = fields("limit")
        if steps < 1.0 or abs(steps - round(steps)) > 1e-6 or steps > 1e6:
            if steps:
                fields.problem("limit", "must be a whole number of steps, at least 1")
            return 1
        return round(steps)

    def _any_order(self, fields: MappingReader, stages: list[str]) -> tuple[tuple[str, ...], ...]:
        """Groups of stages that may change places: two or more, which follow one another in the list of stages."""
        before = len(self.problems)
        groups: list[tuple[str, ...]] = []
        for kind, node, where in fields.items("any_order"):
            groups.append(self.read(kind, node, where))
            for name in groups[-1]:
                if name and name not in stages:
                    self.problem(node, where, f"unknown stage {name!r}. {did_you_mean(name, stages)[:-1]}")
        if len(self.problems) > before or not groups:
            return ()
        free = [name for group in groups for name in group]
        first = stages.index(free[0])
        if not 2 <= len(groups) <= language.MAX_GROUPS:
            fields.problem("any_order", f"from 2 to {language.MAX_GROUPS} groups are needed, found {len(groups)}")
        elif stages[first : first + len(free)] != free:
            message = (
                "its stages must follow one another as in 'stages', each once, e.g. [[reach-1, grasp-1], [reach-2]]"
            )
            fields.problem("any_order", message)
        elif any(stages.count(name) > 1 for name in free):
            fields.problem("any_order", "names a stage that stands twice in 'stages'; give each a name of its own")
        return tuple(groups)

    def _names(self, fields: MappingReader, field: str) -> list[Any]:
        """Items of a list that have names; a name that stands twice is noted."""
        self.listed, values = [], []
        for kind, node, where in fields.items(field):
            values.append(self.read(kind, node, where))
            name = values[-1].name if isinstance(values[-1], KeypointSource) else values[-1]
            if name in self.listed:
                self.problem(node, where, f"{name!r} is listed twice")
            self.listed.append(name)
        return values

    def _keypoint(self, node: Node, where: str) -> KeypointSource | str:
        if not isinstance(node, yaml.MappingNode):
            return self.name(language.Name(), node, where)
        fields = self.fields("keypoint", node, where)
        name, origins = fields("name"), [origin for origin in language.PROVENANCES if origin in fields]
        if len(origins) != 1:
            fields.problem("", f"exactly one of {', '.join(language.PROVENANCES)} says where the keypoint comes from")
            return KeypointSource(name, "object", name)
        kind = cast(Literal["object", "picture", "track", "mean_of"], origins[0])
        description, value = fields("description"), fields(kind)
        if kind == "mean_of":
            for part in value:
                if part not in self.listed:
                    message = f"{part!r} is not listed before. {did_you_mean(part, self.listed)[:-1]}"
                    fields.problem(kind, message)
            offset = fields("offset")
            moved = (offset("x"), offset("y"), offset("z")) if offset else (0.0, 0.0, 0.0)
            return KeypointSource(name, kind, mean_of=value, offset=moved, description=description)
        if "offset" in fields:
            fields.problem("offset", "belongs to 'mean_of'; a mean of one keypoint is that one")
        if kind == "picture":
            return KeypointSource(name, kind, image_keypoint(value), value, description=description)
        return KeypointSource(name, kind, value, description=description)

    def _stage(self, node: Node, where: str) -> Stage:
        fields = self.fields("stage", node, where)
        constraints = self._constraints(fields)
        own = {constraint.name for constraint in constraints}
        constraints += tuple(constraint for constraint in self.common if constraint.name not in own)
        if len(constraints) > MAX_CONSTRAINTS:
            message = f"has {len(constraints)} constraints with those of 'every_stage'; at most {MAX_CONSTRAINTS}"
            fields.problem("", message)
        done_when: Condition = fields("done_when") or Condition("all")
        return Stage(
            done_when=self.bounded(done_when, fields.nodes.get("done_when", node), fields.place("done_when")),
            constraints=constraints,
            held_for=fields("for"),
            **{name: fields(name) for name in ("name", "unfinished", "description")},
        )

    def _constraints(self, fields: MappingReader | None) -> tuple[Constraint, ...]:
        """The constraints among the fields of a stage, of every stage or of the outcome."""
        constraints: list[Constraint] = []
        for kind in ("subgoal", "path"):
            for _, node, place in fields.items(kind) if fields is not None and kind in fields.table else ():
                if len(constraints) == MAX_CONSTRAINTS:
                    self.problem(node, place, f"more than {MAX_CONSTRAINTS} constraints in the same place")
                    return tuple(constraints)
                constraint = self._constraint(node, place, kind)
                if constraint.name in {other.name for other in constraints}:
                    self.problem(node, f"{place}.name", f"a second constraint {constraint.name!r} in the same place")
                constraints.append(constraint)
        return tuple(constraints)

    def _constraint(self, node: Node, where: str, kind: Literal["subgoal", "path"]) -> Constraint:
        fields = self.fields(kind, node, where)
        cost = fields("cost")
        threshold, weight, worst = 0.0, 0.0, 0.0
        if cost is not None:
            threshold, weight = fields("threshold", cost.unit), fields("weight", cost.unit)
            worst = fields("worst", cost.unit) if "worst" in fields else DEFAULT_WORST.get(cost.unit, 0.0)
            if "worst" not in fields and cost.unit not in DEFAULT_WORST:
                fields.problem("", "field 'worst' is needed for a cost in a signal's own unit")
        constraint = Constraint(
            kind=kind,
            cost=cost or Call("duration"),
            aggregate="",
            threshold=threshold,
            weight=weight,
            worst=worst,
            objectives=tuple(dict.fromkeys(fields("objectives"))),
            **{name: fields(name) for name in ("name", "description")},
        )
        if cost is None:
            return constraint
        if constraint.max_contribution > LARGEST:
            message = f"can cost {constraint.max_contribution:g}, weight times (worst - threshold); at most {LARGEST:g}"
            fields.problem("", message)
        return dataclasses.replace(constraint, aggregate=self._aggregate(fields, constraint))

    def _aggregate(self, fields: MappingReader, constraint: Constraint) -> str:
        if constraint.over_stage:
            if isinstance(constraint.cost, Call):
                how = f"{constraint.cost.relation} adds up over the stage"
            else:
                how = f"{constraint.cost.operator} speaks of the whole stage"
            if constraint.kind == "subgoal":
                self.problem(fields.node, fields.place("cost"), f"{how} and belongs under 'path'")
            elif "aggregate" in fields:
                fields.problem("aggregate", f"{how} by itself; leave 'aggregate' out")
            return ""
        if constraint.kind == "subgoal":
            return ""
        if "aggregate" not in fields:
            fields.problem("", f"field 'aggregate' is missing: {', '.join(language.AGGREGATIONS)}")
            return "mean"
        return str(fields("aggregate"))
