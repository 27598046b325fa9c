"""Validation of a generated specification: parse errors, static findings, trial on episodes, in that order.

A later judge looks only at what the earlier ones let through; its findings are sentences that a model can act on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grape.core.errors import CompatibilityError, DataError
from grape.costs import (
    CostSpecification,
    ValidationCriteria,
    episodes_of_task,
    find_problems,
    parse_specification,
    validate_specification,
)
from grape.generation.answers import document_of
from grape.generation.briefs import TaskBrief, plain_words
from grape.generation.documents import document_text

__all__ = ["Trial", "Verdict", "judge", "trial_on"]


MAX_FINDINGS = 24
MAX_FINDING = 400


@dataclass(frozen=True)
class Trial:
    """Findings of a specification's trial on recorded trajectories.

    Attributes:
        reasons: Why it is rejected; empty where it is accepted.
        warnings: What the recordings could not tell.
        report: The report card, as JSON values.
    """

    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Result of validating an answer.

    Attributes:
        findings: What must be fixed, sentences; empty where the specification is accepted.
        stage: Who found it: ``"answer"``, ``"language"``, ``"checks"``, ``"trial"``, or ``"none"``.
        warnings: What is noted without being an obstacle.
        text: The specification as YAML; empty where the answer holds none.
        specification: It, parsed; None where it cannot be.
        report: The report card of the trial, if there was one.
    """

    findings: tuple[str, ...]
    stage: str
    warnings: tuple[str, ...] = ()
    text: str = ""
    specification: CostSpecification | None = None
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether nothing is left to fix."""
        return not self.findings


def judge(
    answer: str, brief: TaskBrief, truncated: bool = False, trial: Callable[[CostSpecification], Trial] | None = None
) -> Verdict:
    """Validate an answer.

    Args:
        answer: What the model wrote.
        brief: What it was asked.
        truncated: Whether it was cut off.
        trial: Tries a specification on recorded trajectories; None leaves that out.
    """
    try:
        document = document_of(answer, brief, truncated)
    except DataError as error:
        cut = " It was cut off at the most tokens allowed: write a shorter one." if truncated else ""
        return Verdict(_sentences([error.message + cut]), "answer")
    text = document_text(document)
    try:
        specification = parse_specification(text, "specification")
    except DataError as error:
        # The first line only counts the problems; the lines of our YAML mean nothing to the model.
        lines = [line.strip() for line in error.message.splitlines()]
        return Verdict(_sentences([_without_line(line) for line in lines[1:] or lines]), "language", text=text)
    findings = find_problems(specification, brief.keypoints, brief.signals, brief.camera)
    warnings = _sentences([str(finding) for finding in findings if not finding.error])
    errors = [str(finding) for finding in findings if finding.error]
    if errors:
        return Verdict(_sentences(errors), "checks", warnings, text, specification)
    if trial is None:
        return Verdict((), "none", warnings, text, specification)
    tried = trial(specification)
    stage = "trial" if tried.reasons else "none"
    noted = (*warnings, *_sentences(tried.warnings))
    return Verdict(_sentences(tried.reasons), stage, noted, text, specification, tried.report)


def _without_line(line: str) -> str:
    head, comma, rest = line.partition(", ")
    return rest if comma and head.startswith("line ") else line


def _sentences(findings: Sequence[str]) -> tuple[str, ...]:
    """Findings as single lines, each once, at most so many: a model fixes a few dozen at a time."""
    lines = list(dict.fromkeys(plain_words(finding, MAX_FINDING) for finding in findings))
    more = len(lines) - MAX_FINDINGS
    return (*lines[:MAX_FINDINGS], *([f"And {more} more of the kind."] if more > 0 else []))


def trial_on(
    stores: Sequence[Path], task: str, criteria: ValidationCriteria | None = None
) -> Callable[[CostSpecification], Trial]:
    """A judge that tries specifications on a store's episodes of a task.

    Recordings that cannot tell (no failure, say) reject nothing: that is a warning for the user, not a finding that a
    model could fix. Recordings that lack what the specification speaks of (a camera, say) reject it: a model can speak
    of something else.

    Args:
        stores: The episodes.
        task: Which of them, for specifications that name no task.
        criteria: What is asked; None for the usual.
    """

    def trial(specification: CostSpecification) -> Trial:
        episodes = episodes_of_task(stores, specification, task)
        try:
            card = validate_specification(specification, episodes, criteria or ValidationCriteria())
        except (CompatibilityError, DataError) as error:
            return Trial((" ".join([error.message, error.hint]).strip(),))
        if card.verdict == "reject":
            return Trial(card.reasons, report=card.to_dict())
        undecided = tuple(f"Not tried: {reason}" for reason in card.reasons)
        return Trial((), undecided, card.to_dict())

    return trial
