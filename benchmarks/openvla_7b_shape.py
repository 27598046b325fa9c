"""One step of preference optimization at OpenVLA-7B's real shape, with random weights, on this machine's CPU.

Everything but the weights is what `grape train` uses: the network, PEFT's adapters of rank 32 on the language model and
the projector, the exact one-pass gradient over two whole trajectories, AdamW. It shows that 7 B fit where the estimate
says so, and how long a step takes; it says nothing about a policy's quality. Prints JSON.

    python benchmarks/openvla_7b_shape.py --out docs/results/openvla-7b-shape.json    # 22 GiB, 10 to 30 minutes
    python benchmarks/openvla_7b_shape.py --layers 3                                  # a try: 4 GB
    python benchmarks/openvla_7b_shape.py --shape tiny                                # seconds
"""

import argparse
import contextlib
import ctypes
import functools
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bfloat16_products import WideProducts
from torch import Tensor

from grape.core.errors import GrapeError, SettingsError
from grape.core.files import write_json
from grape.policies.openvla import OpenVLA, OpenVLAConfig, PolicyInputs
from grape.policies.openvla.checkpoint import empty_model, materialize_buffers
from grape.policies.openvla.weightless import weightless_openvla
from grape.training.estimate import estimate_training
from grape.training.gradients import Comparisons, one_pass_gradient
from grape.training.lora import wrap_with_adapters
from grape.training.losses import LossSettings, preference_loss
from grape.training.meta_profile import adapted_layers

OPENVLA_7B: dict[str, Any] = {
    "model_type": "openvla",
    "arch_specifier": "no-align+gelu-mlp",
    "image_resize_strategy": "resize-naive",
    "image_sizes": [224, 224],
    "n_action_bins": 256,
    "norm_stats": {},
    "pad_to_multiple_of": 64,
    "pad_token_id": 32000,
    "text_config": {"model_type": "llama", "pad_token_id": 32000, "torch_dtype": "bfloat16", "vocab_size": 32064},
    "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
    "torch_dtype": "bfloat16",
    "use_fused_vision_backbone": True,
}
"""What shapes the network in the published checkpoint's config.json."""

TINY: dict[str, Any] = {
    **OPENVLA_7B,
    "timm_model_ids": ["vit_tinydino_patch14_reg4_dinov2", "vit_tinysiglip_patch14_siglip_224"],
    "text_config": {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 32064,
    },
}

PROMPT_TOKENS = 25
"""LIBERO's and BridgeData's instructions make prompts of 21 to 34 tokens with the published tokenizer."""
ACTION_DIM = 7
RANK = 32
_NOISE = 1_048_573  # prime, so that no two rows of a matrix are alike
_GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("7b", "tiny"), default="7b")
    parser.add_argument(
        "--layers", type=int, default=0, help="depth of the language model, for a try; 0 is the real one"
    )
    parser.add_argument("--frames", type=int, default=3, help="frames of each of the two trajectories")
    parser.add_argument("--micro-batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--needs-gib", type=float, default=-1.0, help="refuse to start with less available memory")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    options = parser.parse_args()
    _return_freed_memory()
    try:
        result = run(options)
    except GrapeError as error:
        sys.exit(f"{error}")
    print(json.dumps(result, indent=1))
    if options.out:
        write_json(options.out, result)


def _return_freed_memory() -> None:
    """Let glibc give freed tensors back: it would keep those below 32 MB, a tenth of the peak by the end of a step."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
        libc.mallopt(m_mmap_threshold, 2**16)
        libc.mallopt(m_trim_threshold, 2**17)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Build, take one step, and put the estimate beside what was measured."""
    check_memory(options)
    config = OpenVLAConfig.from_json(shape_of(options.shape, options.layers))
    shape: dict[str, Any] = {"instruction_tokens": PROMPT_TOKENS, "lora_rank": RANK}
    network = functools.partial(weightless_openvla, config)
    estimate = estimate_training(network, micro_batch=options.micro_batch, frames=2 * options.frames, **shape)
    torch.set_num_threads(options.threads)
    process = _status("VmRSS")
    seconds: dict[str, float] = {}

    model = _timed(seconds, "build", lambda: build(config))
    parameters = _timed(seconds, "adapters", lambda: adapt(model))
    optimizer = torch.optim.AdamW(parameters, lr=2e-5)
    start_moments(optimizer, parameters)
    before = [parameter.detach().clone() for parameter in parameters[:2]]
    products = WideProducts(max(parameter.numel() for parameter in model.parameters()))
    loss, norm = _timed(seconds, "forward_backward", lambda: gradient(model, parameters, products, options))
    _timed(seconds, "step", optimizer.step)
    moved = any(not torch.equal(old, new) for old, new in zip(before, parameters[:2], strict=True))
    if not (math.isfinite(loss) and math.isfinite(norm) and norm > 0 and moved):
        raise GrapeError(f"The step is not sound: loss {loss}, gradient norm {norm}, weights moved: {moved}.")

    frames, compute = 2 * options.frames, seconds["forward_backward"]
    buffer = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    parts = {
        # An update of one pair holds one buffer less than an update of several, which the estimate is for.
        "tensors": estimate.memory.peak - buffer,
        "widened_weight": products.scratch.numel() * products.scratch.element_size(),
        "process_before": process,
    }
    return {
        "shape": options.shape,
        "language_layers": int(config.text["num_hidden_layers"]),
        "parameters": estimate.parameters,
        "trainable_parameters": sum(parameter.numel() for parameter in parameters),
        "lora_rank": RANK,
        "dtype": "bfloat16 weights, products in float32, float32 adapters",
        "trajectories": [options.frames, options.frames],
        "prompt_tokens": PROMPT_TOKENS,
        "positions_per_frame": estimate.sequence,
        "micro_batch": options.micro_batch,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "frames_per_second": round(frames / compute, 4),
        "tflop_step_per_frame": round(estimate.step_flops / 1e12, 3),
        "gflop_per_second": round(frames * estimate.step_flops / compute / 1e9, 1),
        "peak_memory_gb": round(_status("VmHWM") / 1e9, 2),
        "estimated_peak_memory_gb": round(sum(parts.values()) / 1e9, 2),
        "estimate_parts_gb": {name: round(size / 1e9, 2) for name, size in parts.items()},
        "loss": loss,
        "gradient_norm": norm,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": options.threads,
        "processor": _processor(),
    }


def check_memory(options: argparse.Namespace) -> None:
    """Refuse before anything is built.

    Raises:
        SettingsError: Less memory is available than the step needs.
    """
    usual = 1.0 if options.shape == "tiny" else 6.0 + (options.layers or 32) / 2  # 22 at the real depth
    needed = usual if options.needs_gib < 0 else options.needs_gib
    available = _meminfo("MemAvailable") / _GIB
    if available < needed:
        raise SettingsError(
            f"A step at this shape needs {needed:.1f} GiB of memory, {available:.1f} GiB are available.",
            "End other programs, or try --layers 3 or --shape tiny.",
        )


def build(config: OpenVLAConfig) -> OpenVLA:
    """The network with random bfloat16 weights on the CPU."""
    model = empty_model(config)
    fill(model, torch.device("cpu"), torch.bfloat16)
    return model


def fill(model: OpenVLA, device: torch.device, dtype: torch.dtype) -> None:
    """Give an empty network's weights random values, each made once, where and as it stays: there is no second copy.

    Weights that are there already, e.g. in 4 bits, stay as they are.
    """
    values = noise().to(device)
    weights = {
        name: random_weight(name, tuple(parameter.shape), values, dtype)
        for name, parameter in model.named_parameters()
        if parameter.is_meta
    }
    model.load_state_dict(weights, strict=False, assign=True)
    materialize_buffers(model)
    model.eval()


def noise() -> Tensor:
    """Standard normal numbers that weights repeat."""
    return torch.randn(_NOISE, generator=torch.Generator().manual_seed(0))


def random_weight(name: str, shape: tuple[int, ...], values: Tensor, dtype: torch.dtype) -> Tensor:
    """One weight: matrices repeat the values, scaled by ``fan_in ** -0.5``; norms and scales are ones, biases zeros."""
    weight = torch.empty(shape, dtype=dtype, device=values.device)
    if len(shape) < 2:
        return weight.fill_(0.0 if name.endswith("bias") else 1.0)
    scaled = (values * weight[0].numel() ** -0.5).to(dtype)
    for piece in weight.view(-1).split(len(values)):
        piece.copy_(scaled[: len(piece)])
    return weight


def adapt(model: OpenVLA) -> list[Tensor]:
    """Put adapters beside the linear layers; returns what trains."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wrap_with_adapters(model, adapted_layers(model), RANK, 0.0).eval()
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def start_moments(optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> None:
    """Let the optimizer's moments exist, as they do in all updates but the first, without moving anything."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)


def gradient(
    model: OpenVLA, parameters: list[Tensor], products: WideProducts, options: argparse.Namespace
) -> tuple[float, float]:
    """The exact gradient of the preference loss over two trajectories; returns loss and the gradient's length."""
    frames = 2 * options.frames
    pixels, prompt, tokens = random_frames(model, frames)
    positions = torch.arange(frames)
    reference = torch.full((1,), -options.frames * ACTION_DIM * math.log(32064), dtype=torch.float64)
    comparisons = Comparisons(
        frames, [positions[: options.frames]], [positions[options.frames :]], reference, reference.clone()
    )

    def logps(rows: Tensor) -> Tensor:
        began = time.perf_counter()
        values = model.action_logps(PolicyInputs(pixels[rows], (prompt,) * len(rows)), tokens[rows]).sum(1)
        print(f"frames {rows.tolist()}: forward {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
        return values

    with products:
        result = one_pass_gradient(
            logps,
            comparisons,
            lambda sums: preference_loss(sums, LossSettings(beta=0.1)),
            options.micro_batch,
            parameters,
        )
    squares = [parameter.grad.double().square().sum() for parameter in parameters if parameter.grad is not None]
    return result.loss, float(torch.stack(squares).sum().sqrt())


def random_frames(model: OpenVLA, frames: int) -> tuple[Tensor, tuple[int, ...], Tensor]:
    """Images ``(frames, C, 224, 224)``, one prompt, and action tokens ``(frames, 7)``."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(frames, 3 * len(model.vla_config.towers), 224, 224, generator=generator)
    prompt = (1, *torch.randint(3, 32000, (PROMPT_TOKENS - 1,), generator=generator).tolist())
    return pixels, prompt, torch.randint(31744, 32000, (frames, ACTION_DIM), generator=generator)


def shape_of(name: str, layers: int) -> dict[str, Any]:
    """What shapes a network in its config.json, with so many blocks of the language model; 0 leaves their number."""
    raw = OPENVLA_7B if name == "7b" else TINY
    return {**raw, "text_config": {**raw["text_config"], "num_hidden_layers": layers}} if layers else raw


def _timed(seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    result = work()
    seconds[name] = time.perf_counter() - began
    print(f"{name}: {seconds[name]:.1f} s, {_status('VmRSS') / 1e9:.2f} GB", file=sys.stderr, flush=True)
    return result


def _status(field: str) -> int:
    """Bytes of a field of this process's status, e.g. the peak of its memory, ``VmHWM``."""
    return _kilobytes(Path("/proc/self/status"), field)


def _meminfo(field: str) -> int:
    return _kilobytes(Path("/proc/meminfo"), field)


def _kilobytes(path: Path, field: str) -> int:
    rows = dict(line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line)
    return int(rows[field].split()[0]) * 1024


def _processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if "model name" in line]
    return f"{len(names)} x {names[0].split(':', 1)[1].strip()}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    main()
