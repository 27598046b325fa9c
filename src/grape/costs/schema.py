"""The language as a JSON Schema: for editors, for other programs, and for the structured output of models.

The schema knows the structure: fields, relations with their arguments, units, tags, operators. What depends on two
places at once (declared names, the unit of a threshold, which formulas take an ``aggregate``) is left to the parser and
the static checks, whose messages say what to do. ``strict`` gives the form that OpenAI-compatible endpoints ask of
structured output: every field is required, an optional one may be ``null``.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from grape.costs.formulas import TEMPORAL
from grape.costs.specification import AGGREGATIONS, OBJECTIVES
from grape.costs.units import Clock, unit_names
from grape.costs.vocabulary import AXES, FRAMES, QUANTITIES, RELATIONS, Parameter, Relation

__all__ = ["specification_schema"]

Schema = dict[str, Any]

_NAME = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_.-]{0,127}$"}
_TEXT = {"type": "string"}
_NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
_ANY_CLOCK = Clock(limit=1, control_hz=1.0)


def specification_schema(
    keypoints: Collection[str] | None = None,
    signals: Collection[str] | None = None,
    *,
    camera: bool | None = None,
    strict: bool = False,
) -> Schema:
    """JSON Schema (draft 2020-12) of a specification file.

    Args:
        keypoints: Recorded names; given, the schema accepts only these, without the richer form of keypoints.
        signals: Recorded names of signals; given, the schema accepts only these.
        camera: Whether recordings note their camera; if not, its frame is left out.
        strict: For structured output: all fields required, optional ones nullable.
    """
    frames = [frame for frame in FRAMES if frame != "camera"] if camera is False else FRAMES
    writer = _Writer(strict, keypoints, signals, frames)
    schema = writer.root()
    return {"title": "cost_specification", **schema, "$defs": writer.definitions()}


class _Writer:
    """Writes the parts; fields that a file may leave out come as a second mapping."""

    def __init__(
        self,
        strict: bool,
        keypoints: Collection[str] | None,
        signals: Collection[str] | None,
        frames: Collection[str],
    ) -> None:
        self.strict, self.frames = strict, frames
        self.closed = keypoints is not None
        self.names = {"keypoint": _one_of(keypoints), "signal": _one_of(signals)}

    def root(self) -> Schema:
        return self.object(
            {
                "version": {"type": "integer", "enum": [1]},
                "limit": _quantity("steps"),
                "keypoints": {"type": "array", "items": _ref("keypoint")},
                "signals": {"type": "array", "items": self.names["signal"]},
                "stages": {"type": "array", "items": _ref("stage"), "minItems": 1},
            },
            {
                "suite": _NAME,
                "task": _NAME,
                "description": _TEXT,
                "control_hz": _any_of({"type": "string", "pattern": r"^[0-9]+\.?[0-9]*( ?Hz)?$"}, {"type": "number"}),
                "every_stage": self.object({}, self.constraint_lists()),
                "outcome": self.object({}, {"unfinished": _quantity("ratio"), "subgoal": _list(_ref("subgoal"))}),
            },
        )

    def definitions(self) -> dict[str, Schema]:
        bounded = [self.relation(relation) for relation in RELATIONS.values() if relation.bounded]
        measures = [relation for relation in RELATIONS.values() if not relation.bounded]
        summed = [relation for relation in measures if QUANTITIES[relation.quantity].per == "stage"]
        state_measures = [self.relation(relation) for relation in measures if relation not in summed]
        temporal = [self.temporal(operator, _ref("state_formula")) for operator in TEMPORAL]
        return {
            "keypoint": self.names["keypoint"] if self.closed else _any_of(_NAME, *self.sources()),
            "relation": _any_of(*bounded),
            "state_formula": _any_of(_ref("relation"), *self.combined(_ref("state_formula"))),
            "condition": _any_of(_ref("relation"), *self.combined(_ref("condition")), *temporal),
            "formula": _any_of(
                _ref("relation"),
                *self.combined(_ref("formula")),
                *(self.temporal(operator, _ref("formula")) for operator in TEMPORAL),
            ),
            "state_cost": _any_of(_ref("state_formula"), *state_measures),
            "stage_cost": _any_of(
                *(self.relation(relation) for relation in summed),
                *self.combined(_ref("formula")),
                *(self.temporal(operator, _ref("formula")) for operator in TEMPORAL),
            ),
            "subgoal": self.constraint(_ref("state_cost"), {}),
            "path": _any_of(
                self.constraint(_ref("state_cost"), {"aggregate": _choice(AGGREGATIONS)}),
                self.constraint(_ref("stage_cost"), {}),
            ),
            "stage": self.object(
                {"name": _NAME, "done_when": _ref("condition")},
                {"description": _TEXT, "unfinished": _quantity("ratio"), **self.constraint_lists()},
            ),
        }

    def object(self, required: Mapping[str, Schema], optional: Mapping[str, Schema]) -> Schema:
        if self.strict:
            optional = {name: _any_of(value, {"type": "null"}) for name, value in optional.items()}
        return {
            "type": "object",
            "properties": {**required, **optional},
            "required": [*required, *(optional if self.strict else ())],
            "additionalProperties": False,
        }

    def constraint_lists(self) -> dict[str, Schema]:
        return {kind: _list(_ref(kind)) for kind in ("subgoal", "path")}

    def constraint(self, cost: Schema, more: Mapping[str, Schema]) -> Schema:
        objectives = {"type": "array", "items": _choice(OBJECTIVES), "minItems": 1}
        return self.object(
            {"name": _NAME, "cost": cost, "weight": _weight(), "objectives": objectives, **more},
            {"threshold": _any_quantity(), "worst": _any_quantity(), "description": _TEXT},
        )

    def sources(self) -> tuple[Schema, ...]:
        name, described = {"name": _NAME}, {"description": _TEXT}
        offset = {"offset": self.object({}, {axis: _quantity("m", signed=True) for axis in "xyz"})}
        return (
            self.object({**name, "object": self.names["keypoint"]}, described),
            self.object({**name, "picture": {"type": "integer", "minimum": 0, "maximum": 9999}}, described),
            self.object({**name, "track": _NAME}, described),
            self.object({**name, "mean_of": {"type": "array", "items": _NAME, "minItems": 1}}, offset | described),
        )

    def relation(self, relation: Relation) -> Schema:
        required = {item.name: self.argument(item) for item in relation.parameters if item.default is None}
        optional = {item.name: self.argument(item) for item in relation.parameters if item.default is not None}
        return self.object({relation.name: self.object(required, optional)}, {})

    def argument(self, parameter: Parameter) -> Schema:
        if parameter.kind == "axis":
            return _choice(AXES)
        if parameter.kind == "frame":
            return _choice(self.frames)
        return _quantity(parameter.unit) if parameter.kind == "quantity" else self.names[parameter.kind]

    def combined(self, operand: Schema) -> Iterable[Schema]:
        several = {"type": "array", "items": operand, "minItems": 1}
        yield self.object({"not": operand}, {})
        for operator in ("all", "any") if self.strict else ("all", "any", "and", "or"):
            yield self.object({operator: several}, {})

    def temporal(self, operator: str, operand: Schema) -> Schema:
        inner = self.object({"hold": operand, "reach": operand}, {}) if operator == "until" else operand
        return self.object({operator: inner}, {})


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _any_of(*options: Schema) -> Schema:
    return {"anyOf": list(options)}


def _one_of(names: Collection[str] | None) -> Schema:
    return _NAME if names is None else _choice(sorted(names))


def _choice(words: Iterable[str]) -> Schema:
    return {"type": "string", "enum": list(words)}


def _quantity(unit: str, *, signed: bool = False) -> Schema:
    """A number with one of the unit's spellings; a bare number where that is one of them."""
    words = [word for word in unit_names(unit, _ANY_CLOCK) if word]
    number = _NUMBER if signed or unit == "signal" else _NUMBER.removeprefix("[+-]?")
    options: list[Schema] = []
    if words:
        options.append({"type": "string", "pattern": f"^{number} ?({'|'.join(words)})$"})
    if "" in unit_names(unit, _ANY_CLOCK):
        options.append({"type": "number"} if signed or unit == "signal" else {"type": "number", "minimum": 0})
    return options[0] if len(options) == 1 else _any_of(*options)


def _any_quantity() -> Schema:
    return _any_of({"type": "string", "pattern": f"^{_NUMBER} ?[^0-9 ].*$"}, {"type": "number"})


def _weight() -> Schema:
    pattern = f"^{_NUMBER.removeprefix('[+-]?')} per [^ ]+$"
    return _any_of({"type": "string", "pattern": pattern}, {"type": "number", "minimum": 0})
