"""The tables of the language: whatever they list, the reader and the JSON Schema accept, and nothing else."""

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from grape.core.errors import DataError
from grape.costs import language, measurement, parse_specification, units, vocabulary
from grape.costs.language import Amount, Choice, Field, Fields, Formula, Items, Kind, Name, Ref, Scalar, Whole
from grape.costs.schema import specification_schema
from grape.costs.units import Clock, unit_names
from grape.costs.vocabulary import RELATIONS, Relation, language_table

PAGE = Path(__file__).parents[2] / "docs" / "costs.md"
CLOCK = Clock(limit=20, control_hz=10.0)
NEAR = {"near": {"of": "gripper", "to": "block", "within": "4 cm"}}


def example(kind: Kind) -> Any:
    """A value of a kind, as a file writes it."""
    match kind:
        case Fields(fields):
            return {field.name: example(field.kind) for field in fields}
        case Items(item):
            return [example(item)]
        case Ref(name):
            definition = language.DEFINITIONS[name]
            if name == "stage_cost":
                return {"duration": {}}
            return NEAR if isinstance(definition, Formula) else example(definition[0])
        case Name(of):
            return {"keypoint": "gripper", "signal": "grasped"}.get(of, "block")
        case Choice(_, words):
            return words[0]
        case Whole(low):
            return low
        case Amount(unit):
            return f"3 {unit_names(unit or 'm', CLOCK)[0]}" if unit not in ("fraction", "ratio", "signal") else 1
        case Scalar(of):
            return {"text": "why", "rate": "10 Hz", "weight": "2 per m"}[of]


def stage(**fields: Any) -> dict[str, Any]:
    return {"name": "reach", "done_when": NEAR, **fields}


def file(**fields: Any) -> dict[str, Any]:
    """A specification in which the named fields stand."""
    whole = {"version": 1, "limit": "20 steps", "keypoints": ["gripper", "block"], "signals": ["grasped"]}
    return {**whole, "stages": [stage()], **fields}


def calling(relation: Relation) -> dict[str, Any]:
    """A file whose constraint measures a relation with all its arguments."""
    path = constraint(relation.group)
    bare = relation.unit in ("fraction", "ratio", "signal", "of limit")
    path |= {"weight": 1 if bare else f"1 per {relation.unit}", "worst": 1 if bare else f"9 {relation.unit}"}
    path["cost"] = {relation.name: example(Fields(relation.parameters))}
    path.pop("threshold")
    return file(stages=[stage(path=[path])])


def constraint(group: str) -> dict[str, Any]:
    kinds = language.DEFINITIONS["path"]
    assert isinstance(kinds, tuple)
    written: dict[str, Any] = example(kinds[group == "of stages"])
    return (
        written
        | {"name": "way", "threshold": 0.1 if group == "of stages" else "1 cm", "worst": 1}
        | ({"weight": 0.1} if group == "of stages" else {"worst": "9 cm"})
    )


def alternatives(name: str) -> Iterator[Fields]:
    definition = language.DEFINITIONS[name]
    assert isinstance(definition, tuple)
    yield from (kind for kind in definition if isinstance(kind, Fields))


def in_stage(kind: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda written: file(stages=[stage(**{kind: [written]})])


def constructs() -> Iterator[tuple[str, Fields, dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]]:
    """Each construct with its fields, all of them as written, and the file that it then stands in."""
    yield (
        "specification",
        language.SPECIFICATION,
        file(suite="toy", task="push", description="why"),
        lambda whole: whole,
    )
    for source in alternatives("keypoint"):
        written = {**example(source), "name": "extra"}
        yield source.fields[1].name, source, written, lambda item: file(keypoints=["gripper", "block", item])
    for number, kind in enumerate(alternatives("path")):
        yield f"path {number}", kind, constraint("of stages" if number else "of states"), in_stage("path")
    for kind in alternatives("subgoal"):
        written = constraint("of states")
        written.pop("aggregate")
        yield "subgoal", kind, written, in_stage("subgoal")
    for kind in alternatives("stage"):
        written = stage(description="why", unfinished=9, subgoal=[], path=[constraint("of states")])
        yield "stage", kind, written, lambda item: file(stages=[item])
    for relation in RELATIONS.values():
        arguments = example(Fields(relation.parameters))
        yield relation.name, Fields(relation.parameters), arguments, _with_arguments(relation)


def _with_arguments(relation: Relation) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def put(arguments: dict[str, Any]) -> dict[str, Any]:
        whole = calling(relation)
        whole["stages"][0]["path"][0]["cost"] = {relation.name: arguments}
        return whole

    return put


CONSTRUCTS = [pytest.param(*rest, id=name) for name, *rest in constructs()]


def accepted(value: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether the schema and whether the reader accept a file."""
    try:
        parse_specification(json.dumps(value), "x")
    except DataError:
        return jsonschema.Draft202012Validator(specification_schema()).is_valid(value), False
    return jsonschema.Draft202012Validator(specification_schema()).is_valid(value), True


@pytest.mark.parametrize(("fields", "written", "put"), CONSTRUCTS)
def test_reader_and_schema_accept_the_fields_of_the_table_and_no_others(
    fields: Fields, written: dict[str, Any], put: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    assert accepted(put(copy.deepcopy(written))) == (True, True)
    for field in fields.fields:
        without = {name: value for name, value in written.items() if name != field.name}
        assert accepted(put(copy.deepcopy(without))) == ((False, False) if field.required else (True, True)), field.name
    assert accepted(put({**copy.deepcopy(written), "more": 1})) == (False, False)


@pytest.mark.parametrize("combinator", language.COMBINATORS.values(), ids=language.COMBINATORS)
def test_every_operator_is_accepted_under_each_of_its_names(combinator: language.Combinator) -> None:
    for name in filter(None, (combinator.name, combinator.spelling)):
        assert accepted(file(stages=[stage(done_when={name: example(combinator.written("relation"))})])) == (True, True)


@pytest.mark.parametrize(
    ("unit", "spelling"), [(u, s) for u in units.UNITS for s in unit_names(u, CLOCK) if u != "steps"]
)
def test_every_spelling_of_a_unit_is_accepted(unit: str, spelling: str) -> None:
    relation = next(relation for relation in RELATIONS.values() if relation.unit == unit)
    whole = calling(relation)
    whole |= {"control_hz": 10}
    whole["stages"][0]["path"][0]["worst"] = f"0.5 {spelling}" if spelling else 0.5
    assert accepted(whole) == (True, True)


def test_a_new_relation_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = (Field("of", Name("keypoint")), Field("at_most", Amount("m", positive=True)))
    word = Relation("settled", "displacement", "'of' has hardly moved", parameters, upper="at_most")
    whole = file(stages=[stage(done_when={"settled": {"of": "block", "at_most": "2 cm"}})])
    assert accepted(whole) == (False, False)
    monkeypatch.setitem(RELATIONS, "settled", word)
    assert accepted(whole) == (True, True)
    assert "| `settled` | `of` `at_most` |" in vocabulary.vocabulary_table()
    assert measurement.QUANTITIES.keys() == measurement.MEASURES.keys()


def test_a_new_unit_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    inches = dataclasses.replace(units.UNITS["m"], spellings={**units.UNITS["m"].spellings, "inch": 0.0254})
    whole = file(stages=[stage(done_when={"near": {"of": "gripper", "to": "block", "within": "2 inch"}})])
    assert accepted(whole) == (False, False)
    monkeypatch.setitem(units.UNITS, "m", inches)
    assert accepted(whole) == (True, True)


def test_the_page_lists_every_field() -> None:
    assert language_table() in PAGE.read_text(encoding="utf-8")
