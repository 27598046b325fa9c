"""What a training will take before it starts: parameters, floating-point operations, peak memory, largest micro-batch.

From the configuration alone: no weights are read and none are made. What a micro-batch takes is counted on the real
network without memory (:mod:`grape.training.meta_profile`); what stays for the whole run is counted in parameters. Peak
memory is that of tensors: a process adds its libraries (about 0.5 GB on a CPU, the CUDA context on a GPU), and an
allocator its fragmentation.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from grape.core.errors import SettingsError
from grape.policies.base import WeightlessNetwork
from grape.training.meta_profile import MemoryProfile, prepare_network, profile_micro_batch, tower_flops

__all__ = ["Estimate", "Memory", "estimate_training"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_GB = 10**9


@dataclass(frozen=True)
class Memory:
    """Bytes by what they are for.

    Attributes:
        weights: The network, without adapters.
        adapters: Low-rank adapters, float32.
        gradients: One gradient of the trainable parameters.
        buffers: What the gradient holds beside ``gradients``: in one pass the update's so far and the chosen side's,
            and one more for each further term of the loss.
        moments: AdamW's two averages.
        kept: What is held between forward and backward of a micro-batch: its inputs, and what autograd keeps.
        passes: Largest demand of a micro-batch at any time: ``kept`` and what is passing through.
        step: What AdamW needs beside all this while it steps (a copy of the trainable parameters, where it handles
            them together, as on a GPU); buffers and activations are gone by then.
    """

    weights: int
    adapters: int
    gradients: int
    buffers: int
    moments: int
    kept: int
    passes: int
    step: int

    @property
    def lasting(self) -> int:
        """What is held all the time."""
        return self.weights + self.adapters + self.gradients + self.moments

    @property
    def peak(self) -> int:
        """Largest demand at any time."""
        return self.lasting + max(self.buffers + self.passes, self.step)


@dataclass(frozen=True)
class Estimate:
    """What a training will take.

    Attributes:
        parameters: Parameters of the network, without adapters.
        trainable_parameters: Parameters that train: the adapters', or all that are read.
        micro_batch: Frames that go through the network at once.
        sequence: Positions the language model reads for a frame.
        frames: Frames of the whole training, each time a frame is used counted.
        forward_flops: Floating-point operations of a forward pass of one frame, with adapters.
        tower_flops: Those of the vision towers alone, part of ``forward_flops`` unless features are cached.
        backward_flops: The same of the backward pass: for adapters through activations and into adapters only, with
            activation checkpointing including the second forward.
        step_flops: One frame's share of an update.
        flops: All frames.
        memory: Memory by purpose.
        largest_micro_batch: Frames that fit the stated memory; 0 if not even one does, None if none was stated.
        memory_gb: The stated memory in GB (10^9 bytes); None if none was stated.
    """

    parameters: int
    trainable_parameters: int
    micro_batch: int
    sequence: int
    frames: int
    forward_flops: int
    tower_flops: int
    backward_flops: int
    step_flops: int
    flops: int
    memory: Memory
    largest_micro_batch: int | None = None
    memory_gb: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For summaries: counts as they are, TFLOP (10^12) and GB (10^9 bytes)."""
        parts = {name: _gb(size) for name, size in dataclasses.asdict(self.memory).items()}
        return {
            "parameters": self.parameters,
            "trainable_parameters": self.trainable_parameters,
            "micro_batch": self.micro_batch,
            "sequence": self.sequence,
            "frames": self.frames,
            "tflop_forward_per_frame": self.forward_flops / 1e12,
            "tflop_towers_per_frame": self.tower_flops / 1e12,
            "tflop_step_per_frame": self.step_flops / 1e12,
            "tflop": self.flops / 1e12,
            "peak_memory_gb": _gb(self.memory.peak),
            "memory_parts_gb": parts,
            "memory_gb": self.memory_gb,
            "largest_micro_batch": self.largest_micro_batch,
        }


def estimate_training(
    build: Callable[[torch.dtype], WeightlessNetwork],
    *,
    instruction_tokens: int,
    micro_batch: int,
    frames: int = 1,
    lora_rank: int = 0,
    lora_targets: Sequence[str] = (),
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
    gradient: Literal["one-pass", "two-pass", "supervised"] = "one-pass",
    terms: int = 1,
    activation_checkpointing: bool = False,
    cached_features: bool = False,
    memory_gb: float | None = None,
) -> Estimate:
    """Estimate a training by its shape.

    Args:
        build: Makes the network without weights, in a type that its weights have; it is called once.
        instruction_tokens: Length of an instruction as the network reads it: the whole encoded prompt, with
            begin-of-sequence and template (``policy.prompt_length(instruction)``). The longest one of the
            data gives the peak.
        micro_batch: Frames that go through the network at once.
        frames: Frames of the whole training.
        lora_rank: Rank of the adapters; 0 trains all parameters.
        lora_targets: Full names of the adapted layers; empty means the language model's blocks and the projector.
        dtype: Type the network computes in. Frozen weights are held in it; whatever trains is float32.
        gradient: One or two passes of preference optimization (:mod:`grape.training.gradients`), or supervised: one
            pass without buffers.
        terms: Terms of the loss whose gradients are computed apart; 2 with an anchor.
        activation_checkpointing: Whether blocks keep their input only and are computed again.
        cached_features: Whether the outputs of the frozen vision towers are computed before; they are then not part
            of any pass (``tower_flops`` for each different frame come on top).
        memory_gb: Memory for which to find the largest micro-batch, GB (10^9 bytes).

    Raises:
        SettingsError: A number is out of range, features are to be cached of towers that train, or PEFT is missing.
    """
    if micro_batch < 1 or frames < 0:
        raise SettingsError(f"A micro-batch of {micro_batch} and {frames} frames cannot be estimated.")
    if instruction_tokens < 1 or lora_rank < 0:
        raise SettingsError(f"{instruction_tokens} prompt tokens and LoRA rank {lora_rank} cannot be estimated.")
    autocast = dtype == "bfloat16" and not lora_rank  # weights that train are float32
    network = prepare_network(
        build(torch.float32 if autocast else _DTYPES[dtype]),
        lora_rank,
        lora_targets,
        activation_checkpointing=activation_checkpointing,
    )
    model = network.module
    if cached_features and any(p.requires_grad for p in network.towers.parameters()):
        raise SettingsError(
            "Features of vision towers that train cannot be computed before.",
            "Give a LoRA rank and adapt the language model and the projector only.",
        )
    base = {name: p for name, p in model.named_parameters() if ".lora_" not in name}
    weights, trainable = _size(base.values()), _size(p for p in model.parameters() if p.requires_grad)

    def profile(count: int) -> MemoryProfile:
        return profile_micro_batch(network, count, instruction_tokens, features=cached_features, autocast=autocast)

    def memory(profile: MemoryProfile) -> Memory:
        return Memory(
            weights=weights,
            adapters=_size(model.parameters()) - weights,
            gradients=trainable,
            buffers=trainable * (terms - 1 + (2 if gradient == "one-pass" else 0)),
            moments=2 * trainable,
            kept=profile.kept_bytes,
            passes=profile.peak_bytes,
            step=trainable,
        )

    profiled = profile(micro_batch)
    forward, backward = profiled.forward_flops // micro_batch, profiled.backward_flops // micro_batch
    step = forward * (2 if gradient == "two-pass" else 1) + backward
    largest = None
    if memory_gb is not None:
        largest = _largest(lambda count: memory(profile(count)).peak, int(memory_gb * _GB))
    return Estimate(
        parameters=sum(p.numel() for p in base.values()),
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        micro_batch=micro_batch,
        sequence=network.rows_beside_prompt + instruction_tokens,
        frames=frames,
        forward_flops=forward,
        tower_flops=tower_flops(network),
        backward_flops=backward,
        step_flops=step,
        flops=frames * step,
        memory=memory(profiled),
        largest_micro_batch=largest,
        memory_gb=memory_gb,
    )


def _largest(peak: Callable[[int], int], memory: int) -> int:
    """Largest count whose peak fits.

    A peak is the largest of several demands that each grow linearly with the count. So it grows at least as fast
    beyond two counts as between them: the line through both says which counts cannot fit, and mostly which one does.
    """
    fits, taken = 1, peak(1)
    if taken > memory:
        return 0
    fails: int | None = None
    trial = 2
    while fails is None or fails - fits > 1:
        more = peak(trial)
        if more > memory:
            fails = trial
            trial = (fits + fails) // 2
            continue
        if more > taken:
            bound = trial + (memory - more) * (trial - fits) // (more - taken) + 1
            fails = bound if fails is None else min(fails, bound)
        fits, taken = trial, more
        trial = 2 * fits if fails is None else fails - 1
    return fits


def _size(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _gb(size: int) -> float:
    return round(size / _GB, 3)
