"""The verbs that ask whom to believe, for programs: a judge's trial, and how judges, scorers and people agree."""

from pathlib import Path
from typing import Any

from grape.api.resolving import resolved
from grape.api.results import AgreeResult, JudgeTrialResult, absolute
from grape.core.events import LoggingReporter, Reporter
from grape.judges.verb import JudgesValidateSettings, run_judges_validate
from grape.report.agreement_page import AgreeSettings, run_agree

__all__ = ["agree", "validate_judge"]

_LOG = LoggingReporter()


def agree(settings: AgreeSettings | None = None, *, reporter: Reporter = _LOG, **values: Any) -> AgreeResult:
    """Measure how success, scorers, judges and people agree on couples of one state; see :class:`AgreeSettings`.

    Args:
        settings: What to compare.
        reporter: Hears of progress and warnings.
        **values: Fields of the settings by name, e.g. ``run="runs/scores"``.

    Raises:
        SettingsError: A setting is unknown or out of range, or a package is missing.
        DataError: There are no scores or several, or a file is damaged.
        CompatibilityError: The store has changed since it was scored.
    """
    summary = run_agree(resolved(AgreeSettings, settings, values), reporter)
    figures = absolute(summary["figures"])
    return AgreeResult(
        folder=figures.parent,
        summary=summary,
        figures=figures,
        page=absolute(summary["page"]) if "page" in summary else None,
        matrix=tuple(summary["matrix"]),
    )


def validate_judge(
    settings: JudgesValidateSettings | None = None, *, reporter: Reporter = _LOG, **values: Any
) -> JudgeTrialResult:
    """Try a judge on couples whose order is known, before it chooses pairs; see :class:`JudgesValidateSettings`.

    A judge of your own is named after :func:`grape.register_judge` made it known.

    Args:
        settings: Which judge, which episodes, and what it must reach.
        reporter: Hears of progress and warnings.
        **values: Fields of the settings by name, e.g. ``judge="mine"``, ``store="runs/clean"``.

    Raises:
        SettingsError: The judge or the stores are missing or unknown, or a limit is out of range.
        CompatibilityError: The stores hold no couple of known order.
        ProgramError: An external judge does not start, or keeps failing.
        BudgetError: The judge is a model whose budget is spent; its answers are lost.
    """
    if isinstance(values.get("store"), str | Path):
        values["store"] = (values["store"],)
    summary = run_judges_validate(resolved(JudgesValidateSettings, settings, values), reporter)
    return JudgeTrialResult(
        summary=summary,
        accepted=summary["verdict"] == "accept",
        reasons=tuple(summary["reasons"]),
        checks=tuple(summary["checks"]),
    )
