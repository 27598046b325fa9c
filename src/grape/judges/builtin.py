"""The judges that GRAPE brings: ranking by a score, success alone, and chance."""

from collections.abc import Callable, Mapping
from typing import Any

from grape.core.seeds import derive_rng
from grape.core.trajectories import Trajectory
from grape.judges.base import Judge, Judgment
from grape.scorers import Scorer, check_score

__all__ = ["Difference", "RandomJudge", "RankingJudge", "ScorerJudge", "SuccessJudge"]

Difference = Callable[[str, str], float | None]
"""By how much the first episode is better than the second; 0 within noise, None where one has no value."""


def _judgment(a: str, b: str, lead: float | None, problem: str) -> Judgment:
    """Certain of the sign of a lead."""
    if lead is None:
        return Judgment(a, b, None, problem=problem)
    return Judgment(a, b, 0.5 if lead == 0 else float(lead > 0))


class RankingJudge(Judge):
    """Prefers the higher of two recorded values.

    Args:
        difference: By how much one episode's value exceeds another's.
        label: What the values are called.
    """

    def __init__(self, difference: Difference, label: str) -> None:
        self._difference, self._label = difference, label

    def judge(self, a: Trajectory, b: Trajectory) -> Judgment:
        """Compare the recorded values."""
        first, second = a.meta.episode_id, b.meta.episode_id
        return _judgment(
            first, second, self._difference(first, second), f"'{self._label}' has no value for one of them"
        )

    def provenance(self) -> Mapping[str, Any]:
        """Which values rank."""
        return {"ranking": self._label}


class ScorerJudge(Judge):
    """Prefers the higher of two values that a scorer gives when the judge is asked; differences within noise are ties.

    Args:
        scorer: The scorer; closed with the judge.
        label: What it is called.
    """

    def __init__(self, scorer: Scorer, label: str = "scorer") -> None:
        self._scorer, self._label = scorer, label
        self._values: dict[str, float | None] = {}
        self.needs_images = scorer.needs_images

    def judge(self, a: Trajectory, b: Trajectory) -> Judgment:
        """Score both, each once, and compare."""
        one, other = self._value(a), self._value(b)
        lead = None if one is None or other is None else one - other
        if lead is not None and abs(lead) <= self._scorer.noise:
            lead = 0.0
        return _judgment(a.meta.episode_id, b.meta.episode_id, lead, "the scorer has no value for one of them")

    def forget(self) -> None:
        """Ask the scorer anew about episodes that it has scored."""
        self._values.clear()

    def provenance(self) -> Mapping[str, Any]:
        """That of the scorer."""
        return {"scorer": dict(self._scorer.provenance())}

    def close(self) -> None:
        """Close the scorer."""
        self._scorer.close()

    def _value(self, trajectory: Trajectory) -> float | None:
        name = trajectory.meta.episode_id
        if name not in self._values:
            score = self._scorer.score(trajectory)
            # NaN is neither larger nor smaller: both orders would say that the second one is better.
            check_score(score, name, self._label)
            self._values[name] = score.value
        return self._values[name]


class SuccessJudge(Judge):
    """Prefers a success to a failure; equal outcomes are a tie."""

    def judge(self, a: Trajectory, b: Trajectory) -> Judgment:
        """Compare the recorded outcomes."""
        one, other = a.meta.success, b.meta.success
        lead = None if one is None or other is None else float(one) - float(other)
        return _judgment(a.meta.episode_id, b.meta.episode_id, lead, "an outcome is unknown")


class RandomJudge(Judge):
    """Prefers one of the two by chance, the same one whichever is shown first: a control.

    Args:
        seed: Of the chance.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def judge(self, a: Trajectory, b: Trajectory) -> Judgment:
        """Draw; no tie."""
        names = sorted((a.meta.episode_id, b.meta.episode_id))
        better = names[int(derive_rng(self._seed, "judge", "random", *names).integers(2))]
        return Judgment(a.meta.episode_id, b.meta.episode_id, float(better == a.meta.episode_id))

    def provenance(self) -> Mapping[str, Any]:
        """The seed."""
        return {"seed": self._seed}
