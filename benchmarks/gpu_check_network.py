"""What the parts of `gpu_check.py` share: the network at a size that fits, seconds, memory, and operations."""

import functools
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from openvla_7b_shape import ACTION_DIM, PROMPT_TOKENS, RANK, fill, noise, random_weight, shape_of
from torch import Tensor

from grape.core.errors import GrapeError
from grape.policies.base import WeightlessNetwork
from grape.policies.openvla import OpenVLA, OpenVLAConfig
from grape.policies.openvla.checkpoint import empty_model
from grape.policies.openvla.precision import quantize_layers, quantized_names
from grape.policies.openvla.weightless import weightless_openvla
from grape.policies.openvla_oft.conventions import PRESETS, Layout
from grape.policies.openvla_oft.model import empty_oft_model
from grape.policies.openvla_oft.weightless import weightless_oft
from grape.training.estimate import Estimate, estimate_training
from grape.training.meta_profile import Account, profile_micro_batch
from grape.training.plan import saved_by_quantization

LAYOUT = Layout(chunk=8, action_dim=ACTION_DIM)
CONVENTIONS = PRESETS["simplevla-rl"]
USABLE = 0.92
"""Share of the free memory that an estimate may take: it leaves out workspaces and fragmentation (docs/memory.md)."""
_DEPTHS = (32, 24, 16, 12, 8, 4, 2)


@dataclass(frozen=True)
class Place:
    """Where the parts compute and at which size.

    Attributes:
        device: A GPU, or the CPU.
        tiny: A network of 4 million parameters instead of OpenVLA-7B's shape.
        memory: Bytes that may be used, whatever is free; 0 for what is free.
    """

    device: torch.device
    tiny: bool
    memory: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """Type of the frozen weights, as `--dtype auto` chooses it."""
        return torch.float32 if self.device.type == "cpu" else torch.bfloat16

    @property
    def dtype_name(self) -> Literal["float32", "bfloat16"]:
        return "float32" if self.device.type == "cpu" else "bfloat16"

    def config(self, layers: int = 0) -> OpenVLAConfig:
        """The network's configuration; 0 layers means the real depth."""
        return OpenVLAConfig.from_json(shape_of("tiny" if self.tiny else "7b", layers))

    @property
    def depths(self) -> tuple[int, ...]:
        """Depths of the language model to try, the real one first."""
        return (2,) if self.tiny else _DEPTHS

    def usable(self) -> int | None:
        """Bytes that a part may plan with; None where nothing limits it."""
        if self.memory:
            return self.memory
        if self.device.type != "cuda":
            return None
        return int(USABLE * torch.cuda.mem_get_info(self.device)[0])


@dataclass(frozen=True)
class Size:
    """A size at which something is measured.

    Attributes:
        layers: Blocks of the language model.
        batch: Decisions or frames at once.
        estimated: Bytes that GRAPE's estimate says it takes.
        shrunk: Why it is not the size that was meant; empty where it is.
    """

    layers: int
    batch: int
    estimated: int
    shrunk: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"language_layers": self.layers, "batch": self.batch} | ({"shrunk": self.shrunk} if self.shrunk else {})


def fitting(place: Place, batch: int, needed: Callable[[int, int], int]) -> Size:
    """The largest size that fits: first with fewer rows at once, then with fewer blocks.

    Args:
        place: Where.
        batch: Rows at once that are meant.
        needed: Estimated bytes for a depth and a batch.

    Raises:
        GrapeError: Not even the smallest size fits.
    """
    usable, depth = place.usable(), place.depths[0]
    sizes = [(depth, batch >> shift) for shift in range(batch.bit_length())]
    sizes += [(layers, 1) for layers in place.depths[1:]]
    full = 0
    for layers, rows in sizes:
        size = needed(layers, rows)
        full = full or size
        if usable is None or size <= usable:
            why = f"{depth} blocks and {batch} at once take {_gb(full)} GB, {_gb(usable or 0)} GB can be used"
            return Size(layers, rows, size, "" if (layers, rows) == sizes[0] else why)
    raise GrapeError(f"Not even {place.depths[-1]} blocks fit: {_gb(usable or 0)} GB can be used.", "Free the GPU.")


def operations(place: Place, layers: int, kind: Literal["prefill", "decode", "chunk"], batch: int) -> tuple[int, int]:
    """Floating-point operations of a batch of decisions, and the memory they pass through beside the weights.

    Both are counted by `grape.training.meta_profile` on the real network without memory: every matrix product,
    convolution and attention, a multiplication and an addition counting as two, attention as the full square.

    - `prefill`: images, prompt, and the logits of one token.
    - `decode`: seven tokens. Counted as one pass over the prompt and all tokens, which computes every position once, as
      decoding with a cache does; attention's square is 5 % larger so, 0.1 % of all operations.
    - `chunk`: 56 tokens of 8 actions in one pass, bidirectional.

    Operations of an update are those of `estimate_training`: forward and backward, adapters included.
    """
    config = place.config(layers)
    if kind == "chunk":
        network = weightless_oft(config, CONVENTIONS, LAYOUT, place.dtype)
    else:
        network = weightless_openvla(config, place.dtype, ACTION_DIM if kind == "decode" else 1)
    profile = profile_micro_batch(network, batch, PROMPT_TOKENS, backward=False)
    return profile.forward_flops, profile.peak_bytes


def decision_memory(place: Place, kind: Literal["decode", "chunk"], layers: int, batch: int) -> int:
    """Estimated bytes of decisions: weights, what a pass takes, and keys and values of all positions where cached."""
    config = place.config(layers)
    network = weightless_openvla(config, place.dtype)
    weights = sum(parameter.numel() for parameter in network.module.parameters()) * place.dtype.itemsize
    positions = network.rows_beside_prompt + PROMPT_TOKENS
    cache = 2 * layers * batch * positions * config.hidden * place.dtype.itemsize if kind == "decode" else 0
    return weights + cache + operations(place, layers, kind, batch)[1]


def update_estimate(place: Place, layers: int, micro_batch: int) -> Estimate:
    """What `grape train --dry-run` would say of the update: LoRA of rank 32, with the anchor."""
    return estimate_training(
        cast(Callable[[torch.dtype], WeightlessNetwork], functools.partial(weightless_openvla, place.config(layers))),
        instruction_tokens=PROMPT_TOKENS,
        micro_batch=micro_batch,
        lora_rank=RANK,
        dtype=place.dtype_name,
        terms=2,
    )


def saved_by_4bit(place: Place, layers: int) -> int:
    """Bytes that 4-bit weights save by the estimate of `grape train --dry-run`."""
    return int(1e9 * saved_by_quantization(weightless_openvla(place.config(layers), place.dtype), place.dtype_name))


def build(place: Place, layers: int, attention: str = "sdpa") -> OpenVLA:
    """OpenVLA with random weights, made on the device."""
    model = empty_model(place.config(layers), attention)
    fill(model, place.device, place.dtype)
    return model


def build_oft(place: Place, layers: int) -> Any:
    """OpenVLA-OFT with random weights and chunks of 8 actions, made on the device."""
    model = empty_oft_model(place.config(layers), CONVENTIONS, LAYOUT)
    fill(model, place.device, place.dtype)
    return model


def build_4bit(place: Place, layers: int) -> OpenVLA:
    """OpenVLA whose language model holds 4-bit weights; one layer at a time is whole, on the CPU, as when loaded."""
    model = empty_model(place.config(layers))
    values = noise()
    for name in sorted(quantized_names(layers)):
        shape = tuple(model.get_submodule(name).weight.shape)
        quantize_layers(
            model, {name: random_weight(f"{name}.weight", shape, values, place.dtype)}, place.device, place.dtype
        )
    fill(model, place.device, place.dtype)
    return model


def repeat(
    work: Callable[[], Any], place: Place, *, least: int = 3, most: int = 20, enough: float = 10
) -> dict[str, float]:
    """Seconds of repeated runs; the caller ran it before, to warm up.

    On a GPU they lie between two CUDA events of each run, and the last one is waited for.

    Args:
        work: What is measured.
        place: Where it computes; a tiny network runs twice.
        least: Runs at least.
        most: Runs at most.
        enough: Seconds after which no further run starts.
    """
    device = place.device
    least, most = (2, 2) if place.tiny else (least, most)
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < least or (len(taken) < most and time.perf_counter() - began < enough):
        if device.type == "cuda":
            events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            torch.cuda.synchronize(device)
            events[0].record()
            work()
            events[1].record()
            torch.cuda.synchronize(device)
            taken.append(events[0].elapsed_time(events[1]) / 1000)
        else:
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
    return {"min": _rounded(min(taken)), "median": _rounded(statistics.median(taken)), "runs": len(taken)}


def peak_memory(work: Callable[[], Any], device: torch.device, held: Iterable[Tensor]) -> int:
    """Largest memory of tensors while something runs, in bytes.

    On a GPU the allocator's own peak. On a CPU, which has none, what GRAPE's account of the tensors made adds up to.

    Args:
        work: What runs.
        device: Where it computes.
        held: All tensors that exist before, for the CPU's account.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device))
    known = list(held)
    with Account(known) as account:
        work()
    return account.peak + sum(tensor.numel() * tensor.element_size() for tensor in known)


def memory_facts(measured: int, estimated: int) -> dict[str, float]:
    """Measured memory beside the estimate."""
    return {
        "peak_memory_gb": _gb(measured, 4),
        "estimated_peak_memory_gb": _gb(estimated, 4),
        "measured_over_estimated": round(measured / estimated, 4),
    }


def rate_facts(flops: int, seconds: dict[str, float]) -> dict[str, Any]:
    """Seconds, operations, and operations a second by the median."""
    tflop = flops / 1e12
    return {"seconds": seconds, "tflop": _rounded(tflop), "tflop_per_second": _rounded(tflop / seconds["median"])}


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _gb(size: int, digits: int = 1) -> float:
    return round(size / 1e9, digits)
