"""Recordings made from recordings, to try a specification on: first parts, hidden verdicts, displaced keypoints."""

import dataclasses

import numpy as np

from grape.core.trajectories import Trajectory

__all__ = ["beginning", "with_noise", "with_unknown_outcome", "without_verdict"]


def beginning(trajectory: Trajectory, steps: int) -> Trajectory:
    """The first ``steps`` decisions, as an episode that was not solved unless it is the whole one."""
    rows = {name: getattr(trajectory, name)[: steps + 1] for name in ("frames", "proprio")}
    rows |= {name: getattr(trajectory, name)[:steps] for name in ("actions", "labels", "action_tokens", "token_logps")}
    solved = trajectory.meta.success
    if steps < trajectory.steps and solved:
        solved = False
    return dataclasses.replace(
        trajectory,
        meta=dataclasses.replace(trajectory.meta, steps=steps, success=solved),
        keypoints={name: point[: steps + 1] for name, point in trajectory.keypoints.items()},
        signals={name: signal[: steps + 1] for name, signal in trajectory.signals.items()},
        display=None,
        **rows,
    )


def without_verdict(trajectory: Trajectory) -> Trajectory:
    """The same motion, as if the simulator had never called it solved."""
    return _with_outcome(trajectory, False, 0.0)


def with_unknown_outcome(trajectory: Trajectory) -> Trajectory:
    """The same motion, of which nobody knows whether the task was solved."""
    return _with_outcome(trajectory, None, np.nan)


def _with_outcome(trajectory: Trajectory, success: bool | None, signal: float) -> Trajectory:
    signals = {**trajectory.signals, "success": np.full_like(trajectory.signals["success"], signal)}
    return dataclasses.replace(trajectory, meta=dataclasses.replace(trajectory.meta, success=success), signals=signals)


def with_noise(trajectory: Trajectory, rms: float, rng: np.random.Generator) -> Trajectory:
    """The same motion with keypoints as a perception of this accuracy would place them.

    Each keypoint gets an offset that stays for the episode and one that changes from state to state, both Gaussian, of
    equal size.

    Args:
        trajectory: What was recorded.
        rms: Root mean square of a keypoint's displacement, metres.
        rng: Where the noise comes from.
    """
    each = rms / np.sqrt(6.0)  # two independent offsets of three coordinates
    moved = {}
    for name in sorted(trajectory.keypoints):
        point = trajectory.keypoints[name]
        noise = rng.normal(0.0, each, (1, 3)) + rng.normal(0.0, each, point.shape)
        moved[name] = (point + noise).astype(np.float32)
    return dataclasses.replace(trajectory, keypoints=moved)
