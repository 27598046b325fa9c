"""The verb ``score``: what every recorded episode was worth, without simulator or policy."""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from grape.core.errors import CompatibilityError, DataError, SettingsError, require_known
from grape.core.events import SILENT, Reporter
from grape.core.files import write_json, write_jsonl
from grape.core.preferences import Score, StageScore
from grape.core.runs import is_complete, open_run, read_run_settings, recorded_inputs
from grape.core.settings import Range, check_ranges, setting
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.costs import (
    OBJECTIVES,
    CostSpecification,
    adjust_objectives,
    evaluate,
    external_reward,
    specification_hash,
    unavailable_constraints,
    with_unknown_outcome,
)
from grape.preferences.gcpg import PUBLISHED_WEIGHTS, TERMS, Calibration, RawTerms, calibrate, weighted_terms
from grape.preferences.records import SCORES_FILE, score_to_row
from grape.preferences.specifications import (
    about_success_alone,
    check_against_store,
    check_success_counts,
    choose_specifications,
)
from grape.preferences.summaries import summarize_scores
from grape.preferences.thresholds import Place, calibrated_thresholds, reprice, thresholds_by_hand, with_thresholds
from grape.store import EpisodeStore

__all__ = ["CALIBRATION_FILE", "ScoreSettings", "check_score", "portable_path", "run_score", "warn_of_old_scores"]

CALIBRATION_FILE = "calibration.json"
_REWARD, _COSTS = "Reward", "Costs"
_Normalization = Literal["auto", "raw", "step-mean", "state-standardised", "task-standardised"]


@dataclass(frozen=True)
class ScoreSettings:
    """Score recorded episodes: R_GCPG = lambda_1 R_self + lambda_2 R_ext + lambda_3 I_success (arXiv 2411.19309).

    R_self is the log-probability of what the policy sampled, R_ext = exp(-sum of stage costs), I_success is 0 or 1.
    With --calibrate (the default) scales are chosen from the store so that the terms contribute comparably to the
    ranking within an initial state; --no-calibrate computes the published formula exactly.

    Attributes:
        store: Episode store, or the folder that grape collect wrote.
        out: Folder to write: scores.jsonl (one episode a line, with every stage and constraint) and calibration.json.
        costs: YAML cost specification, or a folder of them, that override the built-in ones of their tasks.
        calibrate: Choose weights, beta, normalization and thresholds from data and store them in calibration.json.
        weights: lambda_1, lambda_2, lambda_3 (not negative); the default is the published one. Calibration keeps
            lambda_3 and the proportion of the other two; 0 silences a term.
        beta: Scale of costs in exp(-beta * cost), above 0. By default calibration takes, for each task, one over the
            mean cost, successes and failures counting equally; without calibration it is 1.
        price_verdict: Charge failures for the simulator's verdict in R_ext, too, and let a solved episode finish all
            stages, as release 0.1 did. R_ext then mostly repeats I_success; for comparison only.
        normalisation: How R_self is scaled: raw (sum over the steps), step-mean, or the mean a step standardized
            within its initial state or task. auto is step-mean when calibrating, else raw.
        keep_weights: Calibration only: take --weights as they are; normalization, beta and thresholds are still chosen.
        soft_share: Calibration only: standard deviation that R_self and R_ext each contribute among episodes of one
            initial state and outcome, as a share of lambda_3. Above 0; with 0.25 a success outweighs four of them.
        threshold_quantile: Calibration only: raise thresholds to this quantile (0 to 1) of the costs of a task's
            successful episodes, where it has at least 8; never those of constraints tagged safety. None keeps all.
        objectives: Factor (0 or more) a tag (completion, safety, efficiency) on the weights of constraints with it,
            e.g. safety:4,efficiency:0. What a stage costs for not being finished or entered stays as it is.
        thresholds: Factor (0 or more) a tag on the thresholds of constraints with it, e.g. efficiency:2.
        threshold_values: Thresholds by hand, in the cost's canonical unit, that win over specification, calibration and
            factors: STAGE/CONSTRAINT, or TASK/STAGE/CONSTRAINT for one task, e.g. hook/at-handle:0.05.
    """

    store: Path = setting(identity=False, common=True)
    out: Path = setting(identity=False, common=True)
    costs: Path | None = setting(None, group=_COSTS, identity=False, common=True)
    price_verdict: bool = setting(False, group=_COSTS, identity="unless default")
    calibrate: bool = setting(True, group=_REWARD, common=True)
    weights: tuple[float, float, float] = setting(PUBLISHED_WEIGHTS, group=_REWARD, common=True)
    beta: float | None = setting(None, group=_REWARD, range=Range(0, open_low=True), common=True)
    normalisation: _Normalization = setting("auto", group=_REWARD)
    keep_weights: bool = setting(False, group=_REWARD)
    soft_share: float = setting(0.25, group=_REWARD, range=Range(0, open_low=True))
    threshold_quantile: float | None = setting(0.25, group=_COSTS, range=Range(0, 1))
    objectives: Mapping[str, float] = setting(factory=dict, group=_COSTS, common=True)
    thresholds: Mapping[str, float] = setting(factory=dict, group=_COSTS)
    threshold_values: Mapping[str, float] = setting(factory=dict, group=_COSTS)


@dataclass(frozen=True)
class _Priced:
    """An episode's facts and its unweighted terms."""

    meta: EpisodeMeta
    r_self: float | None
    stages: tuple[StageScore, ...]


def run_score(settings: ScoreSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Score all episodes of a store.

    Returns:
        Summary: number of episodes and successes, means of the unweighted terms, how each term goes with success, how
        many initial states can give pairs, the calibration, hashes of the specifications, warnings; see
        :func:`grape.preferences.summaries.summarize_scores`.

    Raises:
        SettingsError: A setting is out of range, or success is to count for nothing where nothing else can.
        DataError: The store is missing, empty or damaged, or a specification speaks of what it did not record.
        CompatibilityError: Specification and store do not fit, or ``out`` belongs to another run.
    """
    check_score(settings)
    store = EpisodeStore.open(settings.store)
    metas = store.metas()
    if not metas:
        raise DataError(f"Episode store {store.path} holds no episodes.", "Run 'grape collect' first.")
    tasks = tuple(sorted({meta.task for meta in metas}))
    unadjusted = choose_specifications(store.suite, tasks, settings.costs)
    success_alone = tuple(task for task in tasks if task not in unadjusted)
    check_success_counts(settings.weights, success_alone)
    check_against_store(store, metas, unadjusted)
    by_hand = thresholds_by_hand(unadjusted, settings.threshold_values)
    today = {task: specification_hash(specification) for task, specification in unadjusted.items()}
    hashes = (_hashes_of_finished_run(settings.out) if settings.costs is None else {}) or today
    run = open_run(settings.out, "score", settings, {"episodes": store.digest(), "specifications": hashes})
    if run.done is not None:
        if not warn_of_old_scores(settings.out, run.done, reporter) and hashes != today:
            changed = ", ".join(task for task in tasks if hashes.get(task) != today.get(task)) or "other tasks"
            reporter.warn(
                f"The scores in {settings.out} were made with built-in costs of an earlier release, which were others "
                f"for {changed}. Score the episodes again into another folder for those of today."
            )
        return run.done
    specifications = {task: adjust_objectives(item, settings.objectives) for task, item in unadjusted.items()}
    priced = _price(store, metas, specifications, settings.price_verdict, reporter)
    priced, thresholds = _with_thresholds(settings, priced, specifications, by_hand)
    raw = _raw_terms(priced)
    with_costs = [item for item in priced if item.meta.task in specifications]
    calibration = calibrate(
        _raw_terms(with_costs) if with_costs else replace(raw, r_self=np.full_like(raw.r_self, np.nan)),
        weights=settings.weights,
        beta=settings.beta,
        normalisation=None if settings.normalisation == "auto" else settings.normalisation,
        soft_share=settings.soft_share,
        from_data=settings.calibrate and bool(with_costs),
        keep_weights=settings.keep_weights,
    )
    calibration = replace(calibration, beta=dict.fromkeys(success_alone, 1.0) | dict(calibration.beta))
    scores = _scores(priced, raw, calibration)
    warnings = [
        *_warnings(metas, priced),
        *calibration.notes,
        *about_success_alone(store.suite, success_alone, settings.costs),
    ]
    for warning in warnings:
        reporter.warn(warning)
    write_jsonl(settings.out / SCORES_FILE, map(score_to_row, scores))
    chosen = calibration.to_dict() | {
        "thresholds": thresholds,
        "objectives": dict(settings.objectives),
        "threshold_factors": dict(settings.thresholds),
        "threshold_values": dict(settings.threshold_values),
        "weights_kept": settings.keep_weights or not settings.calibrate,
        "specifications": hashes,
        **({"success_alone": list(success_alone)} if success_alone else {}),
    }
    write_json(settings.out / CALIBRATION_FILE, chosen)
    summary = summarize_scores(scores, raw) | {
        "store": portable_path(store.path, settings.out),
        "suite": store.suite,
        "policies": sorted({meta.policy_hash for meta in metas if meta.policy_hash}),
        "calibration": chosen,
        "warnings": warnings,
    }
    run.finish(summary)
    return summary


def _hashes_of_finished_run(folder: Path) -> dict[str, str]:
    """Hashes of the built-in specifications that a complete run used: those of an earlier release may be others."""
    inputs = recorded_inputs(folder, "score")
    if inputs is None or not is_complete(folder) or not (folder / "settings.yaml").exists():
        return {}
    recorded, hashes = read_run_settings(folder), inputs.get("specifications")
    if not isinstance(recorded, dict) or recorded.get("costs") or not isinstance(hashes, dict):
        return {}
    return hashes


def warn_of_old_scores(folder: Path, summary: Mapping[str, Any], reporter: Reporter) -> bool:
    """Say so where scores are those of release 0.1, which ranks otherwise; returns whether they are."""
    old = "spread_within" not in summary.get("calibration", {})
    if old:
        reporter.warn(
            f"The scores in {folder} were made by release 0.1: their costs repeat the simulator's verdict, charge "
            "safety for stages that were never entered and fix the order of interchangeable stages, and weights were "
            "calibrated across outcomes. Score the episodes again into another folder for those of today."
        )
    return old


def portable_path(path: Path, folder: Path) -> str:
    """``path`` as seen from ``folder``, so that both may be moved together; absolute if they share only the root."""
    path, folder = path.resolve(), folder.resolve()
    shared = Path(os.path.commonpath([path, folder]))
    return str(path) if shared == shared.parent else Path(os.path.relpath(path, folder)).as_posix()


def check_score(settings: ScoreSettings) -> None:
    """Refuse values that make no sense, before anything is read.

    Raises:
        SettingsError: A number is out of range, or a tag of objectives is unknown.
    """
    check_ranges(settings)
    if not all(math.isfinite(weight) and weight >= 0 for weight in settings.weights) or not any(settings.weights):
        raise SettingsError(
            f"--weights are {settings.weights}.", "Give three numbers from 0 upwards, not all 0, e.g. 0.01 0.01 2."
        )
    for flag, factors in (("objectives", settings.objectives), ("thresholds", settings.thresholds)):
        for tag, factor in factors.items():
            require_known("objective", tag, OBJECTIVES)
            if not (math.isfinite(factor) and factor >= 0):
                raise SettingsError(f"--{flag} {tag} is {factor}.", "A factor must be a number from 0 upwards.")


def _price(
    store: EpisodeStore,
    metas: Sequence[EpisodeMeta],
    specifications: Mapping[str, CostSpecification],
    price_verdict: bool,
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
            trajectory = store.read(meta.episode_id, frames=False)
            # Known and unknown outcomes of one initial state are priced alike, or the unknown would look cheaper.
            with_verdict = price_verdict and _state(meta) not in unknown
            shown = trajectory if with_verdict else with_unknown_outcome(trajectory)
            stages = evaluate(specifications[meta.task], shown) if meta.task in specifications else ()
            priced.append(_Priced(meta, _self_reward(trajectory), stages))
            if priced[-1].r_self is not None:
                sampled.setdefault((trajectory.support, trajectory.logp_temperature), meta.episode_id)
            if len(sampled) > 1:
                raise _mixed(store.path, sampled)
            progress.advance(note=meta.task)
    return priced


def _mixed(where: Path, sampled: Mapping[tuple[str, float], str]) -> CompatibilityError:
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
    settings: ScoreSettings,
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


def _raw_terms(priced: Sequence[_Priced]) -> RawTerms:
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
    )


def _scores(priced: Sequence[_Priced], raw: RawTerms, calibration: Calibration) -> list[Score]:
    by_costs = np.array([[bool(item.stages), bool(item.stages), True] for item in priced])
    rows = np.where(by_costs, weighted_terms(raw, calibration), 0.0).tolist()
    return [
        Score(
            episode_id=item.meta.episode_id,
            task=item.meta.task,
            initial_state=item.meta.initial_state,
            success=item.meta.success,
            steps=item.meta.steps,
            r_self=item.r_self,
            r_ext=external_reward(item.stages),
            cost=cost,
            terms=dict(zip(TERMS, terms, strict=True)),
            gcpg=sum(terms),
            stages=item.stages,
        )
        for item, cost, terms in zip(priced, raw.cost.tolist(), rows, strict=True)
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
