"""What a run will cost, before it starts: frames, updates, floating-point operations."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch

from grape.training.batches import BatchSampler, ComparisonItem

if TYPE_CHECKING:
    from grape.policies.openvla import OpenVLAPolicy

__all__ = ["FORWARD_BACKWARD", "choose_gradient", "choose_micro_batch", "forward_flops", "frames_of_epoch"]

# A backward costs about twice a forward: one product for the inputs' gradient, one for the weights'.
FORWARD_BACKWARD = 3


def choose_gradient(
    asked: Literal["auto", "one-pass", "two-pass"], lora_rank: int, micro_batch: int, frames_per_side: float
) -> Literal["one-pass", "two-pass"]:
    """Which way to the exact gradient.

    One pass needs two buffers of the trainable parameters' size and cannot mix sides in a micro-batch, so it pays for
    adapters whose micro-batches a single side fills.
    """
    if asked != "auto":
        return asked
    return "one-pass" if lora_rank and micro_batch <= frames_per_side else "two-pass"


def choose_micro_batch(asked: int, parameters: int) -> int:
    """Frames that go through the network at once.

    Activations grow with the network: 256 frames of nano need 0.4 GB, 8 frames of OpenVLA-7B 21 GB.

    Args:
        asked: The user's choice; 0 chooses by size.
        parameters: Number of parameters of the network.
    """
    return asked or (256 if parameters < 10**7 else 32 if parameters < 2 * 10**8 else 8)


def forward_flops(policy: "OpenVLAPolicy", instruction: str) -> int:
    """Floating-point operations of the forward pass of one step, counted on a network of that shape without weights."""
    from grape.training.meta_profile import profile_micro_batch, weightless_model

    prompt_tokens = len(policy.processor.prompt_ids(instruction))
    model = weightless_model(policy.config, torch.float32)
    return profile_micro_batch(model, 1, prompt_tokens, policy.norm.dim).forward_flops


def frames_of_epoch(schedule: BatchSampler, units: Sequence[ComparisonItem]) -> int:
    """Different steps an update needs, summed over the first epoch."""
    total = 0
    for update in range(min(schedule.per_epoch, schedule.updates)):
        rows: set[int] = set()
        for item in schedule.batch(update):
            rows.update(range(*units[item].chosen), range(*units[item].rejected))
        total += len(rows)
    return total
