"""A program of yours as a judge.

Request: ``{"id": 1, "request": "judge", "a": {...}, "b": {...}}``, both episodes described as for scorers
(:mod:`grape.scorers.episode_files`). Reply: ``{"id": 1, "p": 0.8}``, the probability that ``a`` is better with ties
counting half, with a ``"reason"`` where the program has one; ``"p": null`` with a ``"problem"`` where it cannot tell.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grape.core.trajectories import Trajectory
from grape.judges.base import Judge, Judgment
from grape.scorers.episode_program import EpisodeProgram
from grape.scorers.external import finite_number

__all__ = ["ExternalJudge"]

_LONGEST_REASON = 300


class ExternalJudge(EpisodeProgram, Judge):
    """Asks a program, which runs in an interpreter of its own.

    Args:
        arguments: Its argument vector.
        timeout: Seconds within which it must start, and answer.
        warn: Hears of every replacement of the program.
    """

    def __init__(
        self, arguments: Sequence[str], timeout: float, warn: Callable[[str], None] = lambda message: None
    ) -> None:
        super().__init__(arguments, "judge", timeout, warn)

    def judge(self, a: Trajectory, b: Trajectory) -> Judgment:
        """The program's judgment.

        Raises:
            ProgramError: It failed, also after its retries.
        """
        request = {"request": "judge", "a": self._files.describe(a), "b": self._files.describe(b)}
        return self._program.ask(request, lambda reply: _judgment_of(reply, a.meta.episode_id, b.meta.episode_id))


def _judgment_of(reply: Mapping[str, Any], a: str, b: str) -> Judgment:
    if "p" not in reply:
        raise ValueError(f"answered an object without 'p': {dict(reply)!r:.120}")
    if reply["p"] is None:
        return Judgment(a, b, None, problem=str(reply.get("problem") or "the program cannot tell")[:_LONGEST_REASON])
    p = finite_number(reply["p"], "p")
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"answered p = {p:g}, which is no probability")
    reason = " ".join(str(reply.get("reason") or "").split())
    return Judgment(a, b, p, reason[:_LONGEST_REASON])
