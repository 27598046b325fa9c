"""Do stages end where the gripper does something? Grasps and releases are events that a person would cut at, too."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grape.core.preferences import StageScore
from grape.core.trajectories import Trajectory

__all__ = ["BoundaryAgreement", "boundary_agreement", "gripper_events"]

HELD_FOR = 3
"""States for which the gripper must stay open or closed; shorter changes are flutter, or a handle prying it apart."""

SMALLEST_RANGE = 0.2
"""Part of the whole opening through which the gripper must move in an episode that has events."""

TOLERANCE = 0.1
"""How far from an event a boundary may lie, as a part of the episode; at least two states, since fingers take time."""


@dataclass(frozen=True)
class BoundaryAgreement:
    """How one episode's events and boundaries agree.

    Attributes:
        events: Number of events that count.
        met: How many of them have a boundary within the tolerance.
        distances: States from each event to the nearest boundary.
    """

    events: int
    met: int
    distances: tuple[int, ...]


def gripper_events(trajectory: Trajectory) -> tuple[int, ...]:
    """States at which the gripper has half closed or opened, by signal ``gripper_opening``.

    Half of its range in this episode: around an object it does not close all the way. Contact (signal ``grasped``)
    would not do, since a closed gripper that pushes something touches it now and then.
    """
    signal = trajectory.signals.get("gripper_opening")
    if signal is None or not np.isfinite(signal).all() or np.ptp(signal) < SMALLEST_RANGE:
        return ()
    state = np.asarray(signal) > (float(np.min(signal)) + float(np.max(signal))) / 2.0
    changes = np.flatnonzero(state[1:] != state[:-1]) + 1
    kept: list[int] = []
    current = state[0]
    for change, following in zip(changes, [*changes[1:], len(state)], strict=True):
        if following - change >= HELD_FOR and state[change] != current:
            current = state[change]
            kept.append(int(change))
    return tuple(kept)


def boundary_agreement(trajectory: Trajectory, stages: Sequence[StageScore]) -> BoundaryAgreement:
    """Compare the ends of stages with the gripper's events.

    Events close to the episode's first or last state do not count: every specification has a boundary there.

    Args:
        trajectory: What was recorded.
        stages: Its score; the last entry is the outcome.
    """
    tolerance = max(2, round(TOLERANCE * trajectory.steps))
    inner = [event for event in gripper_events(trajectory) if tolerance < event < trajectory.steps - tolerance]
    ends = np.array([stage.end for stage in stages[:-1] if stage.reached and stage.done])
    distances = tuple(int(np.abs(ends - event).min()) if len(ends) else trajectory.steps for event in inner)
    return BoundaryAgreement(len(inner), sum(distance <= tolerance for distance in distances), distances)
