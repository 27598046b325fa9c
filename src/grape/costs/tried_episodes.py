"""A specification's trial on one episode: all that the checks of :mod:`grape.costs.validation` need to know of it."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from grape.core.preferences import StageScore
from grape.core.seeds import derive_rng
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.costs.evaluation import evaluate, unavailable_constraints
from grape.costs.specification import CostSpecification
from grape.costs.trial_measures import BoundaryAgreement, beginning, boundary_agreement, with_noise, without_verdict
from grape.store import OpenedStores

__all__ = ["PREFIXES", "RecordedTrial", "TriedEpisode", "experts_among", "is_clean_expert", "try_episode"]

PREFIXES = 10
"""First parts of an expert's episode, evenly spaced, at which its cost so far is looked at."""


@dataclass(frozen=True)
class TriedEpisode:
    """What one episode says of a specification; costs are those with the simulator's verdict hidden.

    Attributes:
        success: Whether it solved the task.
        start: Task and initial state.
        cost: Its cost.
        finite: Whether all costs are finite, also with the verdict.
        entered: Number of constraints of the stages that were entered.
        unavailable: Places of those that could not be measured.
        noisy: Cost of each noise and draw.
        boundaries: Of a success, how the gripper's events and the ends of stages agree; None of a failure.
        is_clean: Whether it is a success of style ``clean``.
        is_expert: Whether it shows whether costs fall along the way; the rest is empty where it does not.
        falls: For each stage that it finished, whether the episode so far became cheaper.
        not_cheaper: Names of the stages of which it did not.
        trend: Rank correlation of time and cost so far.
    """

    success: bool
    start: tuple[str, int]
    cost: float
    finite: bool
    entered: int
    unavailable: tuple[str, ...]
    noisy: tuple[tuple[float, ...], ...]
    boundaries: BoundaryAgreement | None
    is_clean: bool
    is_expert: bool
    falls: tuple[bool, ...] = ()
    not_cheaper: tuple[str, ...] = ()
    trend: float | None = None


def is_clean_expert(meta: EpisodeMeta) -> bool:
    """Whether an episode is a success of style ``clean``."""
    return bool(meta.success) and meta.operator == "clean"


def experts_among(metas: Sequence[EpisodeMeta]) -> list[bool]:
    """Which episodes show whether costs fall: successes of style ``clean``, or all successes where there are none."""
    clean = [is_clean_expert(meta) for meta in metas]
    return clean if any(clean) else [bool(meta.success) for meta in metas]


def try_episode(
    specification: CostSpecification,
    trajectory: Trajectory,
    noise: Sequence[float],
    draws: int,
    seed: int,
    *,
    is_expert: bool,
) -> TriedEpisode:
    """Try a specification on one episode.

    Args:
        specification: What to try.
        trajectory: A recording of the task with a known outcome; images are not looked at.
        noise: Root mean square displacements of keypoints, meters.
        draws: How often the episode is displaced by each.
        seed: Of the displacements.
        is_expert: Whether its costs should fall along the way.

    Raises:
        CompatibilityError: The trajectory is of another task.
        DataError: It lacks a keypoint or signal that the specification speaks of.
    """
    hidden, success = without_verdict(trajectory), bool(trajectory.meta.success)
    stages = evaluate(specification, hidden)
    shown = evaluate(specification, trajectory) if success else stages
    falls, not_cheaper = _falls(specification, trajectory, shown) if is_expert else ((), ())
    return TriedEpisode(
        success=success,
        start=(trajectory.meta.task, trajectory.meta.initial_state),
        cost=_total(stages),
        finite=bool(np.isfinite([_total(stages), _total(shown)]).all()),
        entered=sum(len(stage.constraints) for stage in stages if stage.reached),
        unavailable=tuple(unavailable_constraints(stages)),
        noisy=_noisy_costs(specification, hidden, noise, draws, seed),
        boundaries=boundary_agreement(hidden, stages) if success else None,
        is_clean=is_clean_expert(trajectory.meta),
        is_expert=is_expert,
        falls=falls,
        not_cheaper=not_cheaper,
        trend=_trend(specification, hidden) if is_expert else None,
    )


@dataclass(frozen=True)
class RecordedTrial:
    """A specification's trial on shards of recorded episodes, for processes that share them.

    Attributes:
        specification: What to try.
        noise: Displacements, see :func:`try_episode`.
        draws: How often each.
        seed: Of the displacements.
        stores: Reads the episodes.
    """

    specification: CostSpecification
    noise: tuple[float, ...]
    draws: int
    seed: int
    stores: OpenedStores = field(default_factory=OpenedStores)

    def __call__(self, shard: Sequence[tuple[Path, str, bool]]) -> list[TriedEpisode]:
        """What each episode of a shard says.

        Args:
            shard: Store, id, and whether it is an expert's.

        Raises:
            DataError: A file is damaged, or lacks what the specification speaks of.
            CompatibilityError: An episode is of another task.
        """
        return [
            try_episode(
                self.specification,
                self.stores.read(path, name, frames=False),
                self.noise,
                self.draws,
                self.seed,
                is_expert=is_expert,
            )
            for path, name, is_expert in shard
        ]


def _falls(
    specification: CostSpecification, trajectory: Trajectory, stages: Sequence[StageScore]
) -> tuple[tuple[bool, ...], tuple[str, ...]]:
    ends = sorted({0, *(stage.end for stage in stages[:-1] if stage.done)})
    costs = [_total(evaluate(specification, beginning(trajectory, end))) for end in ends]
    falls = tuple(after < before for before, after in itertools.pairwise(costs))
    not_cheaper = tuple(
        next(stage.name for stage in stages if stage.end == end)
        for end, fell in zip(ends[1:], falls, strict=True)
        if not fell
    )
    return falls, not_cheaper


def _trend(specification: CostSpecification, trajectory: Trajectory) -> float | None:
    """Kendall's tau of time and cost so far: -1 where it only falls; None for an episode of one state."""
    at = sorted(set(np.linspace(0, trajectory.steps, PREFIXES).round().astype(int).tolist()))
    if len(at) < 2:
        return None
    costs = np.array([_total(evaluate(specification, beginning(trajectory, step))) for step in at])
    order = np.sign(costs[None, :] - costs[:, None])[np.triu_indices(len(costs), 1)]
    return float(order.mean())


def _noisy_costs(
    specification: CostSpecification, trajectory: Trajectory, noise: Sequence[float], draws: int, seed: int
) -> tuple[tuple[float, ...], ...]:
    return tuple(
        tuple(
            _total(evaluate(specification, with_noise(trajectory, rms, _rng(trajectory, seed, number, draw))))
            for draw in range(draws)
        )
        for number, rms in enumerate(noise)
    )


def _rng(trajectory: Trajectory, seed: int, number: int, draw: int) -> np.random.Generator:
    meta = trajectory.meta
    return derive_rng(seed, "keypoint noise", meta.task, meta.episode_id, meta.operator, meta.policy_hash, number, draw)


def _total(stages: Sequence[StageScore]) -> float:
    return sum(stage.cost for stage in stages)
