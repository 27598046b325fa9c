"""Scores of episodes: their costs, the thresholds and the calibration that the episodes suggest, and R_GCPG."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.core.events import Reporter
from grape.core.preferences import Score, StageScore
from grape.core.trajectories import EpisodeMeta
from grape.costs import CostSpecification, adjust_objectives, external_reward
from grape.mapping import HERE, Mapper
from grape.preferences.gcpg import TERMS, RawTerms, calibrate, weighted_terms
from grape.preferences.pricing import Priced, PricedEpisodes, Pricing, price_episodes
from grape.preferences.specifications import about_success_alone
from grape.preferences.summaries import summarize_scores
from grape.preferences.thresholds import Place, SuccessCosts, reprice, with_thresholds
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
        scores: One an episode, in the order of the episodes; each is made when it is its turn.
        priced: What the episodes cost before calibration.
        figures: See :func:`grape.preferences.summaries.summarize_scores`.
        facts: ``suite``, and ``policies``: hashes of the policies that recorded the episodes.
        calibration: JSON value of ``calibration.json``.
        warnings: What a reader of the scores must know.
    """

    scores: Iterable[Score]
    priced: PricedEpisodes
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
    folder: Path | None = None,
    mapper: Mapper = HERE,
    metas: Sequence[EpisodeMeta] | None = None,
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
        folder: Where prices are kept in shards, so that memory does not grow with them and a run that was killed goes
            on; None keeps them, with their curves, in memory.
        mapper: Where shards are priced.
        metas: Facts of the episodes where they are read already: the store looks at each file for them.

    Raises:
        DataError: A log-probability is not finite, or the external reward of an episode is missing.
        CompatibilityError: Log-probabilities are of several supports or temperatures.
    """
    metas = episodes.metas() if metas is None else metas
    specifications = {task: adjust_objectives(item, settings.objectives) for task, item in unadjusted.items()}
    unknown = frozenset(_state(meta) for meta in metas if meta.success is None)
    pricing = Pricing(specifications, settings.price_verdict, unknown)
    priced = price_episodes(episodes, metas, pricing, where, reporter, folder, mapper)
    final, thresholds = _thresholds(settings, metas, priced, specifications, by_hand)
    totals = _totals(metas, priced, final)
    values = None if external is None else _external_values(metas, external)
    raw = _raw_terms(metas, totals, external, values)
    success_alone = sorted({meta.task for meta in metas} - set(specifications)) if external is None else []
    with_costs = np.array([meta.task not in success_alone for meta in metas])
    calibration = calibrate(
        _raw_terms(metas, totals, external, values, with_costs)
        if with_costs.any()
        else replace(raw, r_self=np.full_like(raw.r_self, np.nan)),
        weights=settings.weights,
        beta=settings.beta,
        normalisation=None if settings.normalisation == "auto" else settings.normalisation,
        soft_share=settings.soft_share,
        from_data=settings.calibrate and bool(with_costs.any()),
        keep_weights=settings.keep_weights,
    )
    calibration = replace(calibration, beta=dict.fromkeys(success_alone, 1.0) | dict(calibration.beta))
    # Without an external reward of any kind success alone counts.
    weighted = weighted_terms(raw, calibration)
    weighted[~with_costs, :2] = 0.0
    r_ext = totals.r_ext if values is None else values
    warnings = [
        *(about_unfinished(episodes) if isinstance(episodes, EpisodeStore) else ()),
        *_warnings(metas, totals),
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
    return ScoredEpisodes(
        scores=_Scores(metas, priced, final, weighted, r_ext, "" if external is None else external.label),
        priced=priced,
        figures=summarize_scores(raw, weighted, np.where(with_costs, r_ext, np.nan)),
        facts={"suite": episodes.suite, "policies": policies},
        calibration=chosen,
        warnings=warnings,
    )


def _thresholds(
    settings: "ScoreSettings",
    metas: Sequence[EpisodeMeta],
    priced: PricedEpisodes,
    specifications: Mapping[str, CostSpecification],
    by_hand: Mapping[str, Mapping[Place, float]],
) -> tuple[dict[str, CostSpecification], dict[str, Any]]:
    """Specifications with calibrated, adjusted and given thresholds, and what calibration changed."""
    quantile = settings.threshold_quantile if settings.calibrate else None
    costs = {task: SuccessCosts(specification) for task, specification in specifications.items()}
    if quantile is not None:
        for meta, item in zip(metas, priced, strict=True):
            if meta.success and meta.task in costs:
                costs[meta.task].add(item.stages)
    final, changed = {}, {}
    for task, specification in specifications.items():
        suggested = {} if quantile is None else costs[task].thresholds(quantile)
        calibrated = {place: value for place, value in suggested.items() if place not in by_hand[task]}
        adjusted = adjust_objectives(with_thresholds(specification, calibrated), thresholds=settings.thresholds)
        final[task] = with_thresholds(adjusted, by_hand[task])
        names = [*(stage.name for stage in specification.stages), "outcome"]
        changed[task] = {f"{names[number]}/{name}": value for (number, name), value in calibrated.items()}
    return final, {task: calibrated for task, calibrated in changed.items() if calibrated}


@dataclass(frozen=True, eq=False)
class _Totals:
    """Unweighted terms of ``E`` episodes under the final thresholds.

    Attributes:
        r_self: ``(E,)``; NaN where nothing was sampled.
        cost: ``(E,)``.
        r_ext: That of the costs, ``(E,)``; 1 where nothing was priced.
        unavailable: How many episodes lack each measurement, by ``"task: stage/constraint"``.
    """

    r_self: npt.NDArray[np.float64]
    cost: npt.NDArray[np.float64]
    r_ext: npt.NDArray[np.float64]
    unavailable: Mapping[str, int]


def _totals(
    metas: Sequence[EpisodeMeta], priced: PricedEpisodes, specifications: Mapping[str, CostSpecification]
) -> _Totals:
    r_self, cost, r_ext = (np.full(len(metas), np.nan) for _ in range(3))
    unavailable: Counter[str] = Counter()
    for row, (meta, item) in enumerate(zip(metas, priced, strict=True)):
        stages = _repriced(meta, item, specifications)
        r_self[row] = math.nan if item.r_self is None else item.r_self
        cost[row] = sum(stage.cost for stage in stages)
        r_ext[row] = external_reward(stages)
        unavailable.update(f"{meta.task}: {place}" for place in item.unavailable)
    return _Totals(r_self, cost, r_ext, unavailable)


def _repriced(
    meta: EpisodeMeta, item: Priced, specifications: Mapping[str, CostSpecification]
) -> tuple[StageScore, ...]:
    return reprice(item.stages, specifications[meta.task]) if meta.task in specifications else ()


def _raw_terms(
    metas: Sequence[EpisodeMeta],
    totals: _Totals,
    external: ScorerValues | None,
    values: npt.NDArray[np.float64] | None,
    chosen: npt.NDArray[np.bool_] | None = None,
) -> RawTerms:
    """Terms of the chosen episodes; of all without a choice."""
    rows = np.arange(len(metas)) if chosen is None else np.flatnonzero(chosen)
    some = [metas[row] for row in rows.tolist()]
    tasks = {task: number for number, task in enumerate(sorted({meta.task for meta in some}))}
    places = {place: number for number, place in enumerate(sorted({_state(meta) for meta in some}))}
    outcomes = [math.nan if meta.success is None else meta.success for meta in some]
    return RawTerms(
        r_self=totals.r_self[rows],
        steps=np.array([meta.steps for meta in some], dtype=np.int64),
        cost=totals.cost[rows],
        success=np.array(outcomes, dtype=np.float64),
        task=np.array([tasks[meta.task] for meta in some], dtype=np.int64),
        state=np.array([places[_state(meta)] for meta in some], dtype=np.int64),
        tasks=tuple(tasks),
        external=None if values is None else values[rows],
        external_noise=0.0 if external is None else external.noise,
    )


def _external_values(metas: Sequence[EpisodeMeta], external: ScorerValues) -> npt.NDArray[np.float64]:
    values = external.by_episode()
    missing = [meta.episode_id for meta in metas if values.get(meta.episode_id) is None]
    if missing:
        raise DataError(
            f"Scorer '{external.label}' is to be the external reward and has no value for {len(missing)} of "
            f"{len(metas)} episodes, first {missing[0]}.",
            "Fix what it lacks, or leave --external-reward out.",
        )
    return np.array([values[meta.episode_id] for meta in metas], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _Scores:
    """Scores of all episodes in their order; each is made when it is its turn."""

    metas: Sequence[EpisodeMeta]
    priced: PricedEpisodes
    specifications: Mapping[str, CostSpecification]
    weighted: npt.NDArray[np.float64]
    r_ext: npt.NDArray[np.float64]
    external: str

    def __iter__(self) -> Iterator[Score]:
        for row, (meta, item) in enumerate(zip(self.metas, self.priced, strict=True)):
            stages = _repriced(meta, item, self.specifications)
            terms = self.weighted[row].tolist()
            yield Score(
                episode_id=meta.episode_id,
                task=meta.task,
                initial_state=meta.initial_state,
                success=meta.success,
                steps=meta.steps,
                r_self=item.r_self,
                r_ext=float(self.r_ext[row]),
                cost=float(sum(stage.cost for stage in stages)),
                terms=dict(zip(TERMS, terms, strict=True)),
                gcpg=sum(terms),
                stages=stages,
                external=self.external,
            )


def _warnings(metas: Sequence[EpisodeMeta], totals: _Totals) -> list[str]:
    """What a reader of the scores must know about the store."""
    warnings = []
    unsampled = int(np.isnan(totals.r_self).sum())
    if 0 < unsampled < len(metas):
        warnings.append(
            f"{unsampled} of {len(metas)} episodes were not sampled from a policy: their self term is 0, which is no "
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
    lost = totals.unavailable
    if lost:
        worst, count = min(lost.items(), key=lambda entry: (-entry[1], entry[0]))
        warnings.append(
            f"{sum(lost.values())} constraints could not be measured (a keypoint was lost, or they ask for the "
            f"simulator's verdict), and are charged their worst; most often {worst} ({count} episodes)."
        )
    return warnings


def _state(meta: EpisodeMeta) -> tuple[str, int]:
    return meta.task, meta.initial_state
