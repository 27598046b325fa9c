"""A specification's trial on recorded trajectories, before it is used: does it price as it should?

Successes and failures are ranked with the simulator's verdict hidden, so that it is the constraints that speak: with
the verdict, which every specification charges, any costs at all would tell the two apart.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from grape.core.settings import Range, setting
from grape.core.trajectories import Trajectory
from grape.costs.report_card import ReportCard, TrialCheck
from grape.costs.specification import CostSpecification, specification_hash
from grape.costs.trial_measures import area_under_curve, concordance
from grape.costs.tried_episodes import TriedEpisode, is_clean_expert, try_episode

__all__ = ["CRITERIA", "ValidationCriteria", "report_on", "validate_specification"]

_ROWS = 64  # of a matrix of pairs that are compared at once

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
    criteria = criteria or ValidationCriteria()
    tried: list[TriedEpisode] = []
    clean_was_seen = False
    for trajectory in trajectories:
        meta = trajectory.meta
        if meta.success is None:
            continue
        clean_was_seen |= is_clean_expert(meta)
        # While there is no expert of style clean, every success may have to show how costs fall.
        is_expert = is_clean_expert(meta) or (meta.success and not clean_was_seen)
        tried.append(try_episode(specification, trajectory, criteria.noise, criteria.draws, seed, is_expert=is_expert))
        advance()
    return report_on(specification, tried, criteria)


def report_on(
    specification: CostSpecification, tried: Sequence[TriedEpisode], criteria: ValidationCriteria
) -> ReportCard:
    """What the trial of a specification on all episodes found.

    Args:
        specification: What was tried.
        tried: What :func:`~grape.costs.tried_episodes.try_episode` found of each episode of known outcome.
        criteria: What it must reach; noise and draws as in the trial.
    """
    followed = [item for item in tried if item.is_expert]
    experts = [item for item in followed if item.is_clean] or followed
    return ReportCard(
        source=specification.source or specification.task,
        hash=specification_hash(specification),
        episodes=len(tried),
        successes=sum(item.success for item in tried),
        states=len({item.start for item in tried}),
        checks=(
            _finite(tried, criteria),
            _falls(experts, criteria),
            _trend(experts, criteria),
            _ranks(tried, criteria),
            _stable(tried, criteria),
            _boundaries(tried, criteria),
        ),
    )


def _finite(tried: Sequence[TriedEpisode], criteria: ValidationCriteria) -> TrialCheck:
    finite = all(item.finite for item in tried)
    entered = sum(item.entered for item in tried)
    lost = [place for item in tried for place in item.unavailable]
    share = len(lost) / entered if entered else 0.0
    if not finite:
        sentence = "A cost is not finite."
    elif lost:
        worst = max(sorted(set(lost)), key=lost.count)
        sentence = f"All costs are finite; {share:.1%} of constraints could not be measured, most often {worst}."
    else:
        sentence = "All costs are finite and every constraint could be measured."
    passed = finite and share <= criteria.max_unavailable if tried else None
    return TrialCheck("finite", passed, share, criteria.max_unavailable, sentence, {"all_finite": finite})


def _falls(experts: Sequence[TriedEpisode], criteria: ValidationCriteria) -> TrialCheck:
    """At the end of each stage an expert's episode so far costs less than at the end of the one before."""
    falls = [fell for item in experts for fell in item.falls]
    not_cheaper = [stage for item in experts for stage in item.not_cheaper]
    if not falls:
        sentence = "No success was recorded to follow its costs." if not experts else "No expert finished a stage."
        return TrialCheck("falls", False if experts else None, None, criteria.min_fall, sentence)
    share = float(np.mean(falls))
    sentence = f"{share:.0%} of the stages make an expert's episode cheaper when they end (of {len(falls)})."
    if not_cheaper:
        sentence += f" Most often '{max(sorted(set(not_cheaper)), key=not_cheaper.count)}' does not."
    return TrialCheck(
        "falls", share >= criteria.min_fall, share, criteria.min_fall, sentence, {"experts": len(experts)}
    )


def _trend(experts: Sequence[TriedEpisode], criteria: ValidationCriteria) -> TrialCheck:
    """Along an expert's way the cost so far tends to fall."""
    correlations = [item.trend for item in experts if item.trend is not None]
    if not correlations:
        return TrialCheck("trend", None, None, criteria.max_trend, "No success was recorded to follow its costs.")
    tau = float(np.mean(correlations))
    sentence = f"Rank correlation of time and cost so far along an expert's episode: {tau:+.2f}."
    return TrialCheck("trend", tau <= criteria.max_trend, tau, criteria.max_trend, sentence)


def _ranks(tried: Sequence[TriedEpisode], criteria: ValidationCriteria) -> TrialCheck:
    costs, success, starts = _columns(tried)
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


def _stable(tried: Sequence[TriedEpisode], criteria: ValidationCriteria) -> TrialCheck:
    costs, success, starts = _columns(tried)
    clean, solved = np.asarray(costs), np.asarray(success, dtype=bool)
    groups = _same_start(starts)
    couples = [(group[solved[group]], group[~solved[group]]) for group in groups]
    decisive = [sides for sides in couples if all(map(len, sides))]
    if not decisive and solved.any() and not solved.all():
        decisive = [(np.flatnonzero(solved), np.flatnonzero(~solved))]
    if not criteria.noise or not decisive:
        return TrialCheck("stable", None, None, criteria.max_flips, "No success and failure to rank under noise.")
    flips, all_flips = {}, {}
    for number, rms in enumerate(criteria.noise):
        displaced = np.array([item.noisy[number] for item in tried])
        flips[f"{rms:g}"] = _flipped(clean, displaced, decisive)
        all_flips[f"{rms:g}"] = _flipped(clean, displaced, [(group, group) for group in groups])
    value = max(share or 0.0 for share in flips.values())
    largest = 100 * max(criteria.noise)
    sentence = f"Moving keypoints by up to {largest:g} cm turns at most {value:.1%} of success and failure pairs round."
    facts = {"flips": flips, "flips_of_all_pairs": all_flips, "draws": criteria.draws}
    return TrialCheck("stable", value <= criteria.max_flips, value, criteria.max_flips, sentence, facts)


def _boundaries(tried: Sequence[TriedEpisode], criteria: ValidationCriteria) -> TrialCheck:
    agreements = [item.boundaries for item in tried if item.boundaries is not None]
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


def _columns(tried: Sequence[TriedEpisode]) -> tuple[list[float], list[bool], list[tuple[str, int]]]:
    return [item.cost for item in tried], [item.success for item in tried], [item.start for item in tried]


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
