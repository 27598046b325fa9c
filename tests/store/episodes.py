"""Episodes to store, and how to compare them."""

import dataclasses

import numpy as np

from grape.core.trajectories import EpisodeMeta, Trajectory


def make_episode(
    episode_id: str = "drawer-open-0000-00",
    steps: int = 5,
    size: tuple[int, int] = (8, 8),
    display: bool = False,
    seed: int = 0,
    **facts: object,
) -> Trajectory:
    """A small episode with random content; ``facts`` override those of its meta."""
    rng = np.random.default_rng(seed)
    rows, dim = steps + 1, 7
    meta = EpisodeMeta(
        episode_id=episode_id,
        suite="toy",
        task="drawer-open",
        task_index=0,
        instruction="open the drawer",
        initial_state=0,
        sample=0,
        seed=seed,
        success=True,
        steps=steps,
        actor="policy",
    )
    return Trajectory(
        meta=dataclasses.replace(meta, **facts),  # type: ignore[arg-type]
        frames=rng.integers(0, 256, (rows, *size, 3), dtype=np.uint8),
        proprio=rng.normal(size=(rows, 4)).astype(np.float32),
        actions=rng.normal(size=(steps, dim)).astype(np.float32),
        labels=rng.normal(size=(steps, dim)).astype(np.float32),
        action_tokens=rng.integers(0, 32000, (steps, dim), dtype=np.int32),
        token_logps=-rng.exponential(size=(steps, dim)).astype(np.float32),
        keypoints={name: rng.normal(size=(rows, 3)).astype(np.float32) for name in ("gripper", "object", "goal")},
        signals={name: rng.random(rows, dtype=np.float32) for name in ("success", "gripper_opening")},
        display=rng.integers(0, 256, (rows, 16, 12, 3), dtype=np.uint8) if display else None,
    )


def assert_equal(actual: Trajectory, expected: Trajectory, *, frames: bool = True) -> None:
    """Equality bit for bit, but for lossy display images."""
    assert actual.meta == expected.meta
    names = ["proprio", "actions", "labels", "action_tokens", "token_logps", *(["frames"] if frames else [])]
    for name in names:
        a, b = getattr(actual, name), getattr(expected, name)
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == np.ascontiguousarray(b).tobytes(), name
    for kind in ("keypoints", "signals"):
        a, b = getattr(actual, kind), getattr(expected, kind)
        assert a.keys() == b.keys()
        assert all(a[name].tobytes() == b[name].tobytes() for name in a)
