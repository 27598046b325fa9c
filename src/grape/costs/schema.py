"""The language as a JSON Schema: for editors, for other programs, and for the structured output of models.

The schema knows the structure: fields, relations with their arguments, units, tags, operators, all from the tables of
:mod:`grape.costs.language`. What depends on two places at once (declared names, the unit of a threshold, which formulas
take an ``aggregate``) is left to the parser and the static checks, whose messages say what to do. ``strict`` gives the
form of structured output at OpenAI-compatible endpoints: every field is required, an optional one may be ``null``.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from grape.costs import language
from grape.costs.units import NUMBER, RATE, Clock, unit_names
from grape.costs.vocabulary import RELATIONS

__all__ = ["specification_schema"]

Schema = dict[str, Any]

_ANY_CLOCK = Clock(limit=1, control_hz=1.0)
_UNSIGNED = NUMBER.removeprefix("[+-]?")


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
    writer = _Writer(strict, {"keypoint": keypoints, "signal": signals}, ("camera",) if camera is False else ())
    definitions = {name: _any_of(*writer.definition(name)) for name in language.DEFINITIONS}
    return {"title": "cost_specification", **writer.kind(language.SPECIFICATION), "$defs": definitions}


class _Writer:
    """Writes kinds of fields; ``names`` are the recorded ones where only these are accepted."""

    def __init__(self, strict: bool, names: dict[str, Collection[str] | None], without: Collection[str]) -> None:
        self.strict, self.names, self.without = strict, names, without

    def definition(self, name: str) -> Iterator[Schema]:
        definition = language.DEFINITIONS[name]
        if isinstance(definition, language.Formula):
            yield from self.formula(definition)
        elif self.names.get(name) is not None:
            yield self.kind(definition[0])
        else:
            yield from map(self.kind, definition)

    def formula(self, formula: language.Formula) -> Iterator[Schema]:
        if formula.also:
            yield self.kind(language.Ref(formula.also))
        for relation in RELATIONS.values():
            if relation.group == formula.relations:
                yield self.object(language.Field(relation.name, language.Fields(relation.parameters)))
        plain, temporal = ([c for c in language.COMBINATORS.values() if c.temporal == over] for over in (False, True))
        spelled = [] if self.strict else [(item.spelling, item) for item in plain if item.spelling]
        for name, item in [*((item.name, item) for item in plain), *spelled] if formula.combined else ():
            yield self.object(language.Field(name, item.written(formula.combined)))
        for item in temporal if formula.temporal else ():
            yield self.object(language.Field(item.name, item.written(formula.temporal)))

    def object(self, *fields: language.Field) -> Schema:
        required = {field.name: self.kind(field.kind) for field in fields if field.required}
        optional = {field.name: self.kind(field.kind) for field in fields if not field.required}
        if self.strict:
            optional = {name: _any_of(value, {"type": "null"}) for name, value in optional.items()}
        return {
            "type": "object",
            "properties": {**required, **optional},
            "required": [*required, *(optional if self.strict else ())],
            "additionalProperties": False,
        }

    def kind(self, kind: language.Kind) -> Schema:
        match kind:
            case language.Ref(name):
                return {"$ref": f"#/$defs/{name}"}
            case language.Fields(fields):
                return self.object(*fields)
            case language.Items(item, needs):
                return {"type": "array", "items": self.kind(item), **({"minItems": 1} if needs else {})}
            case language.Name(what):
                names = self.names.get(what)
                return (
                    {"type": "string", "pattern": f"^{language.NAME_PATTERN}$"}
                    if names is None
                    else _choice(sorted(names))
                )
            case language.Choice(_, words):
                return _choice(word for word in words if word not in self.without)
            case language.Whole(low, high):
                return {"type": "integer", **({"enum": [1]} if low == high else {"minimum": low, "maximum": high})}
            case language.Scalar("rate"):
                return _any_of(_text(RATE), {"type": "number"})
            case language.Scalar("weight"):
                return _any_of(_text(f"{_UNSIGNED} per [^ ]+"), {"type": "number", "minimum": 0})
            case language.Amount():
                return _amount(kind)
            case _:
                return {"type": "string"}


def _any_of(*options: Schema) -> Schema:
    return options[0] if len(options) == 1 else {"anyOf": list(options)}


def _text(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^{pattern}$"}


def _choice(words: Iterable[str]) -> Schema:
    return {"type": "string", "enum": list(words)}


def _amount(amount: language.Amount) -> Schema:
    """A number with one of the unit's spellings, or with any where the unit is that of a cost."""
    if not amount.unit:
        return _any_of(_text(f"{NUMBER} ?[^0-9 ].*"), {"type": "number"})
    names = unit_names(amount.unit, _ANY_CLOCK)
    signed = amount.signed or amount.unit == "signal"
    options: list[Schema] = []
    if words := "|".join(filter(None, names)):
        options.append(_text(f"{NUMBER if signed else _UNSIGNED} ?({words})"))
    if "" in names:
        options.append({"type": "number"} if signed else {"type": "number", "minimum": 0})
    return _any_of(*options)
