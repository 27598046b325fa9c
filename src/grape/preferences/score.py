"""The verb ``score``: what every recorded episode was worth, without simulator or policy."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grape.core.errors import DataError, SettingsError, require_known
from grape.core.events import SILENT, Reporter
from grape.core.files import write_json, write_jsonl
from grape.core.runs import is_complete, open_run, read_run_settings, recorded_inputs
from grape.core.settings import Range, check_ranges, setting
from grape.costs import OBJECTIVES, specification_hash
from grape.mapping import MappingSettings, open_mapper
from grape.preferences.curves import CURVES_FILE, write_curves
from grape.preferences.gcpg import PUBLISHED_WEIGHTS
from grape.preferences.pricing import PricedShards
from grape.preferences.records import SCORERS_FOLDER, SCORES_FILE, score_to_row, store_reference
from grape.preferences.scoring import score_episodes
from grape.preferences.specifications import check_recorded_names, check_success_counts, choose_specifications
from grape.preferences.thresholds import thresholds_by_hand
from grape.scorers import ScorerChoice, ScorerValues, open_scorer, parse_scorers, score_with
from grape.store import Episodes, open_stores

__all__ = [
    "CALIBRATION_FILE",
    "ScoreSettings",
    "check_score",
    "run_score",
    "score_by",
    "warn_of_old_scores",
]

CALIBRATION_FILE = "calibration.json"
_SHARDS = "priced"
"""Folder of prices while a run is under way."""
_REWARD, _COSTS, _SCORERS = "Reward", "Costs", "Scorers"
_Normalization = Literal["auto", "raw", "step-mean", "state-standardised", "task-standardised"]


@dataclass(frozen=True)
class ScoreSettings(MappingSettings):
    """Score recorded episodes: R_GCPG = lambda_1 R_self + lambda_2 R_ext + lambda_3 I_success (arXiv 2411.19309).

    R_self is the log-probability of what the policy sampled, R_ext = exp(-sum of stage costs), I_success is 0 or 1.
    With --calibrate (the default) scales are chosen from the store so that the terms contribute comparably to the
    ranking within an initial state; --no-calibrate computes the published formula exactly.

    Attributes:
        store: Episode store, the folder that grape collect wrote, or a data set of the hub as hf://NAMESPACE/NAME; or
            several, e.g. shards of one collection, which are scored as one.
        out: Folder to write: scores.jsonl (one episode a line, with every stage and constraint), curves.parquet (the
            constraints over time, for the report) and calibration.json.
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
        scorer: Scorers whose values are stored beside the score, one file each in the folder scorers: registered names
            (costs, success, costs:FILE, those of installed packages), learned rewards in their own interpreter
            (robometer:PYTHON, topreward:PYTHON, sarm:PYTHON), or command lines of programs that read and write JSON
            lines. LABEL=... names one, e.g. progress='python progress.py --size 256'.
        external_reward: Label of one of them whose value is R_ext, in place of that of the costs; it is taken as it is,
            calibration chooses its weight.
        program_timeout: Seconds (above 0) within which an external program must start, and answer each request. One
            that does not is started again; after three attempts the episode has no value.
    """

    store: Path | tuple[Path, ...] = setting(identity=False, common=True)
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
    scorer: tuple[str, ...] = setting((), group=_SCORERS, identity="unless default", common=True)
    external_reward: str = setting("", group=_SCORERS, identity="unless default")
    program_timeout: float = setting(600.0, group=_SCORERS, range=Range(0, open_low=True), identity=False)

    @property
    def stores(self) -> tuple[Path, ...]:
        """The stores, be it one or several."""
        return (self.store,) if isinstance(self.store, Path) else self.store


def run_score(settings: ScoreSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Score all episodes of a store, or of several as if they were one.

    Returns:
        Summary: number of episodes and successes, means of the unweighted terms, how each term goes with success, how
        many initial states can give pairs, the calibration, hashes of the specifications, warnings; see
        :func:`grape.preferences.summaries.summarize_scores`. With ``scorer`` also ``scorers``: what each gave.

    Raises:
        SettingsError: A setting is out of range, or success is to count for nothing where nothing else can.
        DataError: The store is missing, empty or damaged, or a specification speaks of what it did not record.
        ProgramError: An external scorer does not start, or keeps failing.
        CompatibilityError: Specification and store do not fit, or ``out`` belongs to another run.
    """
    choices = check_score(settings)
    store = open_stores(settings.stores)
    metas = store.metas()
    if not metas:
        raise DataError(f"Episode store {store.place} holds no episodes.", "Run 'grape collect' first.")
    tasks = tuple(sorted({meta.task for meta in metas}))
    unadjusted = choose_specifications(store.suite, tasks, settings.costs)
    if not settings.external_reward:
        check_success_counts(settings.weights, [task for task in tasks if task not in unadjusted])
    check_recorded_names(store, metas, unadjusted)
    by_hand = thresholds_by_hand(unadjusted, settings.threshold_values)
    today = {task: specification_hash(specification) for task, specification in unadjusted.items()}
    hashes = (_hashes_of_finished_run(settings.out) if settings.costs is None else {}) or today
    inputs: dict[str, Any] = {"episodes": store.digest(), "specifications": hashes}
    if len(store.parts) > 1:
        inputs["stores"] = sorted(part.digest() for part in store.parts)
    if choices:
        inputs["scorers"] = {choice.label: choice.identity() for choice in choices}
    run = open_run(settings.out, "score", settings, inputs)
    if run.done is not None:
        shutil.rmtree(settings.out / _SHARDS, ignore_errors=True)  # of a run that was killed right at its end
        if not warn_of_old_scores(settings.out, run.done, reporter) and hashes != today:
            changed = ", ".join(task for task in tasks if hashes.get(task) != today.get(task)) or "other tasks"
            reporter.warn(
                f"The scores in {settings.out} were made with built-in costs of an earlier release, which were others "
                f"for {changed}. Score the episodes again into another folder for those of today."
            )
        return run.done
    values = score_by(choices, settings, store, reporter, settings.out / SCORERS_FOLDER)
    external = values.get(settings.external_reward)
    shards = settings.out / _SHARDS
    with open_mapper(settings, reporter) as mapper:
        scored = score_episodes(
            settings, store, unadjusted, by_hand, hashes, store.place, reporter, external, shards, mapper, metas
        )
    if isinstance(scored.priced, PricedShards):
        write_curves(settings.out / CURVES_FILE, scored.priced.curves())
    write_jsonl(settings.out / SCORES_FILE, map(score_to_row, scored.scores))
    write_json(settings.out / CALIBRATION_FILE, scored.calibration)
    summary = scored.summary(**store_reference(store, settings.out))
    if values:
        summary["scorers"] = {label: item.summary() for label, item in values.items()}
    run.finish(summary)
    shutil.rmtree(shards, ignore_errors=True)
    return summary


def score_by(
    choices: Sequence[ScorerChoice],
    settings: ScoreSettings,
    episodes: Episodes,
    reporter: Reporter,
    folder: Path | None = None,
) -> dict[str, ScorerValues]:
    """Values of all episodes under each scorer, by its label.

    Args:
        choices: The scorers.
        settings: How long a program may take.
        episodes: What to score.
        reporter: Hears of progress and warnings.
        folder: Where values are kept; None keeps them in memory.

    Raises:
        ProgramError: A program does not start, or keeps failing.
    """
    values = {}
    for choice in choices:
        scorer = open_scorer(choice, settings.program_timeout, reporter.warn)
        try:
            values[choice.label] = score_with(scorer, choice.label, episodes, reporter, folder)
        finally:
            scorer.close()
    return values


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


def check_score(settings: ScoreSettings) -> tuple[ScorerChoice, ...]:
    """Refuse values that make no sense, before anything is read; returns the scorers.

    Raises:
        SettingsError: A number is out of range, or a tag of objectives or a scorer is unknown.
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
    choices = parse_scorers(settings.scorer)
    if settings.external_reward:
        require_known("scorer as --external-reward", settings.external_reward, [choice.label for choice in choices])
    return choices
