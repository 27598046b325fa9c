"""Scores of episodes: their costs, the thresholds and the calibration that the episodes suggest, and R_GCPG."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import CompatibilityError, DataError
from grape.core.events import Reporter
from grape.core.preferences import Score, StageScore
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.costs import (
    CostSpecification,
    adjust_objectives,
    evaluate,
    external_reward,
    unavailable_constraints,
    with_unknown_outcome,
)
from grape.preferences.gcpg import TERMS, Calibration, RawTerms, calibrate, weighted_terms
from grape.preferences.specifications import about_success_alone
from grape.preferences.summaries import summarize_scores
from grape.preferences.thresholds import Place, calibrated_thresholds, reprice, with_thresholds
from grape.scorers import ScorerValues
from grape.store import EpisodeStore, about_unfinished
from grape.store.source import Episodes

if TYPE_CHECKING:
    from grape.preferences.score import ScoreSettings

__all__ = ["ScoredEpisodes", "score_episodes"]


@dataclass(frozen=True)
class ScoredEpisodes:
    """What scoring gives.

    Attributes:
        scores: One an episode, in the order of the episodes.
        figures: See :func:`grape.preferences.summaries.summarize_scores`.
        facts: ``suite``, and ``policies``: hashes of the policies that recorded the episodes.
        calibration: JSON value of ``calibration.json``.
        warnings: What a reader of the scores must know.
    """

    scores: Sequence[Score]
    figures: Mapping[str, Any]
    facts: Mapping[str, Any]
    calibration: Mapping[str, Any]
    warnings: Sequence[str]

    def summary(self, **place: Any) -> dict[str, Any]:
        """The summary of ``grape score``; ``place`` says where the episodes are."""
        return {
            **self.figures,
            **place,
            **self.facts,
            "calibration": dict(self.calibration),
            "warnings": list(self.warnings),
        }


def score_episodes(
    settings: "ScoreSettings",
    episodes: Episodes,
    unadjusted: Mapping[str, CostSpecification],
    by_hand: Mapping[str, Mapping[Place, float]],
    hashes: Mapping[str, str],
    where: str,
    reporter: Reporter,
    external: ScorerValues | None = None,
) -> ScoredEpisodes:
    """Score episodes; warn of what a reader must know.

    Args:
        settings: How; of the paths, only ``costs`` is read, for a warning.
        episodes: At least one.
        unadjusted: Specification by task, as written; a task without one is scored by success alone.
        by_hand: Thresholds that the user gave, by task.
        hashes: Hash of each specification.
        where: What messages call the place of the episodes.
        reporter: Hears of progress and warnings.
        external: Whose values R_ext is; None for that of the costs.

    Raises:
        DataError: A log-probability is not finite, or the external reward of an episode is missing.
        CompatibilityError: Log-probabilities are of several supports or temperatures.
    """
    metas = episodes.metas()
    specifications = {task: adjust_objectives(item, settings.objectives) for task, item in unadjusted.items()}
    priced = _price(episodes, metas, specifications, settings.price_verdict, where, reporter)
    priced, thresholds = _with_thresholds(settings, priced, specifications, by_hand)
    raw = _raw_terms(priced, external)
    success_alone = sorted({meta.task for meta in metas} - set(specifications)) if external is None else []
    with_costs = [item for item in priced if item.meta.task not in success_alone]
    calibration = calibrate(
        _raw_terms(with_costs, external) if with_costs else replace(raw, r_self=np.full_like(raw.r_self, np.nan)),
        weights=settings.weights,
        beta=settings.beta,
        normalisation=None if settings.normalisation == "auto" else settings.normalisation,
        soft_share=settings.soft_share,
        from_data=settings.calibrate and bool(with_costs),
        keep_weights=settings.keep_weights,
    )
    calibration = replace(calibration, beta=dict.fromkeys(success_alone, 1.0) | dict(calibration.beta))
    scores = _scores(priced, raw, calibration, external)
    warnings = [
        *(about_unfinished(episodes) if isinstance(episodes, EpisodeStore) else ()),
        *_warnings(metas, priced),
        *calibration.notes,
        *about_success_alone(episodes.suite, success_alone, settings.costs),
    ]
    for warning in warnings:
        reporter.warn(warning)
    chosen = calibration.to_dict() | {
        "thresholds": thresholds,
        "objectives": dict(settings.objectives),
        "threshold_factors": dict(settings.thresholds),
        "threshold_values": dict(settings.threshold_values),
        "weights_kept": settings.keep_weights or not settings.calibrate,
        "specifications": dict(hashes),
        **({"success_alone": success_alone} if success_alone else {}),
        **({"external": {"scorer": external.label, "noise": external.noise}} if external is not None else {}),
    }
    policies = sorted({meta.policy_hash for meta in metas if meta.policy_hash})
    facts = {"suite": episodes.suite, "policies": policies}
    return ScoredEpisodes(scores, summarize_scores(scores, raw), facts, chosen, warnings)


@dataclass(frozen=True)
class _Priced:
    """An episode's facts and its unweighted terms."""

    meta: EpisodeMeta
    r_self: float | None
    stages: tuple[StageScore, ...]


def _price(
    episodes: Episodes,
    metas: Sequence[EpisodeMeta],
    specifications: Mapping[str, CostSpecification],
    price_verdict: bool,
    where: str,
    reporter: Reporter,
) -> list[_Priced]:
    """Costs of all episodes: without the simulator's verdict, which enters through I_success alone, unless asked.

    Raises:
        CompatibilityError: Log-probabilities are of several supports or temperatures.
    """
    priced: list[_Priced] = []
    sampled: dict[tuple[str, float], str] = {}
    unknown = {_state(meta) for meta in metas if meta.success is None}
    with reporter.progress("scoring", len(metas)) as progress:
        for meta in metas:
            trajectory = episodes.read(meta.episode_id, frames=False)
            # Known and unknown outcomes of one initial state are priced alike, or the unknown would look cheaper.
            with_verdict = price_verdict and _state(meta) not in unknown
            shown = trajectory if with_verdict else with_unknown_outcome(trajectory)
            stages = evaluate(specifications[meta.task], shown) if meta.task in specifications else ()
            priced.append(_Priced(meta, _self_reward(trajectory), stages))
            if priced[-1].r_self is not None:
                sampled.setdefault((trajectory.support, trajectory.logp_temperature), meta.episode_id)
            if len(sampled) > 1:
                raise _mixed(where, sampled)
            progress.advance(note=meta.task)
    return priced


def _mixed(where: str, sampled: Mapping[tuple[str, float], str]) -> CompatibilityError:
    kinds = [
        f"{name} over the {support} at temperature {temperature:g}" for (support, temperature), name in sampled.items()
    ]
    return CompatibilityError(
        f"The episodes of {where} hold log-probabilities that do not compare: {'; '.join(kinds)}.",
        "Score the episodes of each kind in a store of their own.",
    )


def _self_reward(trajectory: Trajectory) -> float | None:
    """R_self; None for experts and wherever nothing was sampled."""
    meta = trajectory.meta
    if meta.actor == "expert" or (meta.steps and bool(np.isnan(trajectory.token_logps).all())):
        return None
    if not math.isfinite(trajectory.logp):
        raise DataError(
            f"Episode {meta.episode_id} holds log-probabilities that are not finite.",
            "The policy that recorded it was broken: collect the episode again with a sound one.",
        )
    return trajectory.logp


def _with_thresholds(
    settings: "ScoreSettings",
    priced: list[_Priced],
    specifications: Mapping[str, CostSpecification],
    by_hand: Mapping[str, Mapping[Place, float]],
) -> tuple[list[_Priced], dict[str, Any]]:
    """Episodes priced under calibrated, adjusted and given thresholds, and what calibration changed."""
    quantile = settings.threshold_quantile if settings.calibrate else None
    final, changed = {}, {}
    for task, specification in specifications.items():
        calibrated = {}
        if quantile is not None:
            successes = [item.stages for item in priced if item.meta.task == task and item.meta.success]
            calibrated = calibrated_thresholds(specification, successes, quantile)
        calibrated = {place: value for place, value in calibrated.items() if place not in by_hand[task]}
        adjusted = adjust_objectives(with_thresholds(specification, calibrated), thresholds=settings.thresholds)
        final[task] = with_thresholds(adjusted, by_hand[task])
        names = [*(stage.name for stage in specification.stages), "outcome"]
        changed[task] = {f"{names[number]}/{name}": value for (number, name), value in calibrated.items()}
    repriced = [
        replace(item, stages=reprice(item.stages, final[item.meta.task])) if item.meta.task in final else item
        for item in priced
    ]
    return repriced, {task: calibrated for task, calibrated in changed.items() if calibrated}


def _raw_terms(priced: Sequence[_Priced], external: ScorerValues | None) -> RawTerms:
    tasks = {task: number for number, task in enumerate(sorted({item.meta.task for item in priced}))}
    places = {place: number for number, place in enumerate(sorted({_state(item.meta) for item in priced}))}
    return RawTerms(
        r_self=np.array([np.nan if item.r_self is None else item.r_self for item in priced], dtype=np.float64),
        steps=np.array([item.meta.steps for item in priced], dtype=np.int64),
        cost=np.array([sum(stage.cost for stage in item.stages) for item in priced], dtype=np.float64),
        success=np.array(
            [math.nan if item.meta.success is None else item.meta.success for item in priced], dtype=np.float64
        ),
        task=np.array([tasks[item.meta.task] for item in priced], dtype=np.int64),
        state=np.array([places[_state(item.meta)] for item in priced], dtype=np.int64),
        tasks=tuple(tasks),
        external=None if external is None else _external_values(priced, external),
        external_noise=0.0 if external is None else external.noise,
    )


def _external_values(priced: Sequence[_Priced], external: ScorerValues) -> npt.NDArray[np.float64]:
    values = external.by_episode()
    missing = [item.meta.episode_id for item in priced if values.get(item.meta.episode_id) is None]
    if missing:
        raise DataError(
            f"Scorer '{external.label}' is to be the external reward and has no value for {len(missing)} of "
            f"{len(priced)} episodes, first {missing[0]}.",
            "Fix what it lacks, or leave --external-reward out.",
        )
    return np.array([values[item.meta.episode_id] for item in priced], dtype=np.float64)


def _scores(
    priced: Sequence[_Priced], raw: RawTerms, calibration: Calibration, external: ScorerValues | None
) -> list[Score]:
    """R_GCPG of each episode; without an external reward of any kind success alone counts."""
    rewarded = [bool(item.stages) or external is not None for item in priced]
    by_costs = np.array([[known, known, True] for known in rewarded])
    values = [external_reward(item.stages) for item in priced] if raw.external is None else raw.external.tolist()
    rows = np.where(by_costs, weighted_terms(raw, calibration), 0.0).tolist()
    return [
        Score(
            episode_id=item.meta.episode_id,
            task=item.meta.task,
            initial_state=item.meta.initial_state,
            success=item.meta.success,
            steps=item.meta.steps,
            r_self=item.r_self,
            r_ext=r_ext,
            cost=cost,
            terms=dict(zip(TERMS, terms, strict=True)),
            gcpg=sum(terms),
            stages=item.stages,
            external="" if external is None else external.label,
        )
        for item, cost, terms, r_ext in zip(priced, raw.cost.tolist(), rows, values, strict=True)
    ]


def _warnings(metas: Sequence[EpisodeMeta], priced: Sequence[_Priced]) -> list[str]:
    """What a reader of the scores must know about the store."""
    warnings = []
    unsampled = sum(item.r_self is None for item in priced)
    if 0 < unsampled < len(priced):
        warnings.append(
            f"{unsampled} of {len(priced)} episodes were not sampled from a policy: their self term is 0, which is no "
            "middling value, except with --normalisation state-standardised or --normalisation task-standardised."
        )
    unknown = sum(meta.success is None for meta in metas)
    if unknown:
        warnings.append(
            f"The outcome of {unknown} of {len(metas)} episodes is unknown. In their initial states nothing is decided "
            "by success: R_self and the costs rank all episodes there."
        )
    policies = len({meta.policy_hash for meta in metas if meta.policy_hash})
    if policies > 1:
        warnings.append(
            f"The episodes come from {policies} policies, whose log-probabilities do not compare: pairs may prefer one "
            "policy to another. Score the episodes of each policy in a store of their own."
        )
    lost = Counter(f"{item.meta.task}: {place}" for item in priced for place in unavailable_constraints(item.stages))
    if lost:
        worst, count = min(lost.items(), key=lambda entry: (-entry[1], entry[0]))
        warnings.append(
            f"{sum(lost.values())} constraints could not be measured (a keypoint was lost, or they ask for the "
            f"simulator's verdict), and are charged their worst; most often {worst} ({count} episodes)."
        )
    return warnings


def _state(meta: EpisodeMeta) -> tuple[str, int]:
    return meta.task, meta.initial_state
