"""What the verbs return to a program: frozen dataclasses with absolute paths."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from grape.core.repositories import is_address
from grape.preferences import PreferencePairs, ScoredTrajectories, read_pairs, read_scores, with_curves
from grape.store import EpisodeStore

__all__ = [
    "AgreeResult",
    "CollectResult",
    "CompareResult",
    "EvaluateResult",
    "JudgeTrialResult",
    "LoopResult",
    "MergeResult",
    "PairResult",
    "ReportResult",
    "Result",
    "ScoreResult",
    "SftResult",
    "TrainResult",
    "absolute",
    "picked",
    "trained",
]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What every verb returns.

    Attributes:
        folder: The run's folder.
        summary: All that the command line prints with ``--json``, as JSON values.
    """

    folder: Path
    summary: Mapping[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The summary as a plain dictionary."""
        return dict(self.summary)


@dataclass(frozen=True, kw_only=True)
class CollectResult(Result):
    """Episodes that were collected.

    Attributes:
        store: The episodes.
        episodes: How many.
        successes: How many succeeded.
        success_rate: Their share.
    """

    store: EpisodeStore
    episodes: int
    successes: int
    success_rate: float


@dataclass(frozen=True, kw_only=True)
class MergeResult(CollectResult):
    """Stores joined to one.

    Attributes:
        missing: Episodes that the stores lack, as far as it is known; the result is unfinished then.
    """

    missing: int


@dataclass(frozen=True, kw_only=True)
class ScoreResult(Result):
    """Scores of a store.

    Attributes:
        store: The episodes that were scored.
        episodes: How many.
        success_rate: Share of successes among the known outcomes; None without any.
        warnings: What a reader of the scores must know.
    """

    store: EpisodeStore
    episodes: int
    success_rate: float | None
    warnings: tuple[str, ...]

    @cached_property
    def scored(self) -> ScoredTrajectories:
        """The scores, read from the folder: for tables, and for :func:`grape.make_pairs`."""
        scores = with_curves(self.folder, read_scores(self.folder).values())
        return ScoredTrajectories(scores, self.store, self.summary)


@dataclass(frozen=True, kw_only=True)
class PairResult(Result):
    """Preference pairs of scores.

    Attributes:
        store: The episodes that the pairs compare.
        count: How many pairs.
        mean_margin: Mean difference of R_GCPG, or of the stage's cost.
    """

    store: EpisodeStore
    count: int
    mean_margin: float

    @cached_property
    def pairs(self) -> PreferencePairs:
        """The pairs, read from the folder."""
        return PreferencePairs(read_pairs(self.folder), self.store, self.summary)


@dataclass(frozen=True, kw_only=True)
class SftResult(Result):
    """A policy trained on demonstrations.

    Attributes:
        policy: The policy's folder, for :func:`grape.load_policy` and as ``policy`` of every verb.
        policy_hash: Hash of its weights and configuration.
        updates: Optimizer steps.
        metrics: Metrics of the last one.
    """

    policy: Path
    policy_hash: str
    updates: int
    metrics: Mapping[str, float] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TrainResult(SftResult):
    """A policy aligned with preferences.

    Attributes:
        alarm: A warning of likelihood displacement; empty without one.
    """

    alarm: str


@dataclass(frozen=True, kw_only=True)
class EvaluateResult(Result):
    """Success of a policy on fixed initial states.

    Attributes:
        results: The file that :func:`grape.compare` reads.
        success_rate: Over all episodes.
        interval: Its 95 % interval.
        episodes: How many.
        successes: How many succeeded.
    """

    results: Path
    success_rate: float
    interval: tuple[float, float]
    episodes: int
    successes: int


@dataclass(frozen=True, kw_only=True)
class CompareResult(Result):
    """Whether policy B is better or worse than policy A.

    Attributes:
        folder: Where ``comparison.json`` was written; None where no ``out`` was given.
        verdict: ``"better"``, ``"worse"`` or ``"not distinguishable"``: B as against A.
        sentence: The verdict in words, how it was reached, and how many episodes would tell.
        difference: Success rate of B minus that of A.
        interval: Its interval.
        p_value: Of the two-sided test.
    """

    folder: Path | None  # type: ignore[assignment]
    verdict: str
    sentence: str
    difference: float
    interval: tuple[float, float]
    p_value: float


@dataclass(frozen=True, kw_only=True)
class LoopResult(Result):
    """The best policy of a loop.

    Attributes:
        policy: Its folder.
        report: The page; None where none was asked for.
        policies: Each policy with its validation success and whether the gate let it pass.
        comparison: The first policy against the best one on the test states, as :func:`grape.compare` says it.
    """

    policy: Path
    report: Path | None
    policies: tuple[Mapping[str, Any], ...] = field(repr=False)
    comparison: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ReportResult(Result):
    """A report.

    Attributes:
        report: The page.
        missing: What could not be shown, one sentence each.
    """

    report: Path
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AgreeResult(Result):
    """How success, scorers, judges and people agree.

    Attributes:
        figures: The file ``agreement.json``.
        page: The page; None where none was asked for.
        matrix: For each two sources the share of the couples that ``reference`` orders on which ``source`` agrees, with
            its 95 % ``interval`` and the number of ``couples``.
    """

    figures: Path
    page: Path | None
    matrix: tuple[Mapping[str, Any], ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class JudgeTrialResult(Result):
    """A judge's trial.

    Attributes:
        folder: None: a trial writes nothing.
        accepted: Whether all that is needed was reached.
        reasons: What was not, one sentence each.
        checks: Every check with its value, limit and sentence.
    """

    folder: None = None  # type: ignore[assignment]
    accepted: bool
    reasons: tuple[str, ...]
    checks: tuple[Mapping[str, Any], ...] = field(repr=False)


def absolute(path: Path | str) -> Path:
    """A path from the root, without resolving links; an address stays."""
    return Path(path) if is_address(path) else Path(os.path.abspath(path))


def picked(summary: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Values of a summary that stand in a result under their own names."""
    return {name: summary[name] for name in names}


def trained(out: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What every result of a training holds."""
    return {
        "folder": absolute(out),
        "summary": summary,
        "policy": absolute(out / "policy"),
        **picked(summary, "policy_hash", "updates", "metrics"),
    }
