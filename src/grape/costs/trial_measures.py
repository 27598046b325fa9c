"""What a trial of a specification is made of: altered trajectories, and measures of costs and stage boundaries.

Costs should tell successes from failures: the measure is the area under the ROC curve, the chance that a success costs
less than a failure (ties count half). Episodes from one initial state resemble one another, so its variance is that of
clustered data (Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data", Biometrics 53:567; without
clusters it is that of DeLong et al. 1988). Stages should end where the gripper does something: grasps and releases are
events that a person would cut at, too.
"""

import dataclasses
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grape.core.preferences import StageScore
from grape.core.trajectories import Trajectory

__all__ = [
    "Auc",
    "BoundaryAgreement",
    "area_under_curve",
    "beginning",
    "boundary_agreement",
    "concordance",
    "gripper_events",
    "with_noise",
    "with_unknown_outcome",
    "without_verdict",
]

Floats = npt.NDArray[np.float64]

_Z95 = 1.959963984540054

HELD_FOR = 3
"""States for which the gripper must stay open or closed; shorter changes are flutter, or a handle prying it apart."""

SMALLEST_RANGE = 0.2
"""Part of the whole opening through which the gripper must move in an episode that has events."""

TOLERANCE = 0.1
"""How far from an event a boundary may lie, as a part of the episode; at least two states, since fingers take time."""


@dataclass(frozen=True)
class Auc:
    """An area under the ROC curve.

    Attributes:
        value: Chance that a success costs less than a failure, in [0, 1].
        low: Lower end of the 95 % interval.
        high: Upper end.
        successes: Number of successes.
        failures: Number of failures.
        clusters: Number of initial states.
    """

    value: float
    low: float
    high: float
    successes: int
    failures: int
    clusters: int


def area_under_curve(costs: Sequence[float], success: Sequence[bool], cluster: Sequence[Hashable]) -> Auc | None:
    """Area under the ROC curve of ``costs``, where successes should cost less; None without both outcomes.

    The interval is symmetric on the logit scale. Where no pair, or every pair, is in order the clustered variance is 0;
    then the interval is Newcombe's (2006, Stat. Med. 25:559, method 5), with the number of initial states that have
    successes and failures as the numbers of independent observations.

    Args:
        costs: ``sum_i C_i`` of each episode.
        success: I_success of each episode.
        cluster: Its initial state.
    """
    cost, solved = np.asarray(costs, dtype=np.float64), np.asarray(success, dtype=bool)
    codes = np.unique([repr(item) for item in cluster], return_inverse=True)[1]
    m, n = int(solved.sum()), int((~solved).sum())
    if not m or not n:
        return None
    of_successes, of_failures = _wins(cost[solved], cost[~solved])
    value = float(of_successes.sum()) / (m * n)
    clusters = int(codes.max()) + 1
    of_success, of_failure = codes[solved], codes[~solved]
    variance = _variance(value, of_successes / n, of_failures / m, of_success, of_failure, clusters)
    if variance > 0.0 and 0.0 < value < 1.0:
        spread = _Z95 * math.sqrt(variance) / (value * (1.0 - value))
        center = math.log(value / (1.0 - value))
        low, high = (1.0 / (1.0 + math.exp(-max(-700.0, center + sign * spread))) for sign in (-1, 1))
    else:
        low, high = _newcombe(value, len(set(of_success.tolist())), len(set(of_failure.tolist())))
    return Auc(value, low, high, m, n, clusters)


def concordance(
    costs: Sequence[float], success: Sequence[bool], cluster: Sequence[Hashable]
) -> tuple[float | None, int]:
    """Share of success and failure pairs of one initial state in which the success costs less, and their number."""
    cost, solved = np.asarray(costs, dtype=np.float64), np.asarray(success, dtype=bool)
    codes = np.unique([repr(item) for item in cluster], return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    total, count = 0.0, 0
    for members in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        successes, failures = cost[members[solved[members]]], cost[members[~solved[members]]]
        total += float(_wins(successes, failures)[0].sum())
        count += len(successes) * len(failures)
    return (total / count if count else None), count


def _wins(successes: Floats, failures: Floats) -> tuple[Floats, Floats]:
    """How many failures cost more than each success ``(m,)``, and how many successes less than each failure ``(n,)``.

    Equal costs count half. All counts are exact, and no matrix of all pairs is made.
    """
    more = np.sort(failures)
    less = np.sort(successes)
    of_successes = len(more) - (np.searchsorted(more, successes) + np.searchsorted(more, successes, "right")) / 2.0
    of_failures = (np.searchsorted(less, failures) + np.searchsorted(less, failures, "right")) / 2.0
    return of_successes, of_failures


def _variance(
    value: float,
    of_successes: Floats,
    of_failures: Floats,
    of_success: npt.NDArray[np.intp],
    of_failure: npt.NDArray[np.intp],
    count: int,
) -> float:
    """Obuchowski's variance of the area; 0 where one cluster alone cannot tell.

    Args:
        value: The area.
        of_successes: Share of failures that cost more than each success, ``(m,)``.
        of_failures: Share of successes that cost less than each failure, ``(n,)``.
        of_success: Cluster of each success.
        of_failure: Cluster of each failure.
        count: Number of clusters.
    """
    m, n = len(of_success), len(of_failure)
    excess_success = np.bincount(of_success, of_successes - value, minlength=count)
    excess_failure = np.bincount(of_failure, of_failures - value, minlength=count)
    with_success, with_failure = len(set(of_success.tolist())), len(set(of_failure.tolist()))
    if min(with_success, with_failure) < 2:
        return 0.0
    s10 = with_success / ((with_success - 1) * m) * float(excess_success @ excess_success)
    s01 = with_failure / ((with_failure - 1) * n) * float(excess_failure @ excess_failure)
    s11 = count / (count - 1) * float(excess_success @ excess_failure)
    return max(0.0, s10 / m + s01 / n + 2.0 * s11 / (m * n))


def _newcombe(value: float, m: int, n: int) -> tuple[float, float]:
    """Interval of an area from the variance that it would have at each end."""

    def deviation(theta: float) -> float:
        spread = (m + n) / 2.0 - 1.0
        inflation = 1.0 + spread * ((1.0 - theta) / (2.0 - theta) + theta / (1.0 + theta))
        return _Z95 * math.sqrt(theta * (1.0 - theta) * inflation / (m * n))

    def end(outer: float) -> float:
        inner = value
        for _ in range(60):
            middle = (inner + outer) / 2.0
            inside = abs(value - middle) < deviation(middle)
            inner, outer = (middle, outer) if inside else (inner, middle)
        return (inner + outer) / 2.0

    return (0.0 if value == 0.0 else end(0.0)), (1.0 if value == 1.0 else end(1.0))


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


def beginning(trajectory: Trajectory, steps: int) -> Trajectory:
    """The first ``steps`` decisions, as an episode that was not solved unless it is the whole one."""
    rows = {name: getattr(trajectory, name)[: steps + 1] for name in ("frames", "proprio")}
    if trajectory.chunks is not None:  # no cost looks at images, and the cut may fall inside a chunk
        rows["frames"] = np.zeros((steps + 1, 0, 0, 3), np.uint8)
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
        chunks=None,
        cameras={},
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
        rms: Root mean square of a keypoint's displacement, meters.
        rng: Where the noise comes from.
    """
    each = rms / np.sqrt(6.0)  # two independent offsets of three coordinates
    moved = {}
    for name in sorted(trajectory.keypoints):
        point = trajectory.keypoints[name]
        noise = rng.normal(0.0, each, (1, 3)) + rng.normal(0.0, each, point.shape)
        moved[name] = (point + noise).astype(np.float32)
    return dataclasses.replace(trajectory, keypoints=moved)
