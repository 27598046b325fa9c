"""One step of preference optimization over one pair as `grape train --lora-rank 32` takes it, for measurement.

The parts are the trainer's own: log-probabilities of recorded steps, comparisons, the exact one-pass gradient, AdamW.
Left out are reading episodes, the learning rate's schedule, metrics files and checkpoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from grape.policies.openvla import OpenVLAPolicy
from grape.training.batches import collate
from grape.training.dataset import StepDataset
from grape.training.gradients import GradientResult, one_pass_gradient
from grape.training.items import ComparisonItem
from grape.training.logprobs import StepLogprobs, recorded_reference
from grape.training.losses import LossSettings, preference_loss

__all__ = ["LEARNING_RATE", "PairStep", "whole_pair"]

LEARNING_RATE = 2e-5


def whole_pair(pair: StepDataset) -> list[ComparisonItem]:
    """The comparison of both whole trajectories."""
    return [ComparisonItem("pair", pair.spans["chosen"], pair.spans["rejected"])]


@dataclass
class PairStep:
    """Takes steps on one pair.

    Attributes:
        policy: A policy with adapters.
        pair: Its two trajectories.
        beta: Inverse temperature of the loss.
        micro_batch: Frames that go through the network at once.
        keep_features: Whether outputs of the frozen towers are kept from one step to the next, as over epochs.
    """

    policy: OpenVLAPolicy
    pair: StepDataset
    beta: float = 0.1
    micro_batch: int = 4
    keep_features: bool = False
    _optimizer: Any = field(init=False)
    _logps: StepLogprobs = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.policy.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self.parameters, lr=LEARNING_RATE)
        self._logps = StepLogprobs(self.policy, self.pair, self.micro_batch, 4e9 if self.keep_features else 0.0)

    def gradient(self, units: Sequence[ComparisonItem]) -> GradientResult:
        """Leave the gradient of the mean loss over the units in the parameters."""
        segments, comparisons = collate(units, recorded_reference(self.pair), self.pair.axis)
        return one_pass_gradient(
            lambda positions_B: self._logps.sums(segments[positions_B]),
            comparisons,
            lambda sums: preference_loss(sums, LossSettings(beta=self.beta)),
            self.micro_batch,
            self.parameters,
        )

    def take(self) -> float:
        """One step on the whole pair; returns the loss before it."""
        loss = self.gradient(whole_pair(self.pair)).loss
        self._optimizer.step()
        return loss
