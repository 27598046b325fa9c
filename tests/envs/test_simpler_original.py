"""The suite of the original SimplerEnv in another interpreter, over a stand-in with its interface."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grape.cli.main import main
from grape.collect import CollectSettings, run_collect
from grape.compat.inference_translation import TASKS
from grape.core.errors import SettingsError, SimulatorError
from grape.core.images import simpler_openvla_v1
from grape.core.trajectories import Observation
from grape.costs import suite_names_of
from grape.envs.external_python import suite_of
from grape.envs.pool import GroupReply, WorkerPool
from grape.envs.registry import get_suite
from grape.envs.simpler_original.environment import axis_angle, rotation_matrix
from grape.policies.base import ActionBatch, PolicySpec
from grape.store import EpisodeStore
from tests.collect.test_collect import store_bytes
from tests.envs.other_python import needs_other_python, with_packages

SUITE = "simpler_widowx-v0"


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter with the stand-in, installed as far as its metadata."""
    packages = tmp_path / "packages"
    shutil.copytree(Path(__file__).parent / "simpler_standin", packages, ignore=shutil.ignore_patterns("__pycache__"))
    for name, version in (("simpler_env", "0.0.1"), ("mani_skill2_real2sim", "0.5.3"), ("sapien", "2.2.2")):
        facts = packages / f"{name}-{version}.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return with_packages(tmp_path, packages)


class Carrier:
    """Takes the source to the target by the images of the stand-in's keypoints: a script for a policy."""

    def __init__(self) -> None:
        self.spec = PolicySpec(7, 224, "1 opens, 0 closes", "bridge_orig", "carrier", "road")

    def prompt(self, instruction: str) -> str:
        return instruction

    def act(self, observations: list[Observation], *, temperature: float = 0.0, seeds: Any = None) -> ActionBatch:
        # Down, and shut: enough to have something recorded.
        actions = np.tile(np.array([0.01, -0.02, -0.03, 0, 0, 0.1, 0.2], np.float32), (len(observations), 1, 1))
        return ActionBatch(actions, np.zeros(actions.shape, np.int32), np.zeros(actions.shape, np.float32))


def play(python: Path, state: int, actions: list[list[float]]) -> list[GroupReply]:
    task = get_suite(SUITE).tasks[0]
    with WorkerPool(SUITE, 1, 1, 60.0, python) as pool:
        pool.start(0, task, [state])
        replies = pool.wait()
        for action in actions:
            pool.step(0, np.array([action], np.float32), [True])
            replies += pool.wait()
    return replies


@needs_other_python
def test_a_task_is_carried_out_over_the_wire(python: Path) -> None:
    begin = play(python, 3, [])[0].snapshots[0]
    assert begin is not None
    names = suite_names_of(SUITE)
    assert set(begin.keypoints) == set(names.keypoints)
    assert set(begin.signals) == set(names.signals)
    assert begin.extra["things"]["object"] == {"model": "carrot", "half_extents": [0.0575, 0.016, 0.019]}
    assert np.allclose(np.array(begin.extra["camera"]["pose"])[:3, 3], [-0.1, 0, 1.5])
    assert begin.image.shape == (224, 224, 3)
    assert np.array_equal(begin.image, simpler_openvla_v1(begin.display))
    point = {name: np.array(value, np.float64) for name, value in begin.keypoints.items()}
    # In the base's axes, which are turned by half a turn: there, down to the carrot, shut, up, over the plate, open.
    to_source, to_target = (point["object"] - point["gripper"], point["goal"] - point["object"])
    turned = np.array([-1.0, -1.0, 1.0])
    actions = [[*(to_source * turned), 0, 0, 0, 1], [0] * 7, *([[0] * 7] * 4), [*(to_target * turned), 0, 0, 0, 0]]
    replies = play(python, 3, [*actions, [0, 0, 0, 0, 0, 0, 1]])
    snapshots = [reply.snapshots[0] for reply in replies]
    signals = [snapshot.signals for snapshot in snapshots if snapshot is not None]
    assert [row["grasped"] for row in signals] == [0, 0, 1, 1, 1, 1, 1, 1, 0]
    assert [row["touching"] for row in signals] == [row["grasped"] for row in signals]
    assert [row["consecutive_grasp"] for row in signals] == [0, 0, 0, 0, 0, 0, 1, 1, 1]
    assert [row["success"] for row in signals] == [0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert signals[0]["opened"] == 0.0
    assert signals[-1]["opened"] > 0.9
    assert signals[-1]["gripper_opening"] == 1.0
    assert snapshots[-1].success
    ends = [snapshots[0].keypoints[f"object_end_{number}"] for number in (1, 2)]
    assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(0.115)


@needs_other_python
def test_collection_records_the_other_interpreters_versions_and_repeats_to_the_byte(
    python: Path, tmp_path: Path
) -> None:
    def collect(name: str, lanes: int) -> dict[str, str]:
        settings = CollectSettings(
            tmp_path / name,
            suite=SUITE,
            tasks="carrot-on-plate",
            policy="p",
            initial_states="0-2",
            temperature=0.0,
            until="last-step",
            max_steps=4,
            lanes=lanes,
            workers=1,
            env_python=python,
        )
        run_collect(settings, policy=Carrier())
        return store_bytes(settings.out)

    once = collect("one", 3)
    assert once == collect("two", 1)
    store = EpisodeStore.open(tmp_path / "one" / "store")
    meta = store.metas()[0]
    assert dict(meta.versions) == {
        "simpler_env": "0.0.1",
        "mani_skill2_real2sim": "0.5.3",
        "sapien": "2.2.2",
        "numpy": "1.26.4",
    }
    assert (meta.steps, meta.until) == (4, "last-step")


@needs_other_python
def test_what_is_missing_is_said_before_the_first_rollout(
    python: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(tmp_path / "packages" / "sapien-2.2.2.dist-info")
    words = ["collect", "--suite", SUITE, "--initial-states", "0", "--out", str(tmp_path / "run"), "--json"]
    assert main([*words, "--env-python", str(python)]) == 2
    assert "has no scripted experts" in json.loads(capsys.readouterr().out)["error"]
    with pytest.raises(SettingsError, match="package 'sapien' is not installed") as error:
        suite_of(SUITE, python).versions()
    assert "docs/simpler-original.md" in error.value.hint


@needs_other_python
def test_a_simulator_that_fails_at_import_is_quoted(python: Path, tmp_path: Path) -> None:
    module = tmp_path / "packages" / "simpler_env" / "__init__.py"
    module.write_text("import sys; sys.stderr.write('libvulkan.so.1: cannot open'); raise RuntimeError('no device')")
    with pytest.raises(SimulatorError, match=r"RuntimeError: no device .*libvulkan\.so\.1: cannot open") as error:
        suite_of(SUITE, python).versions()
    assert "grape.envs" not in str(error.value.hint)
    module.write_text("import transforms3d_of_long_ago")
    with pytest.raises(SettingsError, match="No module named 'transforms3d_of_long_ago'"):
        suite_of(SUITE, python).versions()


@needs_other_python
def test_a_scene_that_cannot_be_built_is_a_failure_with_its_reason(python: Path) -> None:
    with WorkerPool(SUITE, 1, 1, 60.0, python) as pool:
        pool.start(0, get_suite(SUITE).tasks[1], [0])
        (reply,) = pool.wait()
    assert reply.failure is not None
    assert "cannot build stack-cubes: FileNotFoundError: info_bridge_custom_baked_tex_v0.json" in reply.failure


def test_tasks_and_names_are_those_of_the_suite_in_maniskill() -> None:
    original, successor = get_suite(SUITE), get_suite("simpler_widowx")
    facts = [[(task.name, task.instruction, task.max_steps) for task in suite.tasks] for suite in (original, successor)]
    assert facts[0] == facts[1]
    assert original.action_space == successor.action_space
    assert original.n_initial_states(original.tasks[0]) == successor.n_initial_states(successor.tasks[0])
    assert {task.name for task in original.tasks} == {task.task for task in TASKS.values()}


def test_without_another_interpreter_the_way_there_is_named() -> None:
    with pytest.raises(SettingsError, match="runs in the original SimplerEnv") as error:
        get_suite(SUITE).versions()
    assert "--env-python" in error.value.hint


def test_rotations_agree_with_scipys() -> None:
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    rng = np.random.default_rng(0)
    turns = [*rotation.random(200, random_state=1), rotation.from_rotvec([0, 0, np.pi - 1e-9]), rotation.identity()]
    turns += [rotation.from_rotvec(angle * axis) for axis in np.eye(3) for angle in (1e-9, 3.1, -3.1)]
    for turn in turns:
        quaternion = turn.as_quat()[[3, 0, 1, 2]] * rng.choice([-1, 1])
        assert np.allclose(rotation_matrix(quaternion), turn.as_matrix(), atol=1e-12)
        assert np.allclose(axis_angle(turn.as_matrix()), turn.as_rotvec(), atol=1e-7)
