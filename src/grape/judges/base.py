"""The protocol of judges."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grape.core.reading import record
from grape.core.trajectories import Trajectory

__all__ = ["Judge", "Judgment"]


@record
@dataclass(frozen=True)
class Judgment:
    """What a judge says of two episodes of one initial state.

    Attributes:
        a: Episode that was shown first.
        b: The other.
        p: Probability that the first one is better, in [0, 1], ties counting half: 0.5 is a tie. None where the judge
            cannot tell.
        reason: Why, in one sentence for people; may be empty.
        problem: Why there is no answer; empty where there is one.
    """

    a: str
    b: str
    p: float | None
    reason: str = ""
    problem: str = ""

    @property
    def decision(self) -> int | None:
        """1 where the first one is better, -1 where the other is, 0 for a tie; None without an answer."""
        return None if self.p is None else (self.p > 0.5) - (self.p < 0.5)

    def p_of(self, episode_id: str) -> float | None:
        """The probability that this one of the two is better."""
        return self.p if self.p is None or episode_id == self.a else 1.0 - self.p


class Judge(ABC):
    """Compares two episodes of one task and initial state.

    A class of your own registers under the entry-point group ``grape.judges`` and is made without arguments, or with
    the text behind the colon of ``--judge NAME:ARGUMENT`` where one is given.

    Attributes:
        needs_images: Whether :meth:`judge` looks at images.
        both_orders: Whether it should see each couple both ways, unasked.
    """

    needs_images: bool = False
    both_orders: bool = False

    @abstractmethod
    def judge(self, a: Trajectory, b: Trajectory) -> Judgment:
        """Compare two episodes in the order in which they are shown."""

    def known_couples(self) -> frozenset[frozenset[str]] | None:
        """The couples, two ids each, about which it can be asked; None for any, which is what most judges say."""
        return None

    def provenance(self) -> Mapping[str, Any]:
        """Where the judgments come from: JSON values, e.g. a model's name and the hash of its weights."""
        return {}

    def close(self) -> None:  # noqa: B027 (most judges hold nothing)
        """Give back what the judge holds, such as a process."""
