"""Values of all episodes under one scorer: computed one by one, kept at once, read back strictly."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grape.core.errors import DataError, ProgramError
from grape.core.events import Reporter, append_line
from grape.core.files import read_jsonl, write_jsonl
from grape.core.reading import decode, encode, parse_json, read_file
from grape.scorers.base import EpisodeScore, Scorer
from grape.scorers.program import ProgramRefusalError
from grape.store import Episodes

__all__ = ["ScorerValues", "check_score", "load_values", "score_with"]

_FIX = "Do not edit the file; delete its folder and run 'grape score' again."
_FAILURES_IN_A_ROW = 3
"""Episodes in a row at which a program fails before it is given up."""


@dataclass(frozen=True)
class ScorerValues:
    """One scorer's values.

    Attributes:
        label: What the scorer is called.
        scores: One an episode, in the order of the episodes.
        noise: Differences up to this one say nothing.
        provenance: Where the values come from; JSON values.
    """

    label: str
    scores: tuple[EpisodeScore, ...]
    noise: float
    provenance: Mapping[str, Any]

    def by_episode(self) -> dict[str, float | None]:
        """Values by episode id."""
        return {score.episode_id: score.value for score in self.scores}

    def summary(self) -> dict[str, Any]:
        """JSON value for a run's summary: number, mean and range of the values, and what is missing."""
        values = [score.value for score in self.scores if score.value is not None]
        missing = [score for score in self.scores if score.value is None]
        return {
            "values": len(values),
            "mean": float(np.mean(values)) if values else None,
            "range": [min(values), max(values)] if values else None,
            "missing": {score.episode_id: score.problem for score in missing},
            "by_step": sum(bool(score.step_values) for score in self.scores),
            "noise": self.noise,
            "provenance": dict(self.provenance),
        }


def score_with(
    scorer: Scorer, label: str, episodes: Episodes, reporter: Reporter, folder: Path | None = None
) -> ScorerValues:
    """Score all episodes.

    Args:
        scorer: The scorer; it is not closed.
        label: What it is called.
        episodes: What to score.
        reporter: Hears of progress, and of episodes without a value.
        folder: Where values are kept as they come, so that a run that was killed goes on, and stand at the end as
            ``LABEL.jsonl``; None keeps them in memory.

    Raises:
        ProgramError: An external scorer fails at several episodes in a row, or refuses to work.
        DataError: A value is not finite.
    """
    names = [meta.episode_id for meta in episodes.metas()]
    log = None if folder is None else folder / f"{label}.partial"
    known = {} if log is None else dict(_logged(log))
    failures = 0
    with reporter.progress(f"scoring by {label}", len(names), sum(name in known for name in names)) as progress:
        for name in names:
            if name in known:
                continue
            trajectory = episodes.read(name, frames=scorer.needs_images)
            try:
                score, failures = scorer.score(trajectory), 0
            except ProgramRefusalError:
                raise
            except ProgramError as error:
                failures += 1
                if failures == _FAILURES_IN_A_ROW:
                    raise
                score = EpisodeScore(name, None, problem=error.message[:400])
            check_score(score, name, label)
            known[name] = score
            # What a program failed at is tried again by the next run.
            if log is not None and not failures:
                log.parent.mkdir(parents=True, exist_ok=True)
                append_line(log, json.dumps(_row(score), sort_keys=True, allow_nan=False))
            progress.advance()
    scores = tuple(known[name] for name in names)
    missing = [score for score in scores if score.value is None]
    if missing:
        reporter.warn(
            f"Scorer '{label}' gave no value for {len(missing)} of {len(scores)} episodes, first "
            f"{missing[0].episode_id}: {missing[0].problem}."
        )
    if folder is not None and log is not None:
        write_jsonl(folder / f"{label}.jsonl", map(_row, scores))
        log.unlink(missing_ok=True)
    return ScorerValues(label, scores, scorer.noise, dict(scorer.provenance()))


def load_values(path: Path, label: str, summary: Mapping[str, Any], within: Path | None = None) -> ScorerValues:
    """Read the values of one scorer.

    Args:
        path: The file that :func:`score_with` wrote.
        label: What the scorer is called.
        summary: Its part of the run's summary.
        within: Folder in which the file must lie; by default the one that its path names.

    Raises:
        DataError: The file is missing, or a line is no value or repeats an episode; file and line are named.
    """
    scores: dict[str, EpisodeScore] = {}
    for number, row in enumerate(read_jsonl(path, hint=_FIX, within=within or path.parent), start=1):
        score = decode(EpisodeScore, row, f"{path}, line {number}", _FIX)
        if score.episode_id in scores:
            raise DataError(f"{path}, line {number}: episode {score.episode_id} has a value already.", _FIX)
        scores[score.episode_id] = score
    noise, provenance = summary.get("noise", 0.0), summary.get("provenance", {})
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not isinstance(provenance, Mapping):
        raise DataError(f"{path}: the summary says nothing usable about scorer '{label}'.", _FIX)
    return ScorerValues(label, tuple(scores.values()), float(noise), provenance)


def _row(score: EpisodeScore) -> dict[str, Any]:
    """JSON value; fields that say nothing are left out."""
    row: dict[str, Any] = encode(score)
    return {name: value for name, value in row.items() if name in ("episode_id", "value") or value}


def _logged(log: Path) -> Iterator[tuple[str, EpisodeScore]]:
    """Values that an earlier run kept; its last line may be truncated."""
    if not log.is_file():
        return
    for line in read_file(log, max_bytes=2**30, within=log.parent).split(b"\n"):
        with contextlib.suppress(DataError):
            score = decode(EpisodeScore, parse_json(line, str(log)), str(log))
            yield score.episode_id, score


def check_score(score: EpisodeScore, name: str, label: str) -> None:
    """Refuse what is no score of an episode.

    Args:
        score: What the scorer said.
        name: Of which episode.
        label: What the scorer is called.

    Raises:
        DataError: It is of another episode, or a value is not finite.
    """
    if score.episode_id != name or not all(
        math.isfinite(value) for value in (0.0 if score.value is None else score.value, *score.step_values)
    ):
        raise DataError(
            f"Scorer '{label}' gave episode {name} the value {score.value!r:.40}.",
            "A value is a finite number, or None with a problem.",
        )
