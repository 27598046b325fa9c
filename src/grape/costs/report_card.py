"""What a trial of a specification, or of a judge, found: checks with their values and limits, and one verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["ReportCard", "TrialCheck", "card_text"]

Verdict = Literal["accept", "reject", "undecided"]

NEEDED = ("finite", "falls", "trend", "ranks")
"""Checks without which a specification is not accepted; where they cannot be made, nothing is decided."""

_MARKS = {True: "ok", False: "FAILED", None: "-"}


@dataclass(frozen=True)
class TrialCheck:
    """One thing that was asked of a specification or judge on recorded trajectories.

    Attributes:
        code: Stable name, e.g. ``"ranks"``.
        passed: Whether it is as it should be; None where the recordings cannot tell.
        value: What was measured; None where it cannot be known.
        limit: What the value must reach (or must not exceed), as the criteria say.
        sentence: What was found, in one sentence for people and for models that fix specifications.
        facts: More numbers; JSON values.
    """

    code: str
    passed: bool | None
    value: float | None
    limit: float
    sentence: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON value."""
        return {
            "code": self.code,
            "passed": self.passed,
            "value": self.value,
            "limit": self.limit,
            "sentence": self.sentence,
            "facts": dict(self.facts),
        }


@dataclass(frozen=True)
class ReportCard:
    """The outcome of a specification's or judge's trial.

    Attributes:
        source: Which specification or judge.
        hash: Its hash.
        episodes: Number of trajectories.
        successes: How many of them solved the task.
        states: Number of initial states.
        checks: In a fixed order.
        needed: Codes of the checks without which nothing is accepted.
    """

    source: str
    hash: str
    episodes: int
    successes: int
    states: int
    checks: tuple[TrialCheck, ...]
    needed: tuple[str, ...] = NEEDED

    @property
    def verdict(self) -> Verdict:
        """``"reject"`` if a check failed; ``"undecided"`` if the recordings hold no success or no failure."""
        if any(check.passed is False for check in self.checks):
            return "reject"
        known = {check.code for check in self.checks if check.passed}
        return "accept" if known.issuperset(self.needed) else "undecided"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not accepted: sentences of the checks that failed, or that could not be made and are needed."""
        if self.verdict == "reject":
            return tuple(check.sentence for check in self.checks if check.passed is False)
        return tuple(check.sentence for check in self.checks if check.code in self.needed and not check.passed)

    def to_dict(self) -> dict[str, Any]:
        """JSON value."""
        return {
            "source": self.source,
            "hash": self.hash,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "episodes": self.episodes,
            "successes": self.successes,
            "states": self.states,
            "checks": [check.to_dict() for check in self.checks],
        }


def card_text(card: ReportCard) -> str:
    """The card, one check a line."""
    lines = [
        f"{card.source}: {card.verdict.upper()}",
        f"tried on {card.episodes} episodes ({card.successes} solved) from {card.states} initial states",
    ]
    width = max(len(check.code) for check in card.checks)
    lines += [f"  {_MARKS[check.passed]:<7}{check.code:<{width}}  {check.sentence}" for check in card.checks]
    return "\n".join(lines)
