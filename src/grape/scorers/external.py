"""A program of yours as a scorer.

Request: ``{"id": 1, "request": "score", "episode": {...}}``, where the episode has the paths of its images and arrays
(:mod:`grape.scorers.episode_files`). Reply: ``{"id": 1, "value": 0.7}``, with ``"step_values"`` of ``T`` numbers where
the program has them; ``"value": null`` with a ``"problem"`` where it cannot tell.
"""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grape.core.trajectories import Trajectory
from grape.scorers.base import EpisodeScore, Scorer
from grape.scorers.episode_files import EpisodeFiles
from grape.scorers.program import ExternalProgram, program_identity

__all__ = ["ExternalScorer", "finite_number"]


class ExternalScorer(Scorer):
    """Asks a program, which runs in an interpreter of its own.

    Args:
        arguments: Its argument vector.
        timeout: Seconds within which it must start, and answer.
        warn: Hears of every replacement of the program.
    """

    needs_images = True

    def __init__(
        self, arguments: Sequence[str], timeout: float, warn: Callable[[str], None] = lambda message: None
    ) -> None:
        self._program = ExternalProgram(arguments, "scorer", timeout, warn)
        self._folder = tempfile.TemporaryDirectory(prefix="grape-scorer-")
        self._files = EpisodeFiles(Path(self._folder.name))
        try:
            self._about = self._program.hello()
            self.noise = finite_number(self._about.get("noise", 0.0), "noise")
        except BaseException:
            self.close()
            raise
        self.needs_images = self._about.get("needs_images") is not False

    def score(self, trajectory: Trajectory) -> EpisodeScore:
        """The program's value.

        Raises:
            ProgramError: It failed, also after its retries.
        """
        request = {"request": "score", "episode": self._files.describe(trajectory)}
        return self._program.ask(request, lambda reply: _score_of(reply, trajectory))

    def provenance(self) -> Mapping[str, Any]:
        """Argument vector, hashes of the files in it, and what the program says of itself."""
        return {**program_identity(self._program.arguments), "about": dict(self._about)}

    def close(self) -> None:
        """End the program and remove the files made for it."""
        self._program.close()
        self._folder.cleanup()


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
