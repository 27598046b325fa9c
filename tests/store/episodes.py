"""Episodes to store, and how to compare them."""

import dataclasses

import numpy as np

from grape.core.chunks import Chunks
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


def make_chunked_episode(
    executed: tuple[int, ...] = (3, 3, 1),
    length: int = 4,
    *,
    episode_id: str = "drawer-open-0000-00",
    support: str = "window",
    temperature: float = 1.6,
    cameras: tuple[str, ...] = ("wrist",),
    sampled: bool = True,
    display: bool = False,
    seed: int = 0,
) -> Trajectory:
    """A small episode of a policy that decides on ``length`` actions at once, of which ``executed`` were executed."""
    rng = np.random.default_rng(seed)
    plain = make_episode(episode_id, sum(executed), display=display, seed=seed)
    shape, images = (len(executed), length, 7), len(executed) + 1
    chunks = Chunks(
        np.array(executed, np.int32),
        length,
        tokens=rng.integers(31744, 32000, shape, dtype=np.int32) if sampled else None,
        logps=-rng.exponential(size=shape).astype(np.float32) if sampled else None,
        support=support if sampled else "",
        temperature=temperature if sampled else 0.0,
    )
    tokens, logps = chunks.executed_tokens(7)
    return dataclasses.replace(
        plain,
        frames=plain.frames[:images],
        display=None if plain.display is None else plain.display[:images],
        action_tokens=tokens,
        token_logps=logps,
        chunks=chunks,
        cameras={name: rng.integers(0, 256, (images, 4, 5, 3), dtype=np.uint8) for name in cameras},
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
    for kind in ("keypoints", "signals", *(["cameras"] if frames else [])):
        a, b = getattr(actual, kind), getattr(expected, kind)
        assert a.keys() == b.keys()
        assert all(a[name].shape == b[name].shape and a[name].tobytes() == b[name].tobytes() for name in a)
    assert (actual.chunks is None) == (expected.chunks is None)
    if actual.chunks is not None and expected.chunks is not None:
        assert actual.chunks.facts() == expected.chunks.facts()
        for name in ("executed", "tokens", "logps"):
            a, b = getattr(actual.chunks, name), getattr(expected.chunks, name)
            assert (a is None) == (b is None)
            assert a is None or (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
