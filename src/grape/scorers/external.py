"""A program of yours as a scorer.

Request: ``{"id": 1, "request": "score", "episode": {...}}``, where the episode has the paths of its images and arrays
(:mod:`grape.scorers.episode_files`). Reply: ``{"id": 1, "value": 0.7}``, with ``"step_values"`` of ``T`` numbers where
the program has them; ``"value": null`` with a ``"problem"`` where it cannot tell.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grape.core.trajectories import Trajectory
from grape.scorers.base import EpisodeScore, Scorer
from grape.scorers.episode_program import EpisodeProgram

__all__ = ["ExternalScorer", "finite_number"]


class ExternalScorer(EpisodeProgram, Scorer):
    """Asks a program, which runs in an interpreter of its own.

    Args:
        arguments: Its argument vector.
        timeout: Seconds within which it must start, and answer.
        warn: Hears of every replacement of the program.
    """

    def __init__(
        self, arguments: Sequence[str], timeout: float, warn: Callable[[str], None] = lambda message: None
    ) -> None:
        super().__init__(arguments, "scorer", timeout, warn)

    def _read_greeting(self, about: Mapping[str, Any]) -> None:
        super()._read_greeting(about)
        self.noise = finite_number(about.get("noise", 0.0), "noise")

    def score(self, trajectory: Trajectory) -> EpisodeScore:
        """The program's value.

        Raises:
            ProgramError: It failed, also after its retries.
        """
        request = {"request": "score", "episode": self._files.describe(trajectory)}
        return self._program.ask(request, lambda reply: _score_of(reply, trajectory))


def finite_number(value: Any, name: str) -> float:
    """A number of a reply.

    Raises:
        ValueError: It is none, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"answered {name} = {value!r:.60}, which is no finite number")
    return float(value)


def _score_of(reply: Mapping[str, Any], trajectory: Trajectory) -> EpisodeScore:
    name = trajectory.meta.episode_id
    if "value" not in reply:
        raise ValueError(f"answered an object without 'value': {dict(reply)!r:.120}")
    if reply["value"] is None:
        return EpisodeScore(name, None, problem=str(reply.get("problem") or "the program cannot tell")[:200])
    steps = reply.get("step_values") or []
    if not isinstance(steps, list) or len(steps) not in (0, trajectory.steps):
        raise ValueError(f"answered 'step_values' that are no list of {trajectory.steps} numbers")
    numbers = tuple(finite_number(value, "a step value") for value in steps)
    return EpisodeScore(name, finite_number(reply["value"], "value"), numbers)
