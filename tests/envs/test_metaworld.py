import copy
import ctypes.util
import itertools
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from grape.core.errors import SettingsError, SimulatorError
from grape.core.tasks import Task
from grape.envs.base import Snapshot
from grape.envs.fast_rendering import box_downsample
from grape.envs.metaworld.camera import load_mujoco
from grape.envs.metaworld.suite import MetaWorldSuite
from grape.envs.metaworld.tasks import TASK_MODELS
from grape.envs.metaworld.world import SIMULATOR_STEPS, MetaWorldEnvironment, TaskWorld, shared_world
from tests.envs.snapshots import assert_same, assert_slow_is_half_of_clean, run_expert

pytest.importorskip("metaworld")

SUITE = MetaWorldSuite()
TASKS = pytest.mark.parametrize("task", SUITE.tasks, ids=lambda task: task.name)
SOME_TASKS = pytest.mark.parametrize("task", [SUITE.tasks[i] for i in (4, 5, 7)], ids=lambda task: task.name)


def environment_of(task: Task) -> MetaWorldEnvironment:
    return MetaWorldEnvironment(TASK_MODELS[task.index])


@pytest.fixture(scope="module")
def rollout() -> Callable[[Task], list[Snapshot]]:
    """Clean expert on initial state 0, run once a task."""
    kept: dict[str, list[Snapshot]] = {}

    def of(task: Task) -> list[Snapshot]:
        if task.name not in kept:
            kept[task.name] = run_expert(SUITE, task, environment_of(task), 0)
        return kept[task.name]

    return of


@TASKS
def test_expert_solves_the_task_and_keypoints_tell_so(task: Task, rollout: Callable[[Task], list[Snapshot]]) -> None:
    snapshots = rollout(task)
    first, last = snapshots[0], snapshots[-1]
    assert last.success
    assert not any(snapshot.success for snapshot in snapshots[:-1])
    assert first.signals["opened"] == 0.0
    assert last.signals["opened"] > 0.7
    assert last.signals["object_to_goal"] < first.signals["object_to_goal"] / 2
    assert last.signals["object_to_goal"] <= 0.12
    for name in ("gripper", "finger_left", "finger_right", "object"):
        assert np.linalg.norm(last.keypoints[name] - first.keypoints[name]) > 0.03, name
    for snapshot in snapshots:
        keypoints, signals = snapshot.keypoints, snapshot.signals
        np.testing.assert_array_equal(keypoints["goal"], first.keypoints["goal"])
        np.testing.assert_array_equal(keypoints["object_start"], first.keypoints["object"])
        fingers = (keypoints["finger_left"] + keypoints["finger_right"]) / 2
        np.testing.assert_allclose(keypoints["gripper"], fingers, atol=1e-6)
        np.testing.assert_array_equal(snapshot.proprio[:3], keypoints["gripper"])
        assert snapshot.proprio.dtype == np.float32
        assert signals["object_to_goal"] == pytest.approx(
            np.linalg.norm(keypoints["object"] - keypoints["goal"]), abs=1e-6
        )
        assert all(0.0 <= signals[name] <= 1.0 for name in ("gripper_opening", "opened"))
        assert {signals[name] for name in ("grasped", "touching", "success")} <= {0.0, 1.0}
        assert signals["grasped"] <= signals["touching"]
        articulated = TASK_MODELS[task.index].articulated
        assert ("handle" in keypoints) == articulated
        if articulated:
            np.testing.assert_array_equal(keypoints["handle"], keypoints["object"])


def test_puck_is_grasped_where_it_is_lifted(rollout: Callable[[Task], list[Snapshot]]) -> None:
    snapshots = rollout(SUITE.tasks[8])
    assert snapshots[0].signals["grasped"] == 0.0
    assert snapshots[-1].signals["grasped"] == 1.0
    assert snapshots[-1].keypoints["object"][2] > snapshots[0].keypoints["object"][2] + 0.02


@TASKS
def test_physics_and_success_are_meta_worlds_own(task: Task) -> None:
    mujoco = load_mujoco()
    ours = environment_of(task)
    snapshot = ours.reset(4)
    episode, world = ours._episode, ours._world
    assert episode is not None
    theirs = type(world.env)()
    theirs._set_task_called = theirs._freeze_rand_vec = True
    theirs._partially_observable = False
    del theirs.sawyer_observation_space  # recomputed with the goal in sight
    theirs._last_rand_vec = world.initial_vector(4)
    theirs.reset()
    mujoco.mj_forward(theirs.model, theirs.data)
    # Meta-World settles the hand with the furniture where it was left before; we do with the furniture where it
    # stands in the file. The hand touches neither.
    np.testing.assert_allclose(episode.data.qpos, theirs.data.qpos, atol=1e-4)
    np.testing.assert_allclose(episode.target, theirs._target_pos, atol=1e-4)
    np.testing.assert_array_equal(episode.body_pos, theirs.model.body_pos)

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(world.model, kind))
    mujoco.mj_getState(world.model, episode.data, state, kind)
    theirs._target_pos = episode.target.copy()
    for data in (episode.data, theirs.data):
        mujoco.mj_setState(world.model, data, state, kind)
        mujoco.mj_forward(theirs.model, data)
    expert = SUITE.make_expert(task, "clean", 0)
    solved = 0
    for _ in range(16):
        action, _ = expert.act(snapshot)
        snapshot = ours.step(action)
        held = action[[0, 1, 2, 6]]
        outcomes = [theirs.step(held)[4]["success"] for _ in range(SIMULATOR_STEPS)]
        np.testing.assert_array_equal(episode.data.qpos, theirs.data.qpos)
        np.testing.assert_array_equal(episode.data.qvel, theirs.data.qvel)
        assert snapshot.success == any(outcomes)
        np.testing.assert_array_equal(snapshot.privileged["observation"][:18], theirs._get_obs()[:18])
        solved += snapshot.success
    assert 0 < solved < 16  # else the comparison of success saw one side only


@SOME_TASKS
def test_reset_leaves_no_trace(task: Task) -> None:
    used = environment_of(task)
    rng = np.random.default_rng(0)
    used.reset(9)
    for _ in range(65):  # past Meta-World's limit of 500 steps
        used.step(rng.uniform(-1, 1, 7).astype(np.float32))
    again = [used.reset(3)]
    shared_world.cache_clear()
    untouched = environment_of(task)
    fresh = [untouched.reset(3)]
    for action in rng.uniform(-1, 1, (4, 7)).astype(np.float32):
        again.append(used.step(action))
        fresh.append(untouched.step(action))
    for one, other in zip(again, fresh, strict=True):
        assert_same(one, other)


@SOME_TASKS
def test_environments_of_a_task_do_not_disturb_one_another(task: Task) -> None:
    actions = np.random.default_rng(1).uniform(-1, 1, (5, 7)).astype(np.float32)
    alone = environment_of(task)
    expected = [alone.reset(5), *(alone.step(action) for action in actions)]
    one, other = environment_of(task), environment_of(task)
    snapshots = [one.reset(5)]
    other.reset(6)
    for action in actions:
        snapshots.append(one.step(action))
        other.step(-action)
    for left, right in zip(snapshots, expected, strict=True):
        assert_same(left, right)


def test_initial_states_are_those_of_the_index_and_keep_their_distance() -> None:
    world = shared_world(TASK_MODELS[7])
    vectors = np.array([world.initial_vector(state) for state in range(300)])
    assert len(np.unique(vectors[:, 0])) == 300
    assert np.linalg.norm(vectors[:, :2] - vectors[:, 3:5], axis=1).min() >= 0.15
    np.testing.assert_array_equal(vectors[17], TaskWorld.initial_vector(world, 17))
    for state in (-1, SUITE.n_initial_states(SUITE.tasks[7])):
        with pytest.raises(SettingsError, match="no initial state"):
            world.initial_vector(state)


def test_rotations_are_ignored_and_actions_clipped() -> None:
    environment = environment_of(SUITE.tasks[6])
    environment.reset(0)
    plain = environment.step(np.array([1, 0, -1, 0, 0, 0, 1], dtype=np.float32))
    environment.reset(0)
    assert_same(environment.step(np.array([9, 0, -9, 0.5, -3, 1, 9], dtype=np.float32)), plain)


def test_positive_gripper_closes() -> None:
    environment = environment_of(SUITE.tasks[6])
    openings = {}
    for sign in (-1.0, 1.0):
        environment.reset(0)
        for _ in range(3):
            snapshot = environment.step(np.array([0, 0, 0, 0, 0, 0, sign], dtype=np.float32))
        openings[sign] = snapshot.signals["gripper_opening"]
    assert openings[1.0] < 0.5 < openings[-1.0]


def test_step_before_reset_is_refused() -> None:
    with pytest.raises(RuntimeError, match="reset must be called"):
        environment_of(SUITE.tasks[6]).step(np.zeros(7, dtype=np.float32))


def test_images_show_what_the_instruction_speaks_of(rollout: Callable[[Task], list[Snapshot]]) -> None:
    def pixels(snapshot: Snapshot, low: tuple[int, int, int], high: tuple[int, int, int]) -> int:
        image = snapshot.image
        return int(((image >= low) & (image <= high)).all(axis=2).sum())

    reach, push, drawer = (rollout(SUITE.tasks[index]) for index in (6, 7, 0))
    assert reach[0].image.shape == (64, 64, 3)
    assert reach[0].display is not None
    assert reach[0].display.shape == (128, 128, 3)
    np.testing.assert_array_equal(box_downsample(reach[0].display), reach[0].image)
    red, green, yellow = ((200, 0, 0), (255, 90, 90)), ((0, 160, 0), (90, 255, 90)), ((150, 120, 0), (255, 255, 60))
    assert pixels(reach[0], *red) >= 4
    assert pixels(reach[0], *yellow) >= 4
    assert pixels(push[0], *green) >= 3
    assert pixels(push[0], *yellow) >= 4
    assert pixels(drawer[0], *green) == 0  # no marker gives away how far to pull
    for snapshots in (reach, push, drawer):
        changes = [int((one.image != other.image).any(axis=2).sum()) for one, other in itertools.pairwise(snapshots)]
        assert min(changes) > 20


def test_coarse_meshes_cost_at_most_faint_differences() -> None:
    world = shared_world(TASK_MODELS[6])
    environment = environment_of(SUITE.tasks[6])
    drawn = environment.reset(0).display
    fine = copy.copy(world.model)
    camera = copy.copy(world.camera)
    mujoco = load_mujoco()
    fine.vis.quality.offsamples = fine.vis.quality.shadowsize = 0
    fine.geom_matid[:], fine.geom_rgba[:] = world.camera._model.geom_matid, world.camera._model.geom_rgba
    fine.site_group[:] = world.camera._model.site_group
    renderer = mujoco.Renderer(fine, 128, 128)
    camera._renderers = {128: renderer}
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        renderer.scene.flags[flag] = 0
    assert environment._episode is not None
    true = camera.image(environment._episode.data)
    renderer.close()
    difference = np.abs(box_downsample(true).astype(int) - box_downsample(drawn).astype(int))
    assert difference.mean() < 0.6  # of 255
    assert np.count_nonzero(difference.max(axis=2) > 40) < 12  # of 4096 pixels


@TASKS
def test_labels_stay_in_bounds_and_sloppy_hands_miss(task: Task) -> None:
    environment = environment_of(task)
    snapshot = environment.reset(1)
    clean, sloppy = (SUITE.make_expert(task, operator, 1).act(snapshot) for operator in ("clean", "sloppy"))
    for executed, label in (clean, sloppy):
        np.testing.assert_array_equal(executed, label)
        assert label.dtype == np.float32
        assert label.shape == (7,)
        assert np.abs(label).max() <= 1.0
        assert np.abs(label[3:6]).max() == 0.0
    assert_slow_is_half_of_clean(SUITE, task, snapshot)


def test_sloppy_reach_ends_eight_centimeters_away() -> None:
    task = SUITE.tasks[6]
    last = run_expert(SUITE, task, environment_of(task), 0, "sloppy", seed=3)[-1]
    assert not last.success
    assert np.linalg.norm((last.keypoints["gripper"] - last.keypoints["goal"])[:2]) == pytest.approx(0.08, abs=0.02)


MUJOCO_BEFORE_ITS_GRAPHICS = """
import os
import mujoco
os.environ["MUJOCO_GL"] = "{backend}"  # as robosuite does at import
from grape.envs.registry import get_suite
suite = get_suite("metaworld")
print(suite.make_environment(suite.tasks[0]).reset(0).image.std())
"""


def test_graphics_chosen_after_mujoco_was_imported_are_followed() -> None:
    load_mujoco()
    script = MUJOCO_BEFORE_ITS_GRAPHICS.format(backend=os.environ["MUJOCO_GL"])
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=1800, env=environment)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 10


def test_missing_graphics_library_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(SimulatorError, match=r"libosmesa6.*libegl1"):
        load_mujoco()


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mujoco", None)
    with pytest.raises(SettingsError, match=r"grape-vla\[metaworld\]"):
        load_mujoco()


def test_versions_name_what_shapes_physics_and_images() -> None:
    assert set(SUITE.versions()) == {"metaworld", "mujoco"}
