"""What collection and evaluation need of a policy. numpy only: torch stays inside the implementations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from grape.core.tasks import GripperConvention, RotationConvention, parse_convention
from grape.core.trajectories import Observation

__all__ = ["ActionBatch", "Policy", "PolicySpec"]


@dataclass(frozen=True)
class PolicySpec:
    """Contract of a policy, compared with an environment's before the first step.

    Attributes:
        action_dim: Dimensions of an action.
        image_size: Side of the square image the network reads; images of other sizes are resized by the policy.
        gripper: What the last dimension of an un-normalised action means; empty if unknown. Plain text of the same
            characters is accepted.
        unnorm_key: Which normalisation statistics are in use.
        policy_hash: Hash of weights and configuration.
        preprocessing_hash: Hash of prompt template, image preprocessing, tokenizer, action bins and normalisation.
        computation: Device, number type and attention, which decide the last bits of log-probabilities; empty if
            unknown.
        rotation: What dimensions 3 to 5 of an un-normalised action mean; empty for what the suite takes.

    Raises:
        SettingsError: A convention is unknown.
    """

    action_dim: int
    image_size: int
    gripper: GripperConvention | str
    unnorm_key: str
    policy_hash: str
    preprocessing_hash: str
    computation: str = ""
    rotation: RotationConvention | str = ""

    def __post_init__(self) -> None:
        if self.gripper:
            object.__setattr__(self, "gripper", parse_convention(GripperConvention, self.gripper))
        if self.rotation:
            object.__setattr__(self, "rotation", parse_convention(RotationConvention, self.rotation))


@dataclass(frozen=True, eq=False)
class ActionBatch:
    """Decisions for a batch of observations.

    Attributes:
        actions: Un-normalised actions, float32 ``(B, D)``.
        tokens: Token ids as sampled (before any clipping), int32 ``(B, D)``.
        logps: Log-probability of each token under temperature 1 over the whole vocabulary, float32 ``(B, D)``.
    """

    actions: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.int32]
    logps: npt.NDArray[np.float32]


class Policy(Protocol):
    """Maps observations to actions, many at a time."""

    @property
    def spec(self) -> PolicySpec:
        """The policy's contract."""

    def prompt(self, instruction: str) -> str:
        """The text the network reads for an instruction."""

    def act(
        self, observations: Sequence[Observation], *, temperature: float = 0.0, seeds: Sequence[int] | None = None
    ) -> ActionBatch:
        """Decide for each observation.

        Args:
            observations: ``B`` observations; instructions may differ.
            temperature: 0 decodes greedily; otherwise each token is sampled from ``softmax(logits / temperature)``.
            seeds: One seed a row, needed when sampling; a row's random numbers depend on its seed alone.
        """
