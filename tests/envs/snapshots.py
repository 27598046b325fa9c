"""What the tests of environments share: comparing snapshots bit by bit, and running an expert."""

import numpy as np

from grape.core.tasks import Task
from grape.envs.base import Environment, Snapshot, SuiteBase


def assert_same(one: Snapshot | None, other: Snapshot | None) -> None:
    assert one is not None
    assert other is not None
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.display, other.display)
    np.testing.assert_array_equal(one.proprio, other.proprio)
    assert one.signals == other.signals
    assert one.success == other.success
    assert one.keypoints.keys() == other.keypoints.keys()
    for name, point in one.keypoints.items():
        np.testing.assert_array_equal(point, other.keypoints[name])
        assert point.dtype == other.keypoints[name].dtype == np.float32


def assert_slow_is_half_of_clean(suite: SuiteBase, task: Task, snapshot: Snapshot) -> None:
    """The slow operator's first action is half of the clean one's; the gripper does the same."""
    (clean, _), (slow, label) = (suite.make_expert(task, operator, 0).act(snapshot) for operator in ("clean", "slow"))
    assert np.abs(clean[:3]).max() > 0.0
    np.testing.assert_allclose(slow[:6], 0.5 * clean[:6], rtol=1e-5, atol=1e-7)
    assert slow[6] == clean[6]
    np.testing.assert_array_equal(label, slow)


def run_expert(
    suite: SuiteBase, task: Task, environment: Environment, initial_state: int, operator: str = "clean", seed: int = 0
) -> list[Snapshot]:
    expert = suite.make_expert(task, operator, seed)
    snapshots = [environment.reset(initial_state)]
    while not snapshots[-1].success and len(snapshots) <= task.max_steps:
        executed, _ = expert.act(snapshots[-1])
        snapshots.append(environment.step(executed))
    return snapshots
