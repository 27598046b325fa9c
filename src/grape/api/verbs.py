"""The verbs for programs: settings in, or their fields by name; typed results out.

Each function is the verb of the same name, resumes as it does, and raises the same errors. Paths may be texts. Messages
and warnings are log records of the logger ``grape`` unless a reporter is given.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grape.api.resolving import LOG, named_policy, place_of, publishing_verb, resolved
from grape.api.results import (
    CollectResult,
    CompareResult,
    EvaluateResult,
    LoopResult,
    MergeResult,
    PairResult,
    ReportResult,
    ScoreResult,
    absolute,
    picked,
)
from grape.collect import CollectSettings, MergeSettings, check_opened, run_collect, run_merge
from grape.core.errors import GrapeError
from grape.core.events import Reporter
from grape.core.repositories import is_address
from grape.evaluation import CompareSettings, EvaluateSettings, run_compare, run_evaluate
from grape.loop import LoopSettings, run_loop
from grape.policies import Policy, TrainablePolicy, registry
from grape.policies.opening import PolicySettings, opening_options
from grape.preferences import (
    PairSettings,
    ScoreSettings,
    recorded_stores,
    run_pair,
    run_score,
)
from grape.report import ReportSettings, run_report
from grape.store import EpisodeStore, open_stores

__all__ = [
    "collect",
    "compare",
    "evaluate",
    "load_policy",
    "loop",
    "merge",
    "pair",
    "report",
    "score",
]


def load_policy(
    policy: Path | str, settings: PolicySettings | None = None, *, trainable: bool = False, **values: Any
) -> Policy:
    """Open a policy of any type with its weights.

    Args:
        policy: A checkpoint folder, a name on the Hugging Face hub, or ``TYPE:PLACE``.
        settings: How; see :class:`PolicySettings`.
        trainable: Whether a program of your own will change the weights. Otherwise they are frozen, and hashed once.
        **values: Fields of the settings by name, e.g. ``device="cpu"``, ``unnorm_key="bridge_orig"``.

    Raises:
        SettingsError: There is no such policy, no type knows it, or a setting does not fit it.
        DataError: A file is missing or damaged.
    """
    opened = registry.open_policy(policy, opening_options(resolved(PolicySettings, settings, values)))
    if isinstance(opened, TrainablePolicy) and not trainable:
        opened.freeze()
    return opened


@publishing_verb
def collect(
    settings: CollectSettings | None = None,
    *,
    policy: Policy | Path | str | None = None,
    reporter: Reporter = LOG,
    **values: Any,
) -> CollectResult:
    """Roll a policy or a scripted expert out in a simulator and record every decision; see :class:`CollectSettings`.

    Args:
        settings: What to collect.
        policy: In place of that of the settings: a checkpoint, ``"expert"``, or an open policy of your own.
        reporter: Hears of progress and warnings.
        **values: Fields of the settings by name, over ``settings``.

    Raises:
        SettingsError: A setting is unknown or out of range, or names nothing.
        CompatibilityError: The policy does not fit the suite, or the folder belongs to another run.
        SimulatorError: Episodes failed twice; what was finished is kept.
    """
    opened = named_policy(policy, values)
    chosen = resolved(CollectSettings, settings, values)
    if opened is not None:
        check_opened(chosen, opened)
    summary = run_collect(chosen, reporter, policy=opened)
    return CollectResult(
        folder=absolute(chosen.out),
        summary=summary,
        store=EpisodeStore.open(absolute(chosen.out)),
        **picked(summary, "episodes", "successes", "success_rate"),
    )


@publishing_verb
def merge(
    stores: Iterable[CollectResult | EpisodeStore | Path | str] | None = None,
    settings: MergeSettings | None = None,
    *,
    reporter: Reporter = LOG,
    **values: Any,
) -> MergeResult:
    """Join stores: shards of one collection, or collections that were played alike; see :class:`MergeSettings`.

    Args:
        stores: In place of those of the settings: what :func:`collect` returned, open stores, or paths.
        settings: Where to, and how.
        reporter: Hears of progress and warnings.
        **values: Fields of the settings by name, over ``settings``.

    Raises:
        SettingsError: A setting is unknown, or a store is given twice.
        CompatibilityError: The stores do not fit together, or the folder belongs to another run.
        DataError: A store is damaged, or something is missing.
    """
    if stores is not None:
        values["stores"] = tuple(map(place_of, stores))
    chosen = resolved(MergeSettings, settings, values)
    summary = run_merge(chosen, reporter)
    return MergeResult(
        folder=absolute(chosen.out),
        summary=summary,
        store=EpisodeStore.open(absolute(chosen.out)),
        missing=summary["merged"]["missing"],
        **picked(summary, "episodes", "successes", "success_rate"),
    )


@publishing_verb
def score(settings: ScoreSettings | None = None, *, reporter: Reporter = LOG, **values: Any) -> ScoreResult:
    """Score the episodes of a store by R_GCPG; see :class:`ScoreSettings`, and :func:`grape.score_trajectories`.

    Raises:
        SettingsError: A setting is unknown or out of range.
        DataError: The store is missing, empty or damaged.
        CompatibilityError: Specification and store do not fit, or the folder belongs to another run.
    """
    chosen = resolved(ScoreSettings, settings, values)
    summary = run_score(chosen, reporter)
    return ScoreResult(
        folder=absolute(chosen.out),
        summary=summary,
        store=open_stores([absolute(path) for path in chosen.stores]),
        warnings=tuple(summary.get("warnings", ())),
        **picked(summary, "episodes", "success_rate"),
    )


@publishing_verb
def pair(settings: PairSettings | None = None, *, reporter: Reporter = LOG, **values: Any) -> PairResult:
    """Make preference pairs of scores; see :class:`PairSettings`, and :func:`grape.make_pairs`.

    Raises:
        SettingsError: A setting is unknown or out of range.
        DataError: The scores are missing or damaged.
        NoPairsError: No pair can be made.
    """
    chosen = resolved(PairSettings, settings, values)
    summary = run_pair(chosen, reporter)
    return PairResult(
        folder=absolute(chosen.out),
        summary=summary,
        store=open_stores(recorded_stores(chosen.out)),
        count=summary["pairs"],
        mean_margin=summary["mean_margin"],
    )


@publishing_verb
def evaluate(
    settings: EvaluateSettings | None = None,
    *,
    policy: Policy | Path | str | None = None,
    reporter: Reporter = LOG,
    **values: Any,
) -> EvaluateResult:
    """Measure a policy on fixed initial states; see :class:`EvaluateSettings`.

    Args:
        settings: What to measure and how.
        policy: In place of that of the settings: a checkpoint, ``"expert"``, or an open policy of your own. What an
            open one learned from is not known, so that no initial states are warned of.
        reporter: Hears of progress and warnings.
        **values: Fields of the settings by name, over ``settings``.

    Raises:
        SettingsError: A setting is unknown or out of range, or names nothing.
        CompatibilityError: The policy does not fit the suite, or the folder belongs to another run or policy.
        SimulatorError: Episodes failed twice; what was finished is kept.
    """
    opened = named_policy(policy, values)
    summary = run_evaluate(resolved(EvaluateSettings, settings, values), reporter, opened=opened)
    results = absolute(summary["results"])
    return EvaluateResult(
        folder=results.parent,
        summary=summary,
        results=results,
        interval=tuple(summary["interval"]),
        **picked(summary, "success_rate", "episodes", "successes"),
    )


@publishing_verb
def compare(
    a: EvaluateResult | Path | str | None = None,
    b: EvaluateResult | Path | str | None = None,
    settings: CompareSettings | None = None,
    *,
    reporter: Reporter = LOG,
    **values: Any,
) -> CompareResult:
    """Say whether policy B is better or worse than policy A, or whether the episodes cannot tell.

    Args:
        a: Evaluation of policy A: what :func:`evaluate` returned, its folder, or its results.json.
        b: Evaluation of policy B.
        settings: See :class:`CompareSettings`.
        reporter: Hears of warnings.
        **values: Fields of the settings by name, over ``settings``.

    Raises:
        SettingsError: A setting is unknown or out of range.
        CompatibilityError: The evaluations do not compare.
        DataError: An evaluation is missing or incomplete, or the two share no initial state.
    """
    for name, given in (("a", a), ("b", b)):
        if given is not None:
            values[name] = given.folder if isinstance(given, EvaluateResult) else given
    chosen = resolved(CompareSettings, settings, values)
    summary = run_compare(chosen, reporter)
    return CompareResult(
        folder=None if chosen.out is None else absolute(chosen.out),
        summary=summary,
        interval=tuple(summary["interval"]),
        **picked(summary, "verdict", "sentence", "difference", "p_value"),
    )


@publishing_verb
def loop(settings: LoopSettings | None = None, *, reporter: Reporter = LOG, **values: Any) -> LoopResult:
    """Iterate collect, score, pair, train and evaluate; see :class:`LoopSettings`.

    Settings of a verb are given as a mapping of what differs from the defaults, e.g. ``train={"beta": 0.05}``.

    Raises:
        GrapeError: A stage failed; what was finished is kept.
    """
    chosen = resolved(LoopSettings, settings, values)
    summary = run_loop(chosen, reporter)
    if not summary:
        raise GrapeError("The loop is not complete.", "Its main process tells why; start the job again to go on.")
    page, policy = summary.get("report"), summary["policy"]
    return LoopResult(
        folder=absolute(chosen.out),
        summary=summary,
        policy=absolute(policy if is_address(policy) else chosen.out / policy),
        report=None if page is None else absolute(page),
        policies=tuple(summary["policies"]),
        comparison=summary["comparison"],
    )


@publishing_verb
def report(settings: ReportSettings | None = None, *, reporter: Reporter = LOG, **values: Any) -> ReportResult:
    """Write the page of a run; see :class:`ReportSettings`.

    Raises:
        SettingsError: A setting is unknown or out of range, or a package is missing.
        DataError: The folder holds nothing to show.
    """
    chosen = resolved(ReportSettings, settings, values)
    summary = run_report(chosen, reporter)
    return ReportResult(
        folder=absolute(chosen.run),
        summary=summary,
        report=absolute(summary["report"]),
        missing=tuple(summary["missing"]),
    )
