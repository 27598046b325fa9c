"""The WidowX tasks in ManiSkill. The first environment of a process takes 20 s, so most tests share theirs."""

import dataclasses
import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from grape.core.errors import SettingsError
from grape.core.images import simpler_openvla_v1
from grape.core.tasks import Task
from grape.envs.base import Snapshot
from grape.envs.registry import select_tasks
from grape.envs.simpler.environment import WidowXEnvironment
from grape.envs.simpler.suite import WidowXSuite
from grape.envs.simpler.tasks import arrangement_of, base_task_of
from grape.envs.simpler.world import Body, Pose
from tests.envs import maniskill_assets
from tests.envs.snapshots import assert_same, assert_slow_is_half_of_clean, run_expert

maniskill_assets.require()

CARROT, CUBES, SPOON, EGGPLANT = WidowXSuite("simpler_widowx").tasks
OPEN, CLOSED = 1.0, 0.0
BACKGROUNDS = maniskill_assets.ASSETS / "data" / "tasks" / "bridge_v2_real2sim_dataset" / "real_inpainting"


def actions(count: int) -> np.ndarray:
    drawn = np.random.default_rng(0).uniform(-1, 1, (count, 7)).astype(np.float32)
    drawn *= np.array([0.03] * 3 + [0.1] * 3 + [1], dtype=np.float32)
    drawn[:, 6] = drawn[:, 6] > 0
    return drawn


def play(environment: WidowXEnvironment, initial_state: int, decisions: np.ndarray) -> list[Snapshot]:
    return [environment.reset(initial_state), *(environment.step(action) for action in decisions)]


def fingerprint(snapshots: list[Snapshot]) -> str:
    digest = hashlib.sha256()
    for snapshot in snapshots:
        assert snapshot.display is not None
        digest.update(snapshot.image.tobytes() + snapshot.display.tobytes() + snapshot.proprio.tobytes())
        digest.update(b"".join(snapshot.keypoints[name].tobytes() for name in sorted(snapshot.keypoints)))
    return digest.hexdigest()


@pytest.fixture(scope="module")
def environment() -> WidowXEnvironment:
    return WidowXEnvironment(CARROT)


@pytest.mark.slow
def test_another_process_sees_the_same(environment: WidowXEnvironment) -> None:
    program = (
        "from tests.envs.test_simpler import *\nprint(fingerprint(play(WidowXEnvironment(CARROT), 4, actions(3))))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=1800)
    assert answer.stdout.split()[-1] == fingerprint(play(environment, 4, actions(3)))


def test_reset_leaves_no_trace_and_lanes_do_not_disturb_one_another(environment: WidowXEnvironment) -> None:
    decisions = actions(4)
    alone = play(environment, 7, decisions)
    other = WidowXEnvironment(CUBES)
    again = [environment.reset(7)]
    other.reset(8)
    for action in decisions:
        again.append(environment.step(action))
        other.step(-action)
    other.close()
    for one, expected in zip(again, alone, strict=True):
        assert_same(one, expected)


def test_steps_without_images_lead_to_the_same_states_and_the_same_last_image(
    environment: WidowXEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    decisions = actions(5)
    stepped = play(environment, 3, decisions)
    environment.reset(3)
    world, drawn = environment._world, []
    assert world is not None
    take = world._scene._get_obs_sensor_data

    def taken() -> Any:
        drawn.append(1)
        return take()

    monkeypatch.setattr(world._scene, "_get_obs_sensor_data", taken)
    advanced = [environment.advance(action) for action in decisions]
    assert drawn == []
    assert_same(environment.look(advanced[-1]), stepped[-1])
    assert drawn == [1]
    for blind, seen in zip(advanced, stepped[1:], strict=True):
        assert blind.image.shape == (0, 0, 3)
        assert_same(dataclasses.replace(blind, image=seen.image, display=seen.display), seen)


def test_without_images_the_physics_is_the_same(environment: WidowXEnvironment) -> None:
    blind = WidowXEnvironment(CARROT, images=False)
    for one, seen in zip(play(blind, 2, actions(2)), play(environment, 2, actions(2)), strict=True):
        assert one.image.shape == (1, 1, 3)
        assert one.display is None
        assert one.signals == seen.signals
        for name, point in one.keypoints.items():
            np.testing.assert_array_equal(point, seen.keypoints[name])
    blind.close()


def test_snapshot_tells_what_a_policy_a_cost_and_a_person_need(environment: WidowXEnvironment) -> None:
    snapshot = environment.reset(0)
    assert snapshot.display is not None
    assert snapshot.display.shape == (480, 640, 3)
    np.testing.assert_array_equal(snapshot.image, simpler_openvla_v1(snapshot.display))
    assert snapshot.proprio.shape == (8,)
    keypoints, signals = snapshot.keypoints, snapshot.signals
    np.testing.assert_array_equal(keypoints["object_start"], keypoints["object"])
    length = np.linalg.norm(keypoints["object_end_1"] - keypoints["object_end_2"])
    things = snapshot.extra["things"]
    assert length == pytest.approx(2 * max(things["object"]["half_extents"]), abs=1e-4)
    assert things["goal"]["model"] == "bridge_plate_objaverse_larger"
    assert keypoints["goal"][2] - keypoints["target"][2] == pytest.approx(0.022, abs=1e-4)  # half a carrot and a plate
    held = ("grasped", "touching", "collision", "moved_correct_obj", "moved_wrong_obj", "consecutive_grasp")
    assert {signals[name] for name in (*held, "src_on_target", "success")} == {0.0}
    assert signals["gripper_opening"] == 1.0
    assert not snapshot.success


def test_camera_finds_the_carrot_in_the_image(environment: WidowXEnvironment) -> None:
    snapshot = environment.reset(5)
    camera = snapshot.extra["camera"]
    intrinsic, pose = np.array(camera["intrinsic"]), np.array(camera["pose"])
    point = pose[:3, :3].T @ (snapshot.keypoints["object"] - pose[:3, 3])
    column, row = (intrinsic @ point)[:2] / point[2]
    assert snapshot.display is not None
    assert camera["size"] == list(snapshot.display.shape[:2])
    red, green, blue = snapshot.display[int(row) - 3 : int(row) + 4, int(column) - 3 : int(column) + 4].mean(
        axis=(0, 1)
    )
    assert red > 120
    assert red > 1.3 * green > 1.3 * blue  # orange


def test_gripper_opens_at_one_and_closes_at_zero(environment: WidowXEnvironment) -> None:
    environment.reset(0)
    for gripper in (CLOSED, OPEN):
        for _ in range(3):
            snapshot = environment.step(np.array([0, 0, 0, 0, 0, 0, gripper], dtype=np.float32))
        assert snapshot.signals["gripper_opening"] == pytest.approx(gripper, abs=0.05)


def test_translation_is_in_meters_along_the_axes_of_the_base(environment: WidowXEnvironment) -> None:
    before = environment.reset(0)
    for _ in range(3):
        environment.step(np.array([0.02, 0, 0, 0, 0, 0, 1], dtype=np.float32))
    for _ in range(4):  # the arm arrives
        after = environment.step(np.array([0, 0, 0, 0, 0, 0, 1], dtype=np.float32))
    np.testing.assert_allclose(after.proprio[:3] - before.proprio[:3], [0.06, 0, 0], atol=0.004)
    moved = after.keypoints["gripper"] - before.keypoints["gripper"]
    np.testing.assert_allclose(moved, [-0.06, 0, 0], atol=0.004)  # the base is turned by half a turn


def test_the_eggplants_plane_is_not_drawn_and_no_other_background_leaks_in(environment: WidowXEnvironment) -> None:
    environment.reset(0)
    sink = WidowXEnvironment(EGGPLANT)
    snapshot = sink.reset(0)
    background = np.asarray(Image.open(BACKGROUNDS / "bridge_sink.png").convert("RGB"))
    assert snapshot.display is not None
    assert background.shape == snapshot.display.shape
    camera = snapshot.extra["camera"]
    intrinsic, pose = np.array(camera["intrinsic"]), np.array(camera["pose"])
    point = pose[:3, :3].T @ (snapshot.keypoints["target"] - pose[:3, 3])
    column, row = ((intrinsic @ point)[:2] / point[2]).astype(int)
    basket = np.s_[row - 20 : row + 20, column - 30 : column + 30]
    np.testing.assert_array_equal(snapshot.display[basket], background[basket])
    assert (snapshot.display != background).any()  # eggplant and robot are drawn
    sink.close()


def test_a_decision_of_the_slower_suite_is_three_steps_of_a_third(environment: WidowXEnvironment) -> None:
    slower = WidowXEnvironment(select_tasks(WidowXSuite("simpler_widowx_held3"), CARROT.name)[0], images=False)
    first = slower.reset(5)
    last = slower.step(np.array([0.06, 0.03, -0.03, 0, 0, 0.3, CLOSED], dtype=np.float32))
    quick = WidowXEnvironment(CARROT, images=False)
    assert_same(first, quick.reset(5))
    for _ in range(3):
        expected = quick.step(np.array([0.02, 0.01, -0.01, 0, 0, 0.1, CLOSED], dtype=np.float32))
    for name, point in expected.keypoints.items():
        np.testing.assert_allclose(last.keypoints[name], point, atol=1e-6, err_msg=name)
    assert np.linalg.norm(last.keypoints["gripper"] - first.keypoints["gripper"]) > 0.02
    assert last.signals["gripper_opening"] == expected.signals["gripper_opening"] < 0.5
    slower.close()
    quick.close()


@pytest.mark.slow  # a scene a second
def test_every_variation_is_built_as_its_name_says() -> None:
    """All that differ from their task in more than words, after things came to rest from initial state 1."""
    originals = {task.name: started(task) for task in WidowXSuite("simpler_widowx").tasks}
    for task in WidowXSuite("simpler_widowx_subject").tasks:
        source, pose, target = started(task)
        old_source, old_pose, old_target = originals[base_task_of(task)]
        assert source.name == arrangement_of(task).source != old_source.name, task.name
        np.testing.assert_allclose(pose.position[:2], old_pose.position[:2], atol=0.006, err_msg=task.name)
        # Each rests on what carried the other: their centers differ in height by no more than half a thickness.
        assert abs(pose.position[2] - old_pose.position[2]) < max(source.half_extents.min(), 0.01), task.name
        np.testing.assert_allclose(target.position, old_target.position, atol=1e-4, err_msg=task.name)
    for task in WidowXSuite("simpler_widowx_physical").tasks:
        source, pose, target = started(task)
        old_source, old_pose, old_target = originals[base_task_of(task)]
        _, _, change = task.name.rpartition("-")
        scale = {"smaller": 0.8, "larger": 1.25}.get(change, 1.0)
        assert source.name == old_source.name
        np.testing.assert_allclose(source.half_extents / old_source.half_extents, scale, atol=1e-4, err_msg=task.name)
        shift = pose.position - old_pose.position
        expected = (0.02, -0.02) if change == "shifted" else (0.0, 0.0)
        np.testing.assert_allclose(shift[:2], expected, atol=0.003, err_msg=task.name)
        higher = 0 if abs(shift[2]) < 0.0015 else np.sign(shift[2])  # a larger thing's center is
        assert higher == np.sign(scale - 1.0), task.name
        turn = Rotation.from_matrix(pose.rotation @ old_pose.rotation.T).as_rotvec(degrees=True)
        assert turn[2] == pytest.approx(45.0 if change == "turned" else 0.0, abs=1.0), task.name
        np.testing.assert_allclose(target.position, old_target.position, atol=1e-4, err_msg=task.name)


def started(task: Task) -> tuple[Body, Pose, Pose]:
    """The source, its pose and the target's, as initial state 1 begins."""
    environment = WidowXEnvironment(task, images=False)
    world = environment.reset(1).privileged["world"]
    poses = world.source, world.source_pose, world.target_pose
    environment.close()
    return poses


def test_unknown_initial_states_are_refused(environment: WidowXEnvironment) -> None:
    for state in (-1, 24):
        with pytest.raises(SettingsError, match="no initial state"):
            environment.reset(state)


def test_the_slow_expert_moves_half_as_far_and_grips_as_ever(environment: WidowXEnvironment) -> None:
    assert_slow_is_half_of_clean(WidowXSuite("simpler_widowx"), CARROT, environment.reset(0))


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["clean", "noisy"])
def test_the_expert_of_the_slower_suite_steers_for_it(operator: str) -> None:
    suite = WidowXSuite("simpler_widowx_held3", images=False)
    task = suite.tasks[3]
    environment = suite.make_environment(task)
    snapshots = run_expert(suite, task, environment, 3, operator)
    assert snapshots[-1].success
    assert len(snapshots) < 25
    environment.close()


@pytest.mark.slow
def test_clean_expert_puts_the_carrot_on_the_plate() -> None:
    suite = WidowXSuite("simpler_widowx", images=False)
    environment = suite.make_environment(CARROT)
    snapshots = run_expert(suite, CARROT, environment, 3)
    assert snapshots[-1].success
    assert snapshots[-1].signals["src_on_target"] == 1.0
    assert snapshots[-1].signals["opened"] > 0.7
    assert max(snapshot.signals["grasped"] for snapshot in snapshots) == 1.0
    for _ in range(5):  # it lies there, whatever happens afterwards with an open hand
        last = environment.step(np.array([0, 0, 0.02, 0, 0, 0, OPEN], dtype=np.float32))
    assert last.success
    assert last.signals["grasped"] == 0.0
    environment.close()
