from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from grape.core.trajectories import EpisodeMeta, Trajectory

MakeTrajectory = Callable[..., Trajectory]


@pytest.fixture(scope="session")
def make_trajectory() -> MakeTrajectory:
    """Builds a trajectory from keypoints (T+1, 3) and signals (T+1,); the rest is filled in."""

    def make(
        keypoints: Mapping[str, Any],
        signals: Mapping[str, Any] | None = None,
        success: bool = False,
        task: str = "push-block",
    ) -> Trajectory:
        points = {name: np.asarray(value, dtype=np.float32) for name, value in keypoints.items()}
        scalars = {name: np.asarray(value, dtype=np.float32) for name, value in (signals or {}).items()}
        rows = len(next(iter([*points.values(), *scalars.values()])))
        scalars.setdefault("success", np.array([0.0] * (rows - 1) + [float(success)], dtype=np.float32))
        steps = rows - 1
        meta = EpisodeMeta(
            episode_id="e",
            suite="test",
            task=task,
            task_index=0,
            instruction="push the block",
            initial_state=0,
            sample=0,
            seed=0,
            success=success,
            steps=steps,
            actor="expert",
        )
        return Trajectory(
            meta=meta,
            frames=np.zeros((rows, 0, 0, 3), dtype=np.uint8),
            proprio=np.zeros((rows, 1), dtype=np.float32),
            actions=np.zeros((steps, 7), dtype=np.float32),
            labels=np.zeros((steps, 7), dtype=np.float32),
            action_tokens=np.full((steps, 7), -1, dtype=np.int32),
            token_logps=np.full((steps, 7), np.nan, dtype=np.float32),
            keypoints=points,
            signals=scalars,
        )

    return make
