"""Synthetic rollouts of two Meta-World tasks, and scores built by hand."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from grape.core.chunks import Chunks
from grape.core.preferences import ConstraintScore, Score, StageScore
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.store import EpisodeStore

TASKS = ("drawer-open", "faucet-open")


def make_rollout(
    task: str = "drawer-open",
    state: int = 0,
    sample: int = 0,
    success: bool = True,
    steps: int = 12,
    expert: bool = False,
    **facts: Any,
) -> Trajectory:
    """The gripper walks to the object and, on success, takes it to the goal."""
    rng = np.random.default_rng([TASKS.index(task), state, sample])
    rows = steps + 1
    way = np.linspace(0, 1, rows, dtype=np.float32)
    start, goal = np.array([0, 0.6, 0.1]), np.array([0, 0.4, 0.1])
    reach, pull = np.clip(way * 2, 0, 1)[:, None], np.clip(way * 2 - 1, 0, 1)
    pull = (pull * (1.0 if success else 0.1 * sample % 0.7)).astype(np.float32)
    object_at = start + pull[:, None] * (goal - start)
    gripper = np.array([0.1, 0.5, 0.3]) * (1 - reach) + object_at * reach + rng.normal(0, 0.004, (rows, 3))
    keypoints = {
        "gripper": gripper,
        "finger_left": gripper,
        "finger_right": gripper,
        "object": object_at,
        "object_start": np.broadcast_to(start, (rows, 3)),
        "goal": np.broadcast_to(goal, (rows, 3)),
    }
    solved = np.zeros(rows, dtype=np.float32)
    solved[-1] = float(success)
    signals = {
        "gripper_opening": 1 - reach[:, 0],
        "grasped": (reach[:, 0] == 1).astype(np.float32),
        "touching": (reach[:, 0] == 1).astype(np.float32),
        "opened": pull,
        "object_to_goal": np.linalg.norm(object_at - goal, axis=1),
        "success": solved,
    }
    logps = -rng.exponential(0.2 + 0.1 * (not success), (steps, 7)).astype(np.float32)
    meta = {
        "episode_id": f"{task}-{state:04d}-{sample:02d}",
        "suite": "metaworld",
        "task": task,
        "task_index": TASKS.index(task),
        "instruction": task.replace("-", " "),
        "initial_state": state,
        "sample": sample,
        "seed": sample,
        "success": success,
        "steps": steps,
        "actor": "expert" if expert else "policy",
        "policy_hash": "" if expert else "abc",
    }
    return Trajectory(
        meta=EpisodeMeta(**{**meta, **facts}),
        frames=np.zeros((rows, 0, 0, 3), dtype=np.uint8),
        proprio=np.zeros((rows, 2), dtype=np.float32),
        actions=np.zeros((steps, 7), dtype=np.float32),
        labels=np.zeros((steps, 7), dtype=np.float32),
        action_tokens=np.full((steps, 7), -1 if expert else 5, dtype=np.int32),
        token_logps=np.full_like(logps, np.nan) if expert else logps,
        keypoints={name: np.ascontiguousarray(value, dtype=np.float32) for name, value in keypoints.items()},
        signals={name: np.ascontiguousarray(value, dtype=np.float32) for name, value in signals.items()},
    )


def make_store(path: Path, states: int = 4, samples: int = 5, tasks: tuple[str, ...] = TASKS) -> EpisodeStore:
    """States in turn have mixed outcomes, mixed outcomes, only successes, only failures."""
    store = EpisodeStore.create(path, "metaworld", {})
    for task in tasks:
        for state in range(states):
            for sample in range(samples):
                success = {2: True, 3: False}.get(state % 4, (sample + state) % 2 == 0)
                store.write(make_rollout(task, state, sample, success, steps=9 + sample % 4 if success else 16))
    return store


def in_chunks(trajectory: Trajectory, length: int, execute: int, support: str = "window") -> Trajectory:
    """The same motion of the same log-probability, decided on ``length`` actions at once."""
    counts = [min(execute, trajectory.steps - start) for start in range(0, trajectory.steps, execute)]
    looks = [*range(0, trajectory.steps, execute), trajectory.steps]
    shape = (len(counts), length, trajectory.actions.shape[1])
    tokens, logps = np.full(shape, 9, np.int32), np.full(shape, -99.0, np.float32)
    executed = np.array(counts, np.int32)
    mask = np.arange(length) < executed[:, None]
    tokens[mask], logps[mask] = trajectory.action_tokens, trajectory.token_logps
    return dataclasses.replace(
        trajectory,
        frames=trajectory.frames[looks],
        display=None if trajectory.display is None else trajectory.display[looks],
        chunks=Chunks(executed, length, tokens, logps, support, 1.6),
    )


def make_score(
    episode_id: str = "a",
    task: str = "t",
    state: int = 0,
    success: bool = True,
    terms: tuple[float, float, float] = (0.0, 0.0, 2.0),
    stages: tuple[StageScore, ...] = (),
    steps: int = 10,
    r_self: float | None = -20.0,
    r_ext: float = 0.5,
) -> Score:
    return Score(
        episode_id=episode_id,
        task=task,
        initial_state=state,
        success=success,
        steps=steps,
        r_self=r_self,
        r_ext=r_ext,
        cost=0.7,
        terms=dict(zip(("self", "ext", "success"), terms, strict=True)),
        gcpg=sum(terms),
        stages=stages,
    )


def make_stage(name: str, cost: float, done: bool = True, reached: bool = True, measured: float = 0.1) -> StageScore:
    constraint = ConstraintScore("keep-handle", "path", measured, 0.0, cost, cost, "m", ("safety",), (0.1, measured))
    return StageScore(name, 0, 3, reached, done, cost, (constraint,))


def without_curves(score: Score) -> Score:
    """The score as a file of scores holds it."""
    stages = (
        dataclasses.replace(stage, constraints=tuple(dataclasses.replace(item, curve=()) for item in stage.constraints))
        for stage in score.stages
    )
    return dataclasses.replace(score, stages=tuple(stages))
