import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.errors import DataError
from grape.costs import parse_specification, specification_hash

MINIMAL = """\
version: 1
task: push-block
limit: 16 steps
keypoints: [gripper, block, goal]
signals: [grasped]
stages:
  - name: reach
    done_when: {near: {of: gripper, to: block, within: 4 cm}}
    subgoal:
      - name: at-block
        cost: {distance: {of: gripper, to: block}}
        threshold: 1 cm
        weight: 2 per m
        objectives: [completion]
    path:
      - name: way
        cost: {path_length: {of: gripper, reference: 30 cm}}
        threshold: 1
        weight: 0.1
        objectives: [efficiency]
  - name: push
    done_when: {all: [{near_xy: {of: block, to: goal, within: 5 cm}}, {not: {grasped: {}}}]}
    path:
      - name: low
        cost: {near_z: {of: gripper, to: block, within: 5 cm}}
        aggregate: mean
        weight: 2 per m
        objectives: [safety]
"""


def test_a_minimal_specification_is_read_in_canonical_units() -> None:
    specification = parse_specification(MINIMAL, "minimal.yaml")
    assert [stage.name for stage in specification.stages] == ["reach", "push"]
    at_block, way = specification.stages[0].constraints
    assert (at_block.threshold, at_block.weight, at_block.worst, at_block.unit) == (0.01, 2.0, 0.3, "m")
    assert (way.threshold, way.worst, way.unit, way.aggregate) == (1.0, 3.0, "ratio", "")
    assert specification.stages[0].max_contribution == pytest.approx(2 * 0.29 + 0.1 * 2)
    assert specification.stages[0].penalty == pytest.approx(specification.stages[0].max_contribution + 0.1)
    assert specification.outcome.unfinished == 1.0


def test_the_hash_ignores_wording_and_spelling_of_units() -> None:
    reworded = MINIMAL.replace("4 cm", "0.04 m").replace("2 per m", "0.02 per cm", 1)
    reworded += "description: the same costs in other words\n"
    assert specification_hash(parse_specification(reworded, "a")) == specification_hash(
        parse_specification(MINIMAL, "b")
    )
    other = MINIMAL.replace("4 cm", "5 cm")
    assert specification_hash(parse_specification(other, "a")) != specification_hash(parse_specification(MINIMAL, "b"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("version: 1", "version: 2", "line 1, version: 2 is not known"),
        ("limit: 16 steps\n", "", "line 1, top level: field 'limit' is missing"),
        ("limit: 16 steps", "limit: 1.5 steps", "line 3, limit: must be a whole number"),
        ("limit: 16 steps", "limit: 2 s", "line 3, limit: [unit-mismatch] '2 s': unit 's' does not fit"),
        ("keypoints: [", "keypoint: [", "line 4, keypoint: unknown field. Did you mean 'keypoints'"),
        ("[gripper, block, goal]", "[gripper, block, block]", "line 4, keypoints[2]: 'block' is listed twice"),
        ("[gripper, block, goal]", "[gripper, 7, goal]", "line 4, keypoints[1]: expected text, found '7'"),
        ("[gripper, block, goal]", "[gripper, on, goal]", "found 'on' (put it in quotes)"),
        ("[gripper, block, goal]", "[gripper, __import__('os'), goal]", "is no name"),
        (
            "within: 4 cm",
            "within: 4",
            "line 8, stages[0].done_when.near.within: [unit-mismatch] '4'",
        ),
        ("within: 4 cm", "within: 4 deg", "unit 'deg' does not fit for length"),
        ("within: 4 cm", "within: 0 cm", "must be greater than zero"),
        ("within: 4 cm", "closer: 4 cm", "stages[0].done_when.near.closer: unknown field"),
        ("{near: {of: gripper, to: block, within", "{naer: {of: gripper, to: block, within", "Did you mean 'near'"),
        ("{near: {of: gripper, to: block, within: 4 cm}}", "{distance: {of: gripper, to: block}}", "only measures"),
        ("{near: {of: gripper, to: block, within: 4 cm}}", "{all: []}", "needs at least one condition"),
        ("{near: {of: gripper, to: block, within: 4 cm}}", "near", "line 8, stages[0].done_when: expected a mapping"),
        ("{not: {grasped: {}}}", "{grasped: {}, released: {}}", "exactly one relation, found 2"),
        ("threshold: 1 cm", "threshold: 1 deg", "line 12, stages[0].subgoal[0].threshold"),
        ("weight: 2 per m", "weight: 2", "'per <unit>' is missing"),
        ("objectives: [completion]", "objectives: [compleat]", "unknown objective 'compleat'"),
        ("objectives: [completion]", "objectives: []", "at least one of completion, safety, efficiency"),
        ("        aggregate: mean\n", "", "line 24, stages[1].path[0]: field 'aggregate' is missing"),
        ("aggregate: mean", "aggregate: meen", "Did you mean 'mean'"),
        ("        threshold: 1\n", "        aggregate: max\n", "path_length adds up over the stage by itself"),
        (
            "{distance: {of: gripper, to: block}}",
            "{duration: {}}",
            "duration adds up over the stage and belongs under 'path'",
        ),
        ("name: way", "name: at-block", "a second constraint 'at-block'"),
        ("name: way", "name: done", "'done' is reserved"),
        ("  - name: push", "  - name: push\n    name: pull", "stages[1].name: given twice"),
        ("stages:\n", "stages:\n" + "  - {name: s, done_when: {grasped: {}}}\n" * 64, "from 1 to 64 stages are needed"),
        ("weight: 2 per m", "weight: 1e300 per m", "line 13, stages[0].subgoal[0].weight: '1e300 per m' is too large"),
        ("threshold: 1 cm", "threshold: 1e7 m", "line 12, stages[0].subgoal[0].threshold: '1e7 m' is too large"),
        ("threshold: 1 cm", "worst: 1e300 m", "line 12, stages[0].subgoal[0].worst: '1e300 m' is too large"),
        ("weight: 2 per m", "weight: 1e8 per m", "line 10, stages[0].subgoal[0]: can cost 2.9e+07"),
        ("  - name: push", "    unfinished: 1e7\n  - name: push", "stages[0].unfinished: '1e7' is too large"),
        ("goal]", "goal, {name: g, mean_of: [goal], offset: {x: -1e7 m}}]", "line 4, keypoints[3].offset.x: '-1e7 m'"),
        ("limit: 16 steps", f"limit: 1 steps\ncontrol_hz: 0.{'0' * 200}1 Hz", "is no rate"),
        (
            "{near: {of: gripper, to: block, within: 4 cm}}",
            "{all: [" + "{grasped: {}}, " * 257 + "]}",
            "line 8, stages[0].done_when: has 257 relations; a formula has at most 256",
        ),
        (
            "{distance: {of: gripper, to: block}}",
            "{any: [" + "{released: {}}, " * 257 + "]}",
            "line 11, stages[0].subgoal[0].cost: has 257 relations",
        ),
        ("signals: [grasped]", f"signals: [{', '.join(f's{i}' for i in range(1025))}]", "signals: has 1025 items"),
        ("  - name: push", "  - name: !!python/name:os.system push", "line 21: tags such as"),
        ("signals: [grasped]", "signals: &a [grasped]", "line 5: anchors and aliases"),
        ("signals: [grasped]", "signals: [grasped", "not YAML"),
    ],
)
def test_each_mistake_is_told_with_line_and_field(old: str, new: str, says: str) -> None:
    assert old in MINIMAL
    with pytest.raises(DataError) as caught:
        parse_specification(MINIMAL.replace(old, new, 1), "bad.yaml")
    assert says in str(caught.value)
    assert "bad.yaml" in str(caught.value)
    assert caught.value.exit_code == 2


def _many(count: int, prefix: str) -> str:
    written = "    - {{name: {}{}, cost: {{duration: {{}}}}, weight: 0.1, objectives: [efficiency]}}\n"
    return "  path:\n" + "".join(written.format(prefix, number) for number in range(count))


def test_a_stage_has_at_most_64_constraints() -> None:
    assert len(parse_specification(MINIMAL + "every_stage:\n" + _many(62, "c"), "x").stages[0].constraints) == 64
    with pytest.raises(DataError, match=r"line 7, stages\[0\]: has 65 constraints"):
        parse_specification(MINIMAL + "every_stage:\n" + _many(63, "c"), "x")
    with pytest.raises(DataError, match=r"every_stage.path\[64\]: more than 64 constraints"):
        parse_specification(MINIMAL + "every_stage:\n" + _many(65, "c"), "x")


def test_all_problems_are_listed_at_once() -> None:
    broken = MINIMAL.replace("within: 4 cm", "within: 4").replace("weight: 0.1", "weight: heavy").replace("mean", "men")
    with pytest.raises(DataError, match="3 problems") as caught:
        parse_specification(broken, "bad.yaml")
    assert [part.split(",")[0].strip() for part in str(caught.value).splitlines()[1:4]] == [
        "line 8",
        "line 19",
        "line 26",
    ]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", "a: b: c", "\x00", "{" * 50, "- " * 2000, "a: " + "[" * 60 + "]" * 60, "x" * 300_000, "---\n---\n"],
)
def test_what_is_no_specification_is_refused(text: str) -> None:
    with pytest.raises(DataError):
        parse_specification(text, "odd.yaml")


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    with pytest.raises(DataError, match="anchors"):
        parse_specification("\n".join(lines), "bomb.yaml")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_mutilated_files_end_in_a_data_error_or_a_specification(data: st.DataObject) -> None:
    """Whatever stands in place of a line's value, the parser answers with its own error or a result."""
    lines = MINIMAL.splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    key, colon, _ = lines[number].partition(": ")
    lines[number] = key + colon + json.dumps(data.draw(_VALUES))
    with contextlib.suppress(DataError):
        assert parse_specification("\n".join(lines), "mutilated.yaml").stages


def test_every_stage_adds_its_constraints_unless_a_stage_has_its_own() -> None:
    extra = """\
every_stage:
  path:
    - {name: time, cost: {duration: {}}, weight: 0.1, objectives: [efficiency]}
    - {name: way, cost: {smoothness: {of: gripper}}, aggregate: max, weight: 1 per m/step2, objectives: [efficiency]}
"""
    specification = parse_specification(MINIMAL + extra, "x")
    names = [[constraint.name for constraint in stage.constraints] for stage in specification.stages]
    assert names == [["at-block", "way", "time"], ["low", "time", "way"]]
    assert specification.stages[0].constraints[1].cost.relation == "path_length"
