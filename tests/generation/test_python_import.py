"""Imported constraint functions against the functions themselves, on random keypoints."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from grape.core.errors import DataError, SettingsError
from grape.costs import find_problems, parse_specification
from grape.costs.measurement import Recording, relation_cost, truth
from grape.generation import ImportCostsSettings, run_import_costs
from grape.generation.documents import document_text
from grape.generation.python_import.program import Header, translate
from grape.generation.python_import.source import parse_source, read_source
from tests.generation import written_constraints
from tests.reporters import Hearing

FILE = Path(written_constraints.__file__)
NAMES = ("handle", "spout", "cup")
TRANSLATION = translate(parse_source(read_source(FILE), FILE.name), Header(keypoints=NAMES), FILE.name)
SPECIFICATION = parse_specification(document_text(TRANSLATION.document), FILE.name)
STATES = 400
RNG = np.random.default_rng(7)
POINTS = {name: RNG.uniform(-0.15, 0.15, (STATES, 3)).astype(np.float32) for name in ("gripper", *NAMES)}

EXACT = (
    "stage1_subgoal_constraint1",
    "stage1_subgoal_constraint2",
    "stage1_path_constraint1",
    "stage2_subgoal_constraint1",
    "stage2_subgoal_constraint2",
    "stage3_subgoal_constraint1",
    "stage3_subgoal_constraint2",
    "stage3_path_constraint1",
    "stage4_subgoal_constraint1",
    "stage4_subgoal_constraint2",
    "stage5_subgoal_constraint1",
    "stage5_subgoal_constraint2",
    "stage5_path_constraint1",
    "stage5_path_constraint2",
    "stage9_subgoal_constraint1",
)
"""What the function returns above 0 is what the constraints charge, to the millimeter's fraction."""

ANGLES = (
    "stage6_subgoal_constraint1",
    "stage6_path_constraint1",
    "stage7_subgoal_constraint1",
    "stage7_path_constraint1",
    "stage8_subgoal_constraint1",
)
"""Satisfied at the same states; what a violation costs is counted in degrees."""


def test_a_further_point_takes_no_name_that_a_keypoint_has() -> None:
    """Also where the keypoint is referenced only later."""
    source = """
def stage1_subgoal_constraint1(end_effector, keypoints):
    return np.linalg.norm(end_effector - (keypoints[0] + np.array([0, 0, 0.1]))) - 0.02
def stage1_subgoal_constraint2(end_effector, keypoints):
    return np.linalg.norm(end_effector - keypoints[1]) - 0.02
"""
    header = Header(keypoints=("cup", "cup_moved_1"))
    document = translate(parse_source(source, "x.py"), header, "x.py").document
    declared = [one if isinstance(one, str) else one["name"] for one in document["keypoints"]]
    assert sorted(declared) == ["cup", "cup_moved_1", "cup_moved_2", "gripper"]
    assert {"name": "cup_moved_2", "mean_of": ["cup"], "offset": {"z": "10 cm"}} in document["keypoints"]
    parse_specification(document_text(document), "x.yaml")


@pytest.fixture(scope="module")
def recording(request: pytest.FixtureRequest) -> Recording:
    make = request.getfixturevalue("make_trajectory")
    return Recording(make(POINTS, {"grasped": np.zeros(STATES)}), SPECIFICATION.limit, SPECIFICATION.sources)


def returned(name: str) -> np.ndarray:
    function = getattr(written_constraints, name)
    rows = [np.stack([POINTS[point][row] for point in NAMES]).astype(np.float64) for row in range(STATES)]
    return np.array(
        [function(POINTS["gripper"][row].astype(np.float64), keypoints) for row, keypoints in enumerate(rows)]
    )


def constraints_of(name: str) -> list:
    number, kind = int(name[5]), name.split("_")[1]
    stem = f"{kind}-{name[-1]}"
    stage = SPECIFICATION.stages[number - 1]
    return [one for one in stage.constraints if one.name == stem or one.name.startswith(f"{stem}-")]


@pytest.mark.parametrize("name", EXACT)
def test_costs_are_those_of_the_function(name: str, recording: Recording) -> None:
    charged = sum(one.weight * relation_cost(recording, one.cost) for one in constraints_of(name))
    np.testing.assert_allclose(charged, np.maximum(0.0, returned(name)), atol=2e-6)


@pytest.mark.parametrize("name", ANGLES)
def test_angles_hold_at_the_same_states(name: str, recording: Recording) -> None:
    charged = sum(relation_cost(recording, one.cost) for one in constraints_of(name))
    value = returned(name)
    clear = np.abs(value) > 1e-3  # float32 and rounded degrees decide the rest
    assert clear.mean() > 0.9
    assert 0.0 < np.mean(value > 0.0) < 1.0
    assert ((charged > 0.0) == (value > 0.0))[clear].all()


def test_stages_end_where_their_subgoals_hold(recording: Recording) -> None:
    for number in (1, 3, 6):
        satisfied = np.ones(STATES, dtype=bool)
        for name in (name for name in TRANSLATION.translated if name.startswith(f"stage{number}_subgoal")):
            satisfied &= returned(name) <= 1e-6
        if number == 1:
            assert TRANSLATION.document["stages"][0]["done_when"]["all"][-1] == {"grasped": {}}
            satisfied &= False
        assert (truth(recording, SPECIFICATION.stages[number - 1].done_when) == satisfied).mean() > 0.98


def test_everything_was_translated_and_passes_the_static_checks() -> None:
    assert [item.what for item in TRANSLATION.left_out] == ["get_grasping_cost_by_keypoint_idx"]
    functions = [name for name in vars(written_constraints) if name.startswith("stage")]
    assert sorted(TRANSLATION.translated) == sorted(functions)
    assert [str(finding) for finding in find_problems(SPECIFICATION) if finding.error] == []
    assert TRANSLATION.document["stages"][8]["done_when"]["all"][-1] == {"released": {}}
    assert any("in degrees" in note for note in TRANSLATION.notes)


def translated(text: str, **header: object) -> dict:
    return translate(parse_source(text, "f.py"), dataclasses.replace(Header(), **header), "f.py").document


def test_other_spellings_mean_the_same() -> None:
    spellings = (
        "return np.linalg.norm(end_effector - keypoints[0]) - 0.05",
        "d = keypoints[0] - end_effector\n    return np.sqrt(np.sum(np.square(d))) - 0.05",
        "d = keypoints[0] - end_effector\n    return -(0.05 - np.sqrt((d ** 2).sum()))",
        "x: float = np.linalg.norm(np.array([end_effector[0] - keypoints[0][0], end_effector[1] - keypoints[0][1], "
        "end_effector[2] - keypoints[0][2]]))\n    return float(x) - 5 / 100",
        "d = keypoints[0] - end_effector\n    return max(0, np.sqrt(np.dot(d, d)) - 0.05)",
    )
    head = "def stage1_subgoal_constraint1(end_effector, keypoints):\n    "
    documents = [translated(head + spelling) for spelling in spellings]
    assert documents[0]["stages"][0]["done_when"] == {"near": {"of": "gripper", "to": "point_0", "within": "5 cm"}}
    assert all(document == documents[0] for document in documents)
    other = head.replace("stage1_subgoal_constraint1(end_effector", "stage_1_subgoal_constraint(hand")
    assert (
        translated(other + "return np.linalg.norm(hand - keypoints[0]) - 0.05")["stages"][0]["done_when"]
        == (documents[0]["stages"][0]["done_when"])
    )


def test_an_answer_is_read_as_it_came_and_so_is_a_folder(tmp_path: Path) -> None:
    """A model's whole answer, and the files that ReKep cuts it into, give the same specification."""
    parts = {
        "stage1_subgoal": "def stage1_subgoal_constraint1(end_effector, keypoints):\n"
        "    return np.linalg.norm(end_effector - keypoints[0]) - 0.03\n",
        "stage1_path": "",
        "stage2_subgoal": "def stage2_subgoal_constraint1(end_effector, keypoints):\n"
        "    return np.linalg.norm(keypoints[0] - (keypoints[1] + np.array([0, 0, 0.1])))\n",
        "stage2_path": "def stage2_path_constraint1(end_effector, keypoints):\n"
        "    return get_grasping_cost_by_keypoint_idx(0)\n",
    }
    lists = {"num_stages": 2, "grasp_keypoints": [0, -1], "release_keypoints": [-1, 0]}
    folder = tmp_path / "task"
    folder.mkdir()
    for name, text in parts.items():
        (folder / f"{name}_constraints.txt").write_text(text)
    (folder / "metadata.json").write_text(
        json.dumps(lists | {"task": "stack", "init_keypoint_positions": [[0.1, 0, 0]]})
    )
    answer = tmp_path / "answer.txt"
    code = "".join(parts.values()) + "".join(f"{name} = {value}\n" for name, value in lists.items())
    answer.write_text(f"There are two stages.\n\n```python\n# Stage 1\n{code}```\nGood luck!\n")
    summaries = [
        run_import_costs(ImportCostsSettings(file=file, out=tmp_path / f"{file.stem}.yaml"))
        for file in (folder, answer)
    ]
    assert summaries[0]["hash"] == summaries[1]["hash"]
    assert summaries[0]["left_out"] == summaries[1]["left_out"] == []
    document = yaml.safe_load((tmp_path / "task.yaml").read_text())
    assert document["stages"][0]["done_when"]["all"][1] == {"grasped": {}}
    assert document["stages"][1]["done_when"]["all"][1] == {"released": {}}
    (folder / "metadata.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="cannot be read as JSON"):
        run_import_costs(ImportCostsSettings(file=folder, out=tmp_path / "c.yaml"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds 0 files"):
        run_import_costs(ImportCostsSettings(file=tmp_path / "empty", out=tmp_path / "c.yaml"))


def _numbered(count: int, body: str) -> str:
    text = "".join(
        f"def stage1_path_constraint{number}(end_effector, keypoints):\n    return {body.format(number)}\n"
        for number in range(1, count + 1)
    )
    return f"import numpy as np\ndef stage1_subgoal_constraint1(end_effector, keypoints):\n    return {MEASURE}\n{text}"


MEASURE = "np.linalg.norm(end_effector - keypoints[0])"


def test_moved_points_and_functions_end_at_a_limit_instead_of_a_crash() -> None:
    moved = _numbered(80, "np.linalg.norm(end_effector - keypoints[0] - np.array([0, 0, 0.0{:03d}]))")
    translation = translate(parse_source(moved, "moved.py"), Header(), "moved.py")
    assert len([point for point in translation.document["keypoints"] if "mean_of" in point]) == 64
    assert len(translation.translated) == 65
    assert [str(item) for item in translation.left_out] == [
        f"line {4 + 2 * number}, stage1_path_constraint{number + 1}: needs another moved point or mean; "
        "at most 64 are declared."
        for number in range(64, 80)
    ]
    many = translate(parse_source(_numbered(300, MEASURE), "many.py"), Header(), "many.py")
    assert len(many.translated) == 256
    assert len(many.left_out) == 45
    assert "comes after 256 others" in many.left_out[0].why


def test_the_verb_fills_in_what_the_task_knows(tmp_path: Path) -> None:
    file, out = tmp_path / "push.py", tmp_path / "push.yaml"
    file.write_text(
        "import numpy as np\n"
        "def stage1_subgoal_constraint1(end_effector, keypoints):\n"
        "    return np.linalg.norm(keypoints[0] - keypoints[1]) - 0.05\n"
        "def stage1_path_constraint1(end_effector, keypoints):\n"
        "    return np.cross(keypoints[0], keypoints[1])\n"
    )
    settings = ImportCostsSettings(file=file, out=out, suite="toy", task="push-block", keypoints="object,goal")
    reporter = Hearing()
    summary = run_import_costs(settings, reporter)
    document = yaml.safe_load(out.read_text())
    assert (document["suite"], document["task"]) == ("toy", "push-block")
    assert document["control_hz"].endswith("Hz")
    assert document["keypoints"] == ["object", "goal"]
    assert summary["translated"] == ["stage1_subgoal_constraint1"]
    assert summary["left_out"] == [{"line": 4, "what": "stage1_path_constraint1", "why": "calls 'np.cross'"}]
    assert "Not translated: line 4, stage1_path_constraint1: calls 'np.cross'." in reporter.warnings
    assert run_import_costs(settings) == summary
    out.write_text("mine\n")
    with pytest.raises(SettingsError, match="exists and holds something else"):
        run_import_costs(settings)
    assert out.read_text() == "mine\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": "a b"}, "no name of a keypoint"),
        ({"gripper": "é"}, "no name of a keypoint"),
        ({"near": "3"}, "the unit is missing"),
        ({"near": "0 cm"}, "greater than zero"),
        ({"aligned": "200 deg"}, "below 180 deg"),
        ({"limit": -1}, "--limit is -1"),
        ({"task": "push-block"}, "--task needs --suite"),
        ({"suite": "toi"}, "Unknown suite"),
        ({"suite": "toy", "task": "push"}, "Unknown task"),
        ({"suite": "toy", "task": "0-1"}, "names 2 tasks"),
        ({"keypoints": "object"}, "uses keypoint 1, and only 1 are named"),
    ],
)
def test_mistakes_are_told(change: dict, message: str, tmp_path: Path) -> None:
    file = tmp_path / "f.py"
    file.write_text(
        "def stage1_subgoal_constraint1(end_effector, keypoints):\n"
        "    return np.linalg.norm(keypoints[1] - end_effector)\n"
    )
    with pytest.raises((SettingsError, DataError), match=message):
        run_import_costs(ImportCostsSettings(**{"file": file, "out": tmp_path / "out.yaml", **change}))
    assert not (tmp_path / "out.yaml").exists()
