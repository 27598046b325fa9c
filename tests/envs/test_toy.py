import numpy as np
import pytest

from grape.core.errors import SettingsError
from grape.core.tasks import Task
from grape.envs.base import Snapshot
from grape.envs.expert_styles import HELD_NOISE_SHARE, HELD_NOISE_STD, HELD_NOISE_STEPS, NOISE_STD, OPERATORS, Operator
from grape.envs.registry import get_suite
from grape.envs.toy import SUITES, ToySuite
from tests.envs.snapshots import assert_same, run_expert

SUITE = ToySuite()
TASKS = pytest.mark.parametrize("task", SUITE.tasks, ids=lambda task: task.name)


@TASKS
def test_clean_expert_always_succeeds_and_sloppy_mostly_fails(task: Task) -> None:
    environment = SUITE.make_environment(task)
    success = {
        operator: np.mean([run_expert(SUITE, task, environment, i, operator, seed=i)[-1].success for i in range(40)])
        for operator in ("clean", "sloppy")
    }
    assert success["clean"] == 1.0
    assert success["sloppy"] < 0.4


@TASKS
def test_reset_leaves_no_trace(task: Task) -> None:
    used, fresh = SUITE.make_environment(task), SUITE.make_environment(task)
    run_expert(SUITE, task, used, 5)
    assert_same(used.reset(3), fresh.reset(3))
    action = np.array([0.7, 0.4, 0, 0, 0, 0, 1], dtype=np.float32)
    assert_same(used.step(action), fresh.step(action))


@TASKS
def test_success_is_the_goal_within_three_centimeters(task: Task) -> None:
    environment = SUITE.make_environment(task)
    for state in range(10):
        for snapshot in run_expert(SUITE, task, environment, state, "noisy", seed=state):
            distance = np.linalg.norm(snapshot.keypoints["object"] - snapshot.keypoints["goal"])
            assert snapshot.success == (distance <= 0.03 + 1e-7)
            assert snapshot.signals["success"] == float(snapshot.success)
            assert snapshot.signals["object_to_goal"] == pytest.approx(distance, abs=1e-6)
            assert 0.0 <= snapshot.signals["opened"] <= 1.0


def test_instruction_decides_which_square_is_the_goal() -> None:
    for task, color in zip(SUITE.tasks[:2], ([210, 40, 40], [40, 60, 210]), strict=True):
        snapshot = SUITE.make_environment(task).reset(0)
        column, row = ((snapshot.keypoints["goal"][:2] * (1, -1) + 0.2) / 0.4 * 64).astype(int)
        assert snapshot.image[row, column].tolist() == color


def test_images_and_states_have_the_agreed_form() -> None:
    snapshot = SUITE.make_environment(SUITE.tasks[2]).reset(0)
    assert snapshot.image.shape == (64, 64, 3)
    assert snapshot.image.dtype == np.uint8
    assert snapshot.display is not None
    assert snapshot.display.shape == (128, 128, 3)
    assert snapshot.proprio.shape == (4,)
    assert snapshot.proprio.dtype == np.float32


def test_initial_states_differ_and_end() -> None:
    environment = SUITE.make_environment(SUITE.tasks[0])
    assert (environment.reset(0).image != environment.reset(1).image).any()
    for state in (-1, SUITE.n_initial_states(SUITE.tasks[0])):
        with pytest.raises(SettingsError, match="no initial state"):
            environment.reset(state)


def test_noisy_operator_labels_the_action_without_noise() -> None:
    operator, scripted_action = Operator("noisy", 7), np.array([0.3, -3.0, 0.0, 0, 0, 0, 1.0])
    pairs = [operator.perform(scripted_action) for _ in range(500)]
    for executed, label in pairs:
        np.testing.assert_allclose(label, np.clip(scripted_action, -1, 1), rtol=1e-6)
        assert np.abs(executed).max() <= 1.0
        np.testing.assert_array_equal(executed[3:], label[3:])
    shaken = np.array([executed[0] - label[0] for executed, label in pairs])
    assert np.std(shaken) == pytest.approx(NOISE_STD, rel=0.15)


def test_noise_can_be_weaker_where_decisions_are_held() -> None:
    operator = Operator("noisy", 3, noise_std=0.05)
    shaken = np.array([operator.perform(np.zeros(7))[0][:3] for _ in range(500)])
    assert np.std(shaken) == pytest.approx(0.05, rel=0.15)


def test_sloppy_operator_keeps_its_direction_and_learns_its_own_action() -> None:
    first, again, other = Operator("sloppy", 1), Operator("sloppy", 1), Operator("sloppy", 2)
    np.testing.assert_array_equal(first.aim_offset, again.aim_offset)
    assert np.linalg.norm(first.aim_offset) == pytest.approx(0.08)
    assert np.linalg.norm(first.aim_offset - other.aim_offset) > 1e-3
    executed, label = first.perform(np.full(7, 0.5))
    np.testing.assert_array_equal(executed, label)


def test_slow_operator_moves_half_as_far_and_grips_as_ever() -> None:
    executed, label = Operator("slow", 1).perform(np.array([0.5, -0.5, 3.0, 0.2, 0.0, -0.2, 1.0]))
    np.testing.assert_allclose(label, [0.25, -0.25, 0.5, 0.1, 0.0, -0.1, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(executed, label)
    (solved, steps), (_, clean) = successes("toy_fine", "slow"), successes("toy_fine", "clean")
    assert solved > 0.9
    assert 1.5 < steps / clean < 2.5


def test_held_noise_drifts_in_some_blocks_and_labels_the_clean_action() -> None:
    operator, blocks = Operator("held-noise", 11), 1000
    pairs = [operator.perform(np.full(7, 0.1)) for _ in range(HELD_NOISE_STEPS * blocks)]
    drifts = np.array([executed[:3] - label[:3] for executed, label in pairs]).reshape(blocks, HELD_NOISE_STEPS, 3)
    np.testing.assert_allclose(drifts, np.repeat(drifts[:, :1], HELD_NOISE_STEPS, axis=1), atol=1e-6)
    drifting = drifts[:, 0].any(axis=1)
    assert drifting.mean() == pytest.approx(HELD_NOISE_SHARE, abs=0.05)
    unclipped = drifts[drifting, 0, 2]
    assert np.std(unclipped) == pytest.approx(HELD_NOISE_STD, rel=0.1)
    for executed, label in pairs:
        np.testing.assert_array_equal(label, np.full(7, 0.1, np.float32))
        np.testing.assert_array_equal(executed[3:], label[3:])


@pytest.mark.parametrize("style", OPERATORS)
def test_an_operator_is_decided_by_its_seed(style: str) -> None:
    def executed(seed: int) -> np.ndarray:
        operator = Operator(style, seed)
        return np.array([[*operator.perform(np.zeros(7))[0], *operator.aim_offset] for _ in range(40)])

    np.testing.assert_array_equal(executed(4), executed(4))
    assert np.array_equal(executed(4), executed(5)) == (style in {"clean", "slow"})


def successes(name: str, operator: str) -> tuple[float, float]:
    """Success rate and mean control steps of an expert in the pushing task."""
    suite = get_suite(name)
    task = suite.tasks[2]
    episodes = [run_expert(suite, task, suite.make_environment(task), i, operator, seed=i) for i in range(40)]
    return float(np.mean([episode[-1].success for episode in episodes])), float(np.mean([*map(len, episodes)]))


def test_the_fine_variant_takes_four_times_the_control_steps_from_the_same_states() -> None:
    fine = get_suite("toy_fine")
    assert [task.max_steps for task in fine.tasks] == [32, 32, 32]
    assert (SUITE.action_space.control_hz, fine.action_space.control_hz) == (10, 40)
    for task, other in zip(SUITE.tasks, fine.tasks, strict=True):
        assert fine.base_task(other) == SUITE.base_task(task) == ("toy", task.name)
        start = SUITE.make_environment(task).reset(9)
        assert_same(fine.make_environment(other).reset(9), start)
    coarse, clean = successes("toy", "clean"), successes("toy_fine", "clean")
    assert clean[0] == 1.0
    assert 2.5 < clean[1] / coarse[1] < 4.5
    assert successes("toy_fine", "held-noise")[0] > 0.8


def middle(snapshot: Snapshot) -> list[int]:
    return snapshot.cameras["wrist"][32, 32].tolist()


@pytest.mark.parametrize("name", SUITES)
def test_the_wrist_camera_is_above_the_gripper_where_there_is_one(name: str) -> None:
    suite = get_suite(name)
    environment = suite.make_environment(suite.tasks[0])
    snapshot = environment.reset(0)
    assert tuple(snapshot.cameras) == suite.cameras == (("wrist",) if name.endswith("wrist") else ())
    assert_same(snapshot, SUITE.make_environment(SUITE.tasks[0]).reset(0))
    if not suite.cameras:
        return
    assert snapshot.cameras["wrist"].shape == (64, 64, 3)
    close = np.array([0, 0, 0, 0, 0, 0, 1], dtype=np.float32)
    assert [middle(snapshot), middle(environment.step(close))] == [[20, 20, 20], [110, 110, 110]]
    reached = run_expert(suite, suite.tasks[0], environment, 0)[-1]
    small, large = ((image == [210, 40, 40]).all(axis=2).sum() for image in (reached.image, reached.cameras["wrist"]))
    assert large > 4 * small > 0


def test_unknown_operator_is_refused() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'clean'"):
        SUITE.make_expert(SUITE.tasks[0], "cleen", 0)
