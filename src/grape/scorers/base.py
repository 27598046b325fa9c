"""The protocol of scorers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grape.core.reading import record
from grape.core.trajectories import Trajectory

__all__ = ["EpisodeScore", "Scorer"]


@record
@dataclass(frozen=True)
class EpisodeScore:
    """What a scorer says of one episode.

    Attributes:
        episode_id: The episode.
        value: Higher is better, finite; None where the scorer cannot tell.
        step_values: The same after each control step, ``T`` numbers; empty where the scorer values whole episodes only.
        problem: Why there is no value; empty where there is one.
    """

    episode_id: str
    value: float | None
    step_values: tuple[float, ...] = ()
    problem: str = ""


class Scorer(ABC):
    """Maps an episode to a number, higher being better.

    A class of your own registers under the entry-point group ``grape.scorers`` and is made without arguments, or with
    the text behind the colon of ``--scorer NAME:ARGUMENT`` where one is given.

    Attributes:
        needs_images: Whether :meth:`score` looks at images; without them reading an episode takes a millisecond.
        noise: Differences of two values up to this one say nothing.
    """

    needs_images: bool = False
    noise: float = 0.0

    @abstractmethod
    def score(self, trajectory: Trajectory) -> EpisodeScore:
        """Value of one episode; equal episodes get equal values."""

    def provenance(self) -> Mapping[str, Any]:
        """Where the values come from: JSON values, e.g. a model's name and the hash of its weights."""
        return {}

    def close(self) -> None:  # noqa: B027 (most scorers hold nothing)
        """Give back what the scorer holds, such as a process."""
