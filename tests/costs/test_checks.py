import pytest

from grape.core.errors import DataError
from grape.costs import (
    Finding,
    builtin_names,
    builtin_specification,
    builtin_suites,
    check_specification,
    find_problems,
)
from grape.costs.parsing import parse_specification

HEAD = """\
version: 1
limit: 16 steps
keypoints: [gripper, block, goal]
signals: [grasped, gripper_opening, opened, success]
stages:
"""
TAIL = """\
every_stage:
  path:
    - {name: way, cost: {path_length: {of: gripper, reference: 30 cm}}, weight: 0.1, objectives: [safety, efficiency]}
"""
NEAR = "{near: {of: gripper, to: block, within: 3 cm}}"


def codes(*conditions: str, constraint: str = "", errors_only: bool = True) -> list[str]:
    """Codes of the findings for stages with these ``done_when``."""
    stages = "".join(f"  - name: s{i}\n    done_when: {condition}\n" for i, condition in enumerate(conditions))
    if constraint:
        stages += f"    subgoal:\n      - {{name: c, objectives: [completion], {constraint}}}\n"
    specification = parse_specification(HEAD + stages + TAIL, "test.yaml")
    return [finding.code for finding in find_problems(specification) if finding.error or not errors_only]


@pytest.mark.parametrize(
    "condition",
    [
        "{all: [{grasped: {}}, {released: {}}]}",
        "{all: [{near: {of: gripper, to: block, within: 3 cm}}, {clear_of: {of: block, to: gripper, by: 4 cm}}]}",
        "{all: [{near: {of: gripper, to: block, within: 3 cm}}, {above: {of: gripper, to: block, by: 5 cm}}]}",
        "{all: [{near: {of: block, to: gripper, within: 3 cm}}, {below: {of: gripper, to: block, by: 5 cm}}]}",
        "{all: [{above: {of: block, to: goal, by: 1 cm}}, {below: {of: block, to: goal}}]}",
        "{all: [{gripper_open: {at_least: 0.6}}, {gripper_closed: {at_most: 0.5}}]}",
        "{all: [{displaced: {of: block, by: 5 cm}}, {undisturbed: {of: block, within: 2 cm}}]}",
        "{any: [{all: [{grasped: {}}, {not: {grasped: {}}}]}, {not: {any: [{grasped: {}}, {released: {}}]}}]}",
        "{not: {opened: {at_least: 0}}}",
    ],
)
def test_contradictions_make_a_stage_unreachable(condition: str) -> None:
    assert codes(condition, NEAR) == ["unreachable-stage"]


def test_the_cameras_frame_is_found_where_no_camera_is_recorded() -> None:
    word = "{left_of: {of: gripper, to: block, by: 1 cm, frame: camera}}"
    specification = parse_specification(f"{HEAD}  - name: s0\n    done_when: {word}\n{TAIL}", "test.yaml")
    codes_by_camera = {
        camera: [one.code for one in find_problems(specification, camera=camera)] for camera in (None, True, False)
    }
    assert "unknown-frame" not in [*codes_by_camera[None], *codes_by_camera[True]]
    assert codes_by_camera[False].count("unknown-frame") == 1
    with pytest.raises(DataError, match=r"\[unknown-frame\]"):
        check_specification(specification, specification.keypoints, specification.signals, camera=False)


def test_a_keypoint_compared_with_itself_is_found() -> None:
    assert "self-comparison" in codes("{above: {of: gripper, to: gripper, by: 1 cm}}")


@pytest.mark.parametrize(
    "condition",
    [
        "{any: [{grasped: {}}, {released: {}}]}",
        "{opened: {at_least: 0}}",
        "{not: {all: [{grasped: {}}, {released: {}}]}}",
    ],
)
def test_what_always_holds_makes_an_empty_stage(condition: str) -> None:
    assert codes(condition) == ["empty-stage"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (NEAR, NEAR),
        (NEAR, "{near: {of: block, to: gripper, within: 5 cm}}"),
        (NEAR, "{near_xy: {of: gripper, to: block, within: 3 cm}}"),
        ("{all: [{grasped: {}}, {opened: {at_least: 0.5}}]}", "{opened: {at_least: 0.4}}"),
        ("{opened: {at_least: 0.5}}", "{any: [{grasped: {}}, {opened: {at_least: 0.4}}]}"),
    ],
)
def test_a_stage_that_ends_where_it_starts_is_found(first: str, second: str) -> None:
    assert codes(first, second) == ["empty-stage"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (NEAR, "{near: {of: gripper, to: block, within: 2 cm}}"),
        (NEAR, "{grasped: {}}"),
        (NEAR, "{near: {of: gripper, to: goal, within: 3 cm}}"),
        ("{opened: {at_least: 0.4}}", "{opened: {at_least: 0.5}}"),
        ("{any: [{grasped: {}}, {opened: {at_least: 0.5}}]}", "{opened: {at_least: 0.5}}"),
        (
            "{all: [{above: {of: gripper, to: block, by: 2 cm}}, {near_xy: {of: gripper, to: block, within: 1 cm}}]}",
            NEAR,
        ),
    ],
)
def test_sensible_stages_pass(first: str, second: str) -> None:
    assert codes(first, second) == []


def used(findings: tuple[Finding, ...]) -> list[Finding]:
    return [finding for finding in findings if not finding.code.startswith("unused")]


def test_a_stage_long_done_before_its_turn_is_found() -> None:
    low = "{near_z: {of: gripper, to: block, within: 4 cm}}"
    away = "{all: [{grasped: {}}, {clear_of: {of: gripper, to: block, by: 9 cm}}]}"
    for conditions, due in (([NEAR, "{grasped: {}}", low], ["stage-out-of-order"]), ([NEAR, away, NEAR], [])):
        stages = "".join(f"  - {{name: s{i}, done_when: {condition}}}\n" for i, condition in enumerate(conditions))
        findings = used(find_problems(parse_specification(HEAD + stages + TAIL, "test.yaml")))
        assert [finding.code for finding in findings] == due
        assert not any(finding.error for finding in findings)


@pytest.mark.parametrize(
    ("stages", "due"),
    [
        (["{released: {}}", NEAR], ["grasp-inconsistency"]),
        ([NEAR, "{any: [{released: {}}, {opened: {at_least: 0.5}}]}"], ["grasp-inconsistency"]),
        (["{grasped: {}}", "{released: {}}"], []),
        (["{grasped: {}}", "{opened: {at_least: 0.3}}", "{released: {}}"], []),
        (["{all: [{released: {}}, {opened: {at_least: 0.3}}]}"], []),
        (["{released: {signal: success}}"], []),  # no grasp is referenced
    ],
)
def test_releases_need_a_grasp_before_them(stages: list[str], due: list[str]) -> None:
    assert codes(*stages) == due


@pytest.mark.parametrize(
    ("first", "second", "cost", "forbidden"),
    [
        ("{grasped: {}}", "{all: [{grasped: {}}, {opened: {at_least: 0.5}}]}", "{released: {}}", True),
        ("{grasped: {}}", "{all: [{grasped: {}}, {opened: {at_least: 0.5}}]}", "{grasped: {}}", False),
        ("{grasped: {}}", "{opened: {at_least: 0.5}}", "{released: {}}", False),
        (NEAR, "{grasped: {}}", "{not: {grasped: {}}}", False),
    ],
)
def test_paths_that_the_grasp_forbids_are_found(first: str, second: str, cost: str, forbidden: bool) -> None:
    path = f"    path: [{{name: p, cost: {cost}, aggregate: mean, weight: 1, objectives: [safety]}}]\n"
    stages = f"  - name: a\n    done_when: {first}\n  - name: b\n    done_when: {second}\n{path}"
    findings = find_problems(parse_specification(HEAD + stages + TAIL, "test.yaml"))
    assert [finding.code for finding in used(findings)] == (["grasp-inconsistency"] if forbidden else [])


def test_a_path_cannot_hold_what_is_yet_to_be_grasped() -> None:
    path = "[{name: p, cost: {grasped: {}}, aggregate: mean, weight: 1, objectives: [safety]}]"
    stages = f"  - {{name: a, done_when: {{grasped: {{}}}}, path: {path}}}\n"
    (finding,) = used(find_problems(parse_specification(HEAD + stages + TAIL, "test.yaml")))
    assert str(finding).startswith(
        "[grasp-inconsistency] stage 'a', constraint 'p': grasped(signal grasped) cannot hold:"
    )
    assert not finding.error


@pytest.mark.parametrize(
    ("done_when", "cost", "due"),
    [
        ("{grasped: {}}", "{released: {}}", ["subgoal-contradicts-end"]),
        (NEAR, "{clear_of: {of: gripper, to: block, by: 5 cm}}", ["subgoal-contradicts-end"]),
        (NEAR, "{near: {of: gripper, to: block, within: 1 cm}}", []),
        (NEAR, "{all: [{grasped: {}}, {released: {}}]}", ["never-holds"]),
        (NEAR, "{any: [{grasped: {}}, {released: {}}]}", ["never-binds"]),
        (NEAR, "{not: {gripper_open: {at_least: 0}}}", ["never-holds"]),
    ],
)
def test_subgoals_that_cannot_be_met(done_when: str, cost: str, due: list[str]) -> None:
    unit = " per m" if "cm" in cost else ""
    assert codes(done_when, constraint=f"cost: {cost}, weight: 1{unit}") == due


def test_operators_over_time_are_read_as_what_they_say_of_now() -> None:
    assert codes("{all: [{always: {grasped: {}}}, {released: {}}]}", NEAR) == ["unreachable-stage"]
    assert codes("{all: [{eventually: {grasped: {}}}, {released: {}}]}", NEAR) == []
    assert codes("{eventually: {all: [{grasped: {}}, {released: {}}]}}", NEAR) == ["unreachable-stage"]
    assert codes("{not: {eventually: {opened: {at_least: 0}}}}", NEAR) == ["unreachable-stage"]
    assert codes("{until: {hold: {opened: {at_least: 0}}, reach: {grasped: {}}}}", NEAR) == []


def test_stages_after_success_are_found() -> None:
    assert codes("{succeeded: {}}", NEAR) == ["stage-after-success"]
    assert codes(NEAR, "{succeeded: {}}") == []


@pytest.mark.parametrize(
    "constraint",
    [
        "cost: {distance: {of: gripper, to: block}}, weight: 0 per m",
        "cost: {distance: {of: gripper, to: block}}, weight: 1 per m, threshold: 30 cm",
        "cost: {distance: {of: gripper, to: block}}, weight: 1 per m, threshold: 10 cm, worst: 8 cm",
        "cost: {opened: {at_least: 0.9}}, weight: 1, threshold: 0.9",
        "cost: {grasped: {}}, weight: 1, threshold: 1",
        "cost: {displaced: {of: block, by: 5 cm}}, weight: 1 per m, threshold: 6 cm",
    ],
)
def test_a_constraint_that_never_costs_is_found(constraint: str) -> None:
    assert codes(NEAR, constraint=constraint) == ["never-binds"]


def test_a_constraint_that_can_cost_passes() -> None:
    assert codes(NEAR, constraint="cost: {opened: {at_least: 0.9}}, weight: 1, threshold: 0.5") == []


def test_unknown_names_are_listed_together_with_suggestions() -> None:
    specification = parse_specification(HEAD + f"  - name: s\n    done_when: {NEAR}\n" + TAIL, "test.yaml")
    with pytest.raises(DataError, match="6 problems") as caught:
        check_specification(specification, ["griper", "goal"], ["graspd"])
    message = str(caught.value)
    assert "[unknown-keypoint] keypoints: keypoint 'gripper' is not recorded. Did you mean 'griper'?" in message
    assert "keypoint 'block' is not recorded" in message
    assert "signal 'grasped' is not recorded. Did you mean 'graspd'?" in message


def test_undeclared_names_are_errors_and_unused_ones_warnings() -> None:
    assert codes("{near: {of: gripper, to: blok, within: 3 cm}}") == ["undeclared-keypoint"]
    assert set(codes(NEAR, errors_only=False)) == {"unused-keypoint", "unused-signal"}


def test_a_huge_condition_is_given_up_on_quickly() -> None:
    pairs = [f"{{any: [{{near: {{of: a{i}, to: b, within: 1 cm}}}}, {{grasped: {{}}}}]}}" for i in range(125)]
    assert "unreachable-stage" not in codes("{all: [" + ", ".join(pairs) + "]}")


@pytest.mark.parametrize("suite", builtin_suites())
def test_built_in_specifications_have_no_findings(suite: str) -> None:
    for task in builtin_names(suite):
        assert find_problems(builtin_specification(suite, task)) == (), task
