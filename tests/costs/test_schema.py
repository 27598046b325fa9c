"""The exported JSON Schema: every built-in specification fits it, what the parser refuses for structure does not."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest
import yaml

from grape.core.errors import DataError
from grape.costs import CostsSchemaSettings, builtin_names, parse_specification, run_costs_schema, suite_names_of
from grape.costs.builtins import builtin_suites, builtin_text
from grape.costs.schema import specification_schema
from grape.costs.vocabulary import RELATIONS
from tests.costs.test_parsing import MINIMAL

RICH = """\
version: 1
limit: 20 steps
keypoints:
  - gripper
  - {name: cup, object: akita_black_bowl_1, description: the bowl}
  - {name: rim, picture: 3}
  - {name: spout, track: spout}
  - {name: above-cup, mean_of: [cup, rim], offset: {z: 10 cm, x: -2 mm}}
signals: [grasped]
stages:
  - name: reach
    done_when: {all: [{eventually: {grasped: {}}}, {until: {hold: {released: {}}, reach: {grasped: {}}}}]}
    subgoal:
      - {name: beside, cost: {or: [{left_of: {of: gripper, to: cup, frame: camera}}, {not: {grasped: {}}}]},
         weight: 2, threshold: 0.1, objectives: [completion]}
    path:
      - {name: kept, cost: {always: {all: [{upright: {of: cup, to: rim, within: 20 deg}}, {grasped: {}}]}},
         weight: 1, objectives: [safety]}
      - {name: free, cost: {and: [{clear_of: {of: gripper, to: spout, by: 2 cm}}, {near: {of: gripper, to: above-cup,
         within: 1 m}}]}, aggregate: mean, weight: 1 per m, objectives: [safety, efficiency]}
"""


@pytest.fixture(scope="module")
def plain() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(specification_schema())


@pytest.fixture(scope="module")
def strict() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(specification_schema(strict=True))


def completed(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """The value with every absent optional field written as null, as structured output writes it; None if none fits."""
    if "$ref" in schema:
        return completed(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        wholes = (completed(value, option, root) for option in schema["anyOf"])
        return next((whole for whole in wholes if whole is not None), None)
    if isinstance(value, dict) and schema["type"] == "object":
        parts = schema["properties"]
        absent = {name for name in parts if name not in value}
        if not value.keys() <= parts.keys() or any({"type": "null"} not in parts[n].get("anyOf", ()) for n in absent):
            return None
        whole = {name: completed(value[name], part, root) for name, part in parts.items() if name in value}
        return None if None in whole.values() else whole | dict.fromkeys(absent)
    if isinstance(value, list) and schema["type"] == "array":
        items = [completed(item, schema["items"], root) for item in value]
        return None if None in items else items
    return value if jsonschema.Draft202012Validator(schema).is_valid(value) else None


def test_the_schemas_are_schemas() -> None:
    for schema in (specification_schema(), specification_schema(["a"], ["b"], strict=True)):
        jsonschema.Draft202012Validator.check_schema(schema)


RECORDED = {
    "plain": "b2985ef88e389c46",
    "strict": "915b6c9f7e683c3c",
    "names, no camera": "db1f3b36fd78ef95",
    "names, camera, strict": "5bed70dec2c24623",
}
"""First digits of the SHA-256 of each schema's JSON text in release 0.1."""

ADDED = ("any_order", "for")
"""Fields that came later; all are optional."""


def without_added_fields(schema: Any) -> Any:
    """A schema as if the fields that came later did not exist."""
    if isinstance(schema, list):
        return [without_added_fields(item) for item in schema if item not in ADDED]
    if isinstance(schema, dict):
        return {name: without_added_fields(item) for name, item in schema.items() if name not in ADDED}
    return schema


def test_the_schemas_are_those_of_release_0_1_and_optional_fields() -> None:
    keypoints, signals = ["gripper", "object"], ["grasped"]
    schemas = {
        "plain": specification_schema(),
        "strict": specification_schema(strict=True),
        "names, no camera": specification_schema(keypoints, signals, camera=False),
        "names, camera, strict": specification_schema(keypoints, signals, camera=True, strict=True),
    }
    assert schemas["plain"]["properties"]["any_order"]["items"]["minItems"] == 1
    assert schemas["strict"]["$defs"]["stage"]["properties"]["for"]["anyOf"][-1] == {"type": "null"}
    texts = {name: json.dumps(without_added_fields(schema)).encode() for name, schema in schemas.items()}
    assert {name: hashlib.sha256(text).hexdigest()[:16] for name, text in texts.items()} == RECORDED


@pytest.mark.parametrize("suite", builtin_suites())
def test_every_built_in_specification_fits(suite: str, plain: jsonschema.Draft202012Validator) -> None:
    for task in builtin_names(suite):
        plain.validate(yaml.safe_load(builtin_text(suite, task)))


@pytest.mark.parametrize("text", [MINIMAL, RICH])
def test_what_fits_the_strict_schema_is_a_specification(
    text: str, plain: jsonschema.Draft202012Validator, strict: jsonschema.Draft202012Validator
) -> None:
    """Structured output with its nulls reads like the file without them."""
    value = yaml.safe_load(text.replace("and:", "all:").replace("or:", "any:"))
    plain.validate(value)
    whole = completed(value, strict.schema, strict.schema)
    assert whole != value
    strict.validate(whole)
    assert parse_specification(json.dumps(whole), "x") == parse_specification(text, "x")


STRUCTURE = [
    ("version: 1", "version: 2"),
    ("limit: 16 steps\n", ""),
    ("keypoints: [", "keypoint: ["),
    ("[gripper, block, goal]", "[gripper, 7, goal]"),
    ("[gripper, block, goal]", "[gripper, {name: b}, goal]"),
    ("[gripper, block, goal]", "[gripper, {name: b, object: b, picture: 3}, goal]"),
    ("[gripper, block, goal]", "[gripper, {name: b, object: b, offset: {x: 1 cm}}, goal]"),
    ("[gripper, block, goal]", "[gripper, {name: b, picture: -3}, goal]"),
    ("[gripper, block, goal]", "[gripper, {name: b, mean_of: []}, goal]"),
    ("[gripper, block, goal]", "[gripper, {name: b, mean_of: [gripper], offset: {x: 3}}, goal]"),
    ("[gripper, block, goal]", "[gripper, __import__('os'), goal]"),
    ("within: 4 cm", "within: 4"),
    ("within: 4 cm", "within: 4 deg"),
    ("within: 4 cm", "within: -4 cm"),
    ("within: 4 cm", "closer: 4 cm"),
    ("{near: {of: gripper, to: block, within", "{naer: {of: gripper, to: block, within"),
    ("{near: {of: gripper, to: block, within: 4 cm}}", "{distance: {of: gripper, to: block}}"),
    ("{near: {of: gripper, to: block, within: 4 cm}}", "{all: []}"),
    ("{near: {of: gripper, to: block, within: 4 cm}}", "near"),
    ("{near: {of: gripper, to: block, within: 4 cm}}", "{until: {hold: {grasped: {}}}}"),
    ("{near: {of: gripper, to: block, within: 4 cm}}", "{behind: {of: gripper, to: block, frame: robot}}"),
    ("{near: {of: gripper, to: block, within: 4 cm}}", "{always: {eventually: {grasped: {}}}}"),
    ("{not: {grasped: {}}}", "{grasped: {}, released: {}}"),
    ("objectives: [completion]", "objectives: [compleat]"),
    ("objectives: [completion]", "objectives: []"),
    ("weight: 2 per m", "weight: heavy"),
    ("        aggregate: mean\n", ""),
    ("aggregate: mean", "aggregate: meen"),
    ("        threshold: 1\n", "        aggregate: max\n"),
    ("{distance: {of: gripper, to: block}}", "{duration: {}}"),
    ("{distance: {of: gripper, to: block}}", "{always: {grasped: {}}}"),
    ("  - name: push", "  - names: push"),
    ("stages:", "stages: []\nothers:"),
]


@pytest.mark.parametrize(("old", "new"), STRUCTURE)
def test_what_the_parser_refuses_for_structure_does_not_fit(
    old: str, new: str, plain: jsonschema.Draft202012Validator
) -> None:
    assert old in MINIMAL
    broken = MINIMAL.replace(old, new, 1)
    with pytest.raises(DataError):
        parse_specification(broken, "x")
    assert not plain.is_valid(yaml.safe_load(broken))


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for part in schema.values():
            yield from objects(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects(part)


def test_the_cameras_frame_is_offered_only_where_one_is_recorded() -> None:
    for camera, offered in ((None, True), (True, True), (False, False)):
        schema = specification_schema(["a"], ["b"], camera=camera, strict=True)
        assert ('"camera"' in json.dumps(schema)) == offered
        assert '"world"' in json.dumps(schema)
    assert suite_names_of("libero_goal_2hz").camera
    assert suite_names_of("simpler_widowx_subject").camera
    assert not suite_names_of("metaworld").camera


def test_the_strict_schema_keeps_to_what_structured_output_knows() -> None:
    schema = specification_schema(strict=True)
    for part in objects(schema):
        assert part["additionalProperties"] is False
        assert part["required"] == list(part["properties"])
    keywords = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                if key in ("properties", "$defs"):
                    for item in part.values():
                        collect(item)
                else:
                    keywords.add(key)
                    collect(part)
        elif isinstance(value, list):
            for item in value:
                collect(item)

    collect(schema)
    # Keywords of OpenAI's structured outputs, which the grammars of vLLM and Ollama know as well.
    assert keywords <= {
        *("type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "$ref", "$defs"),
        *("title", "pattern", "minimum", "maximum", "minItems"),
    }


def test_names_given_are_the_only_ones() -> None:
    schema = specification_schema(["gripper", "block", "goal"], ["grasped"])
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(yaml.safe_load(MINIMAL))
    assert not validator.is_valid(yaml.safe_load(MINIMAL.replace("goal", "gaol")))
    assert not validator.is_valid(yaml.safe_load(MINIMAL.replace("[grasped]", "[gripped]")))


def test_the_verb_prints_it() -> None:
    summary = run_costs_schema(CostsSchemaSettings(suite="toy", strict=True))
    assert json.loads(summary["text"]) == summary["schema"]
    assert "finger_left" in summary["text"]
    assert all(
        f'"{name}"' in json.dumps(run_costs_schema(CostsSchemaSettings())).replace("\\", "") for name in RELATIONS
    )
