"""A specification's trial on recorded trajectories, before it is used: does it price as it should?

Successes and failures are ranked with the simulator's verdict hidden, so that it is the constraints that speak: with
the verdict, which every specification charges, any costs at all would tell the two apart.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from grape.core.preferences import StageScore
from grape.core.seeds import derive_rng
from grape.core.settings import Range, setting
from grape.core.trajectories import Trajectory
from grape.costs.evaluation import evaluate, unavailable_constraints
from grape.costs.report_card import ReportCard, TrialCheck
from grape.costs.specification import CostSpecification, specification_hash
from grape.costs.trial_measures import (
    BoundaryAgreement,
    area_under_curve,
    beginning,
    boundary_agreement,
    concordance,
    with_noise,
    without_verdict,
)

__all__ = ["CRITERIA", "ValidationCriteria", "validate_specification"]

_ROWS = 64  # of a matrix of pairs that are compared at once

PREFIXES = 10
"""First parts of an expert's episode, evenly spaced, at which its cost so far is looked at."""

CRITERIA = "Criteria"
"""Their group on help pages."""


@dataclass(frozen=True)
class ValidationCriteria:
    """What a specification must reach to be accepted.

    Attributes:
        max_unavailable: Largest share (0 to 1) of constraints of entered stages that could not be measured.
        min_fall: Smallest share (0 to 1) of stages that make an expert's episode cheaper when they are finished.
        max_trend: Largest mean rank correlation (-1 to 1) of time and cost so far along an expert's episode.
        min_auc: Smallest chance (0 to 1) that a success costs less than a failure, the verdict hidden.
        min_auc_low: What the lower end of that chance's 95 % interval must exceed.
        noise: Root mean square displacements of keypoints, meters, under which rankings should stay.
        max_flips: Largest share (0 to 1) of success and failure pairs that any of them turns round.
        draws: How often each episode is displaced.
        min_agreement: Smallest share (0 to 1) of the gripper's closings and openings at which a stage ends; 0 tells
            it only, where good stages end at another event, e.g. when the object has been lifted.
    """

    max_unavailable: float = setting(0.05, group=CRITERIA, range=Range(0, 1), common=True)
    min_fall: float = setting(0.9, group=CRITERIA, range=Range(0, 1), common=True)
    max_trend: float = setting(-0.3, group=CRITERIA, range=Range(-1, 1), common=True)
    min_auc: float = setting(0.8, group=CRITERIA, range=Range(0, 1), common=True)
    min_auc_low: float = setting(0.5, group=CRITERIA, range=Range(0, 1))
    noise: tuple[float, ...] = setting((0.01, 0.02), group=CRITERIA)
    max_flips: float = setting(0.05, group=CRITERIA, range=Range(0, 1), common=True)
    draws: int = setting(4, group=CRITERIA, range=Range(1))
    min_agreement: float = setting(0.5, group=CRITERIA, range=Range(0, 1), common=True)


@dataclass(eq=False)
class _Trial:
    """What is kept of the trajectories that were tried: numbers, so that memory does not hold them.

    Attributes:
        costs: Of each trajectory with the verdict hidden.
        success: Whether it was solved.
        starts: Its task and initial state.
        noisy: Its costs under each noise and draw, ``(noises, draws)``.
        all_finite: Whether all costs are finite, with the verdict of successes as well.
        entered: Number of constraints of entered stages.
        lost: How many of them could not be measured, by name.
        agreements: How boundaries agree with events, of successes.
        clean: How costs fall along the way of experts of style ``clean``.
        solved: The same of other successes, while there is no such expert.
    """

    costs: list[float] = field(default_factory=list)
    success: list[bool] = field(default_factory=list)
    starts: list[tuple[str, int]] = field(default_factory=list)
    noisy: list[np.ndarray] = field(default_factory=list)
    all_finite: bool = True
    entered: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    agreements: list[BoundaryAgreement] = field(default_factory=list)
    clean: list["_Way"] = field(default_factory=list)
    solved: list["_Way"] = field(default_factory=list)

    @property
    def experts(self) -> list["_Way"]:
        """Whose costs are followed: experts of style ``clean``, or all successes where there are none."""
        return self.clean or self.solved

    def add(
        self, specification: CostSpecification, trajectory: Trajectory, criteria: ValidationCriteria, seed: int
    ) -> None:
        """Try one trajectory of known outcome."""
        hidden, success = without_verdict(trajectory), bool(trajectory.meta.success)
        stages = evaluate(specification, hidden)
        self.costs.append(_total(stages))
        self.success.append(success)
        self.starts.append((trajectory.meta.task, trajectory.meta.initial_state))
        self.noisy.append(_noisy_costs(specification, hidden, criteria, seed))
        self.all_finite &= math.isfinite(self.costs[-1])
        self.entered += sum(len(stage.constraints) for stage in stages if stage.reached)
        self.lost.update(unavailable_constraints(stages))
        if not success:
            return
        self.agreements.append(boundary_agreement(hidden, stages))
        shown = evaluate(specification, trajectory)
        self.all_finite &= math.isfinite(_total(shown))
        if trajectory.meta.operator == "clean":
            self.clean.append(_way(specification, trajectory, shown, hidden))
            self.solved.clear()
        elif not self.clean:
            self.solved.append(_way(specification, trajectory, shown, hidden))


@dataclass(frozen=True)
class _Way:
    """How costs so far fall along an episode.

    Attributes:
        falls: Whether the episode so far costs less at the end of each stage than at that of the one before.
        not_cheaper: Stages at whose end it does not.
        trend: Rank correlation of time and cost so far; None for an episode of one state.
    """

    falls: tuple[bool, ...]
    not_cheaper: tuple[str, ...]
    trend: float | None


def _way(specification: CostSpecification, shown: Trajectory, stages: Sequence[StageScore], hidden: Trajectory) -> _Way:
    ends = sorted({0, *(stage.end for stage in stages[:-1] if stage.done)})
    costs = [_total(evaluate(specification, beginning(shown, end))) for end in ends]
    not_cheaper = [
        next(stage.name for stage in stages if stage.end == end)
        for end, (before, after) in zip(ends[1:], itertools.pairwise(costs), strict=True)
        if not after < before
    ]
    at = sorted(set(np.linspace(0, hidden.steps, PREFIXES).round().astype(int).tolist()))
    trend = None
    if len(at) > 1:
        trend = _kendall([_total(evaluate(specification, beginning(hidden, step))) for step in at])
    falls = tuple(after < before for before, after in itertools.pairwise(costs))
    return _Way(falls, tuple(not_cheaper), trend)


def validate_specification(
    specification: CostSpecification,
    trajectories: Iterable[Trajectory],
    criteria: ValidationCriteria | None = None,
    *,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> ReportCard:
    """Try a specification on trajectories of its task.

    Experts (of style ``clean``, or all successes where there are none) show whether costs fall along the way; successes
    and failures from the same initial states show whether costs rank them.

    Args:
        specification: What to try.
        trajectories: Recordings of the task, taken one after another; images are not looked at, and those of unknown
            outcome are left out.
        criteria: What it must reach.
        seed: Of the keypoints' displacement.
        advance: Called once a trajectory.

    Raises:
        CompatibilityError: A trajectory is of another task.
        DataError: A trajectory lacks a keypoint or signal that the specification speaks of.
    """
    criteria, trial = criteria or ValidationCriteria(), _Trial()
    for trajectory in trajectories:
        if trajectory.meta.success is not None:
            trial.add(specification, trajectory, criteria, seed)
            advance()
    return ReportCard(
        source=specification.source or specification.task,
        hash=specification_hash(specification),
        episodes=len(trial.costs),
        successes=sum(trial.success),
        states=len(set(trial.starts)),
        checks=(
            _finite(trial, criteria),
            _falls(trial.experts, criteria),
            _trend(trial.experts, criteria),
            _ranks(trial, criteria),
            _stable(trial, criteria),
            _boundaries(trial.agreements, criteria),
        ),
    )


def _finite(trial: _Trial, criteria: ValidationCriteria) -> TrialCheck:
    finite = trial.all_finite
    share = trial.lost.total() / trial.entered if trial.entered else 0.0
    if not finite:
        sentence = "A cost is not finite."
    elif trial.lost:
        worst = max(sorted(trial.lost), key=trial.lost.__getitem__)
        sentence = f"All costs are finite; {share:.1%} of constraints could not be measured, most often {worst}."
    else:
        sentence = "All costs are finite and every constraint could be measured."
    passed = finite and share <= criteria.max_unavailable if trial.costs else None
    return TrialCheck("finite", passed, share, criteria.max_unavailable, sentence, {"all_finite": finite})


def _falls(experts: Sequence[_Way], criteria: ValidationCriteria) -> TrialCheck:
    """At the end of each stage an expert's episode so far costs less than at the end of the one before."""
    falls = [fall for way in experts for fall in way.falls]
    not_cheaper = Counter(stage for way in experts for stage in way.not_cheaper)
    if not falls:
        sentence = "No success was recorded to follow its costs." if not experts else "No expert finished a stage."
        return TrialCheck("falls", False if experts else None, None, criteria.min_fall, sentence)
    share = float(np.mean(falls))
    sentence = f"{share:.0%} of the stages make an expert's episode cheaper when they end (of {len(falls)})."
    if not_cheaper:
        sentence += f" Most often '{max(sorted(not_cheaper), key=not_cheaper.__getitem__)}' does not."
    return TrialCheck(
        "falls", share >= criteria.min_fall, share, criteria.min_fall, sentence, {"experts": len(experts)}
    )


def _trend(experts: Sequence[_Way], criteria: ValidationCriteria) -> TrialCheck:
    """Along an expert's way the cost so far tends to fall."""
    correlations = [way.trend for way in experts if way.trend is not None]
    if not correlations:
        return TrialCheck("trend", None, None, criteria.max_trend, "No success was recorded to follow its costs.")
    tau = float(np.mean(correlations))
    sentence = f"Rank correlation of time and cost so far along an expert's episode: {tau:+.2f}."
    return TrialCheck("trend", tau <= criteria.max_trend, tau, criteria.max_trend, sentence)


def _ranks(trial: _Trial, criteria: ValidationCriteria) -> TrialCheck:
    costs, success, starts = trial.costs, trial.success, trial.starts
    auc = area_under_curve(costs, success, starts)
    if auc is None:
        missing = "failure" if all(success) else "success"
        return TrialCheck("ranks", None, None, criteria.min_auc, f"No {missing} was recorded to compare with.")
    same, pairs = concordance(costs, success, starts)
    interval = f"95 % interval {auc.low:.1%} to {auc.high:.1%}"
    sentence = f"A success costs less than a failure in {auc.value:.1%} of cases ({interval})"
    sentence += "." if same is None else f", from the same initial state in {same:.1%} of {pairs} pairs."
    passed: bool | None = auc.value >= criteria.min_auc
    if passed and not auc.low > criteria.min_auc_low:
        passed = None
        sentence += " The recordings are too few to be sure: record more initial states."
    facts = {
        "interval": [auc.low, auc.high],
        "successes": auc.successes,
        "failures": auc.failures,
        "states": auc.clusters,
        "same_state": same,
        "same_state_pairs": pairs,
    }
    return TrialCheck("ranks", passed, auc.value, criteria.min_auc, sentence, facts)


def _stable(trial: _Trial, criteria: ValidationCriteria) -> TrialCheck:
    clean, solved = np.asarray(trial.costs), np.asarray(trial.success, dtype=bool)
    groups = _same_start(trial.starts)
    couples = [(group[solved[group]], group[~solved[group]]) for group in groups]
    decisive = [sides for sides in couples if all(map(len, sides))]
    if not decisive and solved.any() and not solved.all():
        decisive = [(np.flatnonzero(solved), np.flatnonzero(~solved))]
    if not criteria.noise or not decisive:
        return TrialCheck("stable", None, None, criteria.max_flips, "No success and failure to rank under noise.")
    flips, all_flips = {}, {}
    for number, rms in enumerate(criteria.noise):
        displaced = np.stack([draws[number] for draws in trial.noisy])
        flips[f"{rms:g}"] = _flipped(clean, displaced, decisive)
        all_flips[f"{rms:g}"] = _flipped(clean, displaced, [(group, group) for group in groups])
    value = max(share or 0.0 for share in flips.values())
    largest = 100 * max(criteria.noise)
    sentence = f"Moving keypoints by up to {largest:g} cm turns at most {value:.1%} of success and failure pairs round."
    facts = {"flips": flips, "flips_of_all_pairs": all_flips, "draws": criteria.draws}
    return TrialCheck("stable", value <= criteria.max_flips, value, criteria.max_flips, sentence, facts)


def _boundaries(agreements: Sequence[BoundaryAgreement], criteria: ValidationCriteria) -> TrialCheck:
    events = sum(item.events for item in agreements)
    if not events:
        sentence = "No closing or opening of the gripper was recorded in a success to compare stage boundaries with."
        return TrialCheck("boundaries", None, None, criteria.min_agreement, sentence)
    share = sum(item.met for item in agreements) / events
    distances = [distance for item in agreements for distance in item.distances]
    median = float(np.median(distances))
    sentence = (
        f"A stage ends within a tenth of the episode of {share:.0%} of {events} closings and openings of the gripper"
    )
    sentence += f" (median distance {median:g} steps)."
    facts = {"events": events, "median_distance_steps": median}
    return TrialCheck("boundaries", share >= criteria.min_agreement, share, criteria.min_agreement, sentence, facts)


def _noisy_costs(
    specification: CostSpecification, trajectory: Trajectory, criteria: ValidationCriteria, seed: int
) -> np.ndarray:
    """Cost under each noise and draw, ``(noises, draws)``."""
    return np.array(
        [
            [
                _total(evaluate(specification, with_noise(trajectory, rms, _rng(trajectory, seed, number, draw))))
                for draw in range(criteria.draws)
            ]
            for number, rms in enumerate(criteria.noise)
        ]
    ).reshape(len(criteria.noise), criteria.draws)


def _rng(trajectory: Trajectory, seed: int, number: int, draw: int) -> np.random.Generator:
    meta = trajectory.meta
    return derive_rng(seed, "keypoint noise", meta.task, meta.episode_id, meta.operator, meta.policy_hash, number, draw)


def _flipped(clean: np.ndarray, displaced: np.ndarray, sides: Iterable[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """Share of ranked pairs whose order the displaced costs ``(E, draws)`` turn round.

    Args:
        clean: Costs, ``(E,)``.
        displaced: Costs under noise.
        sides: Groups of pairs: each episode of the first side with each of the second.
    """
    turned = ranked = 0
    for one, other in sides:
        for start in range(0, len(one), _ROWS):
            rows = one[start : start + _ROWS]
            before = np.sign(clean[rows][:, None] - clean[other][None, :])
            after = np.sign(displaced[rows][:, None, :] - displaced[other][None, :, :])
            ranked += int(np.count_nonzero(before))
            turned += int(np.count_nonzero((after == -before[:, :, None]) & (before != 0.0)[:, :, None]))
    return turned / (ranked * displaced.shape[1]) if ranked else None


def _same_start(starts: Sequence[tuple[str, int]]) -> list[np.ndarray]:
    """Numbers of the trajectories of each initial state."""
    groups: dict[tuple[str, int], list[int]] = {}
    for number, start in enumerate(starts):
        groups.setdefault(start, []).append(number)
    return [np.array(members) for members in groups.values()]


def _kendall(values: Sequence[float]) -> float:
    """Kendall's tau of values and their positions: -1 where they only fall."""
    array = np.asarray(values)
    order = np.sign(array[None, :] - array[:, None])[np.triu_indices(len(array), 1)]
    return float(order.mean()) if len(order) else 0.0


def _total(stages: Sequence[StageScore]) -> float:
    return sum(stage.cost for stage in stages)
