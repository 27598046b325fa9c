"""What ``probe`` asks of a policy: how likely it makes demonstrated actions under each way of running it. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["FOOTING", "Candidate", "Footing", "Probe", "ProbeBatch", "ProbeScore", "Reading", "Variation"]


@dataclass(frozen=True)
class Footing:
    """A softmax over the network's logits.

    Attributes:
        support: ``"window"`` or ``"vocabulary"``: what it runs over.
        temperature: What logits are divided by.
    """

    support: str
    temperature: float

    @property
    def name(self) -> str:
        """What files call it, e.g. ``"window, temperature 1.6"``."""
        return f"{self.support}, temperature {self.temperature:g}"


FOOTING = Footing("window", 1.0)
"""What readings are compared on: it gives no candidate an advantage by its own support or temperature."""


@dataclass(frozen=True)
class Reading:
    """What decides the network's output.

    Attributes:
        is_chunked: Whether decisions are on a whole chunk; else on one action, each token given those before it.
        values: Name and value of each convention that is read.
    """

    is_chunked: bool
    values: tuple[tuple[str, Any], ...]

    @property
    def facts(self) -> dict[str, Any]:
        """JSON values by convention."""
        return dict(self.values)

    @property
    def key(self) -> str:
        """A name of its own, for files."""
        kind = "chunk" if self.is_chunked else "single action"
        return ", ".join([kind, *(f"{name}={value}" for name, value in self.values)])

    def changed(self, name: str, value: Any) -> "Reading":
        """The same with another value of one convention."""
        return Reading(self.is_chunked, tuple({**self.facts, name: value}.items()))


@dataclass(frozen=True)
class Candidate:
    """One way of running the checkpoint that is compared with the others.

    Attributes:
        name: Name of the preset; ``"stated"`` for what the checkpoint states, where no preset is like it; ``"openvla"``
            for plain OpenVLA.
        reading: What it makes the network compute, in its canonical form: readings that give this checkpoint the same
            input are equal.
        footing: Its own support and temperature.
        conventions: All its conventions as JSON values; empty for plain OpenVLA.
        stated: Whether the checkpoint states it.
        problem: Why it cannot be run; empty where it can.
    """

    name: str
    reading: Reading
    footing: Footing
    conventions: Mapping[str, Any] = field(default_factory=dict)
    stated: bool = False
    problem: str = ""


@dataclass(frozen=True)
class Variation:
    """A reading that differs from another in one convention.

    Attributes:
        convention: Its name.
        value: Its value.
        reading: The reading in its canonical form; the other one itself where this checkpoint gets the same input.
        problem: Why it cannot be run; empty where it can.
    """

    convention: str
    value: Any
    reading: Reading
    problem: str = ""


@dataclass(frozen=True, eq=False)
class ProbeBatch:
    """Decisions of demonstrations.

    Attributes:
        images: Of each decision the images of the policy's cameras, uint8 ``(H, W, 3)``.
        instructions: One a decision.
        labels: Demonstrated actions, un-normalized, in the policy's convention, float32 ``(B, K, D)``.
        inside: Which of them lie within the episode, bool ``(B, K)``.
        proprio: Robot states, float32 ``(B, P)``; None where the policy reads none.
    """

    images: Sequence[Sequence[npt.NDArray[np.uint8]]]
    instructions: Sequence[str]
    labels: npt.NDArray[np.float32]
    inside: npt.NDArray[np.bool_]
    proprio: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class ProbeScore:
    """How likely the demonstrated actions of one decision are, summed over the dimensions of each action.

    Attributes:
        nll: Negative log-likelihood of each action within the episode on :data:`FOOTING`, nats.
        hits: Of each action the tokens that are the likeliest of the window.
        footings: Negative log-likelihood of all these actions on other footings, nats, by :attr:`Footing.name`.
        outside: Tokens in whose place an id that is no action token is the likeliest of the vocabulary.
    """

    nll: tuple[float, ...]
    hits: tuple[int, ...]
    footings: Mapping[str, float]
    outside: int


class Probe(Protocol):
    """A checkpoint with action tokens, opened once and run in several ways."""

    @property
    def chunk(self) -> int:
        """Actions ``K`` a decision."""

    @property
    def action_dim(self) -> int:
        """Dimensions ``D`` of an action."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that it reads; the first is the main one."""

    @property
    def proprio_dim(self) -> int:
        """Numbers of the robot's state that it reads; 0 for none."""

    @property
    def bins(self) -> int:
        """Number of action tokens."""

    @property
    def unnorm_key(self) -> str:
        """Statistics in use."""

    @property
    def gripper(self) -> str:
        """What the last dimension of its actions means; empty if unknown."""

    @property
    def rotation(self) -> str:
        """What dimensions 3 to 5 mean, as :class:`~grape.policies.base.PolicySpec` has it."""

    @property
    def computation(self) -> str:
        """Where and in what the network computes."""

    @property
    def policy_hash(self) -> str:
        """Hash of weights and configuration."""

    @property
    def not_varied(self) -> Mapping[str, str]:
        """Conventions that recorded images do not tell apart, and why."""

    @property
    def other_footings(self) -> Mapping[str, Footing]:
        """Footings that differ from :data:`FOOTING` in one convention, by its name."""

    def candidates(self, instructions: Sequence[str]) -> tuple[Candidate, ...]:
        """All that is compared.

        Args:
            instructions: Those of the demonstrations: they say which prompts are alike.
        """

    def variations(self, reading: Reading, instructions: Sequence[str]) -> list[Variation]:
        """Readings that differ from one in a single convention."""

    def footings(self, more: Sequence[Footing] = ()) -> list[Footing]:
        """All that a forward pass is scored on beside :data:`FOOTING`."""

    def token_ids(self, labels: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """Token ids of un-normalized actions, of the same shape ``(..., D)``."""

    def score(self, reading: Reading, batch: ProbeBatch, footings: Sequence[Footing] = ()) -> list[ProbeScore]:
        """Likelihood of demonstrated actions under a reading, from one forward pass.

        Args:
            reading: How the network is run. What is not chunked scores the first action of each decision.
            batch: ``B`` decisions.
            footings: Supports and temperatures beside the usual ones.

        Returns:
            One a decision.

        Raises:
            CompatibilityError: Robot states or cameras are not those that the policy reads.
            PolicyError: The network's output is not finite.
        """
