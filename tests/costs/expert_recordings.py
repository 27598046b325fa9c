"""Episodes of a suite's scripted experts, recorded in this process without images."""

import numpy as np

from grape.core.tasks import Task
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.envs.base import Environment, SuiteBase

OPERATORS = (("clean", 1), ("noisy", 2), ("sloppy", 2))


def record_all(suite: SuiteBase, task: Task, initial_states: range) -> list[Trajectory]:
    """One clean, two noisy and two sloppy episodes from each initial state."""
    environment = suite.make_environment(task)
    return [
        record(suite, task, environment, operator, initial_state, sample)
        for initial_state in initial_states
        for operator, samples in OPERATORS
        for sample in range(samples)
    ]


def record(
    suite: SuiteBase, task: Task, environment: Environment, operator: str, initial_state: int, sample: int
) -> Trajectory:
    snapshots = [environment.reset(initial_state)]
    expert = suite.make_expert(task, operator, 1000 * sample + initial_state)
    actions = []
    while not snapshots[-1].success and len(actions) < task.max_steps:
        action, _ = expert.act(snapshots[-1])
        actions.append(action)
        snapshots.append(environment.step(action))
    steps, dim = len(actions), suite.action_space.dim
    executed = np.array(actions, dtype=np.float32).reshape(steps, dim)
    meta = EpisodeMeta(
        episode_id=f"{task.name}-{initial_state}-{operator}-{sample}",
        suite=suite.name,
        task=task.name,
        task_index=task.index,
        instruction=task.instruction,
        initial_state=initial_state,
        sample=sample,
        seed=0,
        success=snapshots[-1].success,
        steps=steps,
        actor="expert",
        operator=operator,
    )
    return Trajectory(
        meta=meta,
        frames=np.zeros((steps + 1, 0, 0, 3), dtype=np.uint8),
        proprio=np.stack([snapshot.proprio for snapshot in snapshots]),
        actions=executed,
        labels=executed,
        action_tokens=np.full((steps, dim), -1, dtype=np.int32),
        token_logps=np.full((steps, dim), np.nan, dtype=np.float32),
        keypoints={name: np.stack([one.keypoints[name] for one in snapshots]) for name in snapshots[0].keypoints},
        signals={
            name: np.array([one.signals[name] for one in snapshots], dtype=np.float32) for name in snapshots[0].signals
        },
    )
