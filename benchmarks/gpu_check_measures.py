"""The parts of `gpu_check.py` that compute with PyTorch; each is a function of the place and gives JSON."""

import argparse
import functools
import math
import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from gpu_check_network import (
    Place,
    Size,
    build,
    build_4bit,
    build_oft,
    decision_memory,
    fitting,
    memory_facts,
    operations,
    peak_memory,
    rate_facts,
    repeat,
    saved_by_4bit,
    update_estimate,
)
from openvla_7b_shape import ACTION_DIM, RANK, adapt, random_frames, start_moments
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from grape.core.errors import GrapeError
from grape.policies.openvla import OpenVLA, PolicyInputs
from grape.policies.openvla.checkpoint import empty_model, materialize_buffers
from grape.policies.openvla.decoding import ROWS, decode_actions
from grape.policies.openvla.precision import choose_precision
from grape.policies.openvla_oft.decoding import decode_chunks
from grape.training.gradients import Comparisons, norm_of, one_pass_gradient
from grape.training.losses import LossSettings, preference_loss
from grape.training.settings import TrainSettings

BATCH = 8
"""Decisions at once, and frames of a micro-batch."""
FRAMES_A_SIDE = 8
PAIRS = 2
_KINDS: Mapping[Literal["prefill", "decode"], int] = {"prefill": 1, "decode": ACTION_DIM}
"""Tokens that are decoded."""
_KERNELS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")


def place_of(options: argparse.Namespace) -> Place:
    """Where to compute, from a part's command line."""
    return Place(torch.device(options.device), options.tiny, int(1e9 * options.memory_gb))


def matrix_rate(place: Place) -> dict[str, Any]:
    """The device's rate in one large product of random matrices, and how fast it copies its own memory."""
    side = 256 if place.tiny else 8192
    left, right = (torch.randn(side, side, device=place.device, dtype=place.dtype) for _ in range(2))
    result = torch.empty_like(left)
    for _ in range(3):
        torch.matmul(left, right, out=result)
    seconds = repeat(lambda: torch.matmul(left, right, out=result), place, least=10, most=50, enough=5)
    source = torch.empty(2**20 if place.tiny else 2**30, dtype=torch.uint8, device=place.device)
    target = torch.empty_like(source)
    target.copy_(source)
    copying = repeat(lambda: target.copy_(source), place, least=10, most=50, enough=5)
    return {
        "matrix": [side, side],
        "dtype": place.dtype_name,
        **rate_facts(2 * side**3, seconds),
        "copy_gb_per_second": float(f"{2 * source.numel() / copying['median'] / 1e9:.5g}"),
    }


def decode(place: Place) -> dict[str, Any]:
    """OpenVLA's decisions: seven tokens, one after the other, with a cache; and the pass over the prompt alone."""
    size = fitting(place, _batch(place), functools.partial(decision_memory, place, "decode"))
    return {**size.to_json(), **_decisions(place, build(place, size.layers), size)}


def chunked_decode(place: Place) -> dict[str, Any]:
    """OpenVLA-OFT's decisions: 56 tokens of 8 actions in one pass."""
    batch = ROWS if place.tiny else BATCH  # a small network on a CPU decodes so many at once, however few there are
    size = fitting(place, batch, functools.partial(decision_memory, place, "chunk"))
    model = build_oft(place, size.layers)
    facts: dict[str, Any] = {"actions_a_decision": 8, "dtype": place.dtype_name}
    for rows in _rows(place, size):
        work = functools.partial(decode_chunks, model, _inputs(model, rows), 1.0, list(range(rows)))
        peak = peak_memory(work, place.device, model.parameters())
        flops = operations(place, size.layers, "chunk", rows)[0]
        facts[f"batch_{rows}"] = rate_facts(flops, repeat(work, place))
    return {**size.to_json(), **facts, **memory_facts(peak, size.estimated)}


def _decisions(place: Place, model: OpenVLA, size: Size) -> dict[str, Any]:
    """Seconds and memory of decoding one decision, and a batch of them."""
    ids = np.arange(31744, 32000)
    facts: dict[str, Any] = {"tokens_a_decision": ACTION_DIM, "dtype": place.dtype_name}
    for rows in _rows(place, size):
        for kind, tokens in _KINDS.items():
            work = functools.partial(
                decode_actions, model, _inputs(model, rows), tokens, 1.0, list(range(rows)), action_ids=ids
            )
            memory = peak_memory(work, place.device, model.parameters())
            if kind == "decode":
                peak = memory
            flops = operations(place, size.layers, kind, rows)[0]
            facts[f"{kind}_batch_{rows}"] = rate_facts(flops, repeat(work, place))
    return facts | memory_facts(peak, size.estimated)


def update(place: Place) -> dict[str, Any]:
    """One update by preferences between whole trajectories, two pairs of them, of adapters of rank 32."""
    size = fitting(place, _batch(place), lambda layers, rows: update_estimate(place, layers, rows).memory.peak)
    return {**size.to_json(), **_update(place, build(place, size.layers), size)}


def _update(place: Place, model: OpenVLA, size: Size) -> dict[str, Any]:
    parameters = adapt(model)
    optimizer = torch.optim.AdamW(parameters, lr=TrainSettings.lr)
    start_moments(optimizer, parameters)
    each = 2 if place.tiny else FRAMES_A_SIDE
    frames = 2 * PAIRS * each
    pixels, prompt, tokens = random_frames(model, frames)
    sides = torch.arange(frames).split(each)
    reference = torch.full((PAIRS,), -each * tokens.shape[1] * math.log(32064), dtype=torch.float64)
    comparisons = Comparisons(frames, sides[::2], sides[1::2], reference, reference.clone())
    settings = LossSettings(anchor=TrainSettings.anchor)

    def logps(rows: Tensor) -> Tensor:
        return model.action_logps(PolicyInputs(pixels[rows], (prompt,) * len(rows)), tokens[rows]).sum(1)

    def step() -> None:
        nonlocal loss
        loss = one_pass_gradient(
            logps, comparisons, lambda sums: preference_loss(sums, settings), size.batch, parameters
        ).loss
        optimizer.step()

    loss = math.nan
    before = parameters[0].detach().clone()
    held = [*model.parameters(), *(value for state in optimizer.state.values() for value in state.values())]
    peak = peak_memory(step, place.device, held)
    norm = norm_of([parameter.grad for parameter in parameters])
    if not (math.isfinite(loss) and 0 < norm < math.inf) or torch.equal(before, parameters[0]):
        raise GrapeError(f"The update is not sound: loss {loss}, length of the gradient {norm}.")
    estimate = update_estimate(place, size.layers, size.batch)
    rates = rate_facts(frames * estimate.step_flops, repeat(step, place, most=5, enough=20))
    return {
        "lora_rank": RANK,
        "dtype": f"{place.dtype_name} weights, float32 adapters",
        "pairs": PAIRS,
        "frames": frames,
        "trainable_parameters": estimate.trainable_parameters,
        **rates,
        "frames_per_second": float(f"{frames / rates['seconds']['median']:.5g}"),
        **memory_facts(peak, size.estimated),
        "loss": loss,
        "gradient_norm": norm,
    }


def attention_kernels(place: Place) -> dict[str, Any]:
    """PyTorch's kernels for attention at the language model's shape: causal, and with a mask as chunks need it."""
    config = place.config()
    heads = int(config.text["num_attention_heads"])
    shape = (_batch(place), heads, config.patches + 32, config.hidden // heads)
    values = torch.randn(3, *shape, device=place.device, dtype=place.dtype).requires_grad_()
    mask = torch.ones(shape[0], 1, shape[2], shape[2], dtype=torch.bool, device=place.device)
    facts: dict[str, Any] = {"shape": list(shape), "dtype": place.dtype_name}
    for name, given in {"causal": {"is_causal": True}, "masked": {"attn_mask": mask}}.items():
        for backend in _KERNELS:

            def both(backend: str = backend, given: Mapping[str, Any] = given) -> None:
                with sdpa_kernel(getattr(SDPBackend, backend)):
                    F.scaled_dot_product_attention(*values, **given).sum().backward()

            try:
                both()
            except RuntimeError as error:  # this kernel cannot compute it; the next one may
                facts[f"{name} {backend.lower()}"] = {"missing": str(error).splitlines()[0][:200]}
                continue
            facts[f"{name} {backend.lower()}"] = repeat(both, place, least=5, enough=1)
    return facts


def flash_attention(place: Place) -> dict[str, Any]:
    """`--attention flash-attention-2` beside `sdpa` on the same weights: log-probabilities and seconds."""
    precision = choose_precision(str(place.device), "auto", "flash-attention-2", False, "bfloat16")
    size = fitting(place, _batch(place), functools.partial(decision_memory, place, "decode"))
    plain = build(place, size.layers)
    flash = empty_model(place.config(size.layers), precision.attention)
    flash.load_state_dict(plain.state_dict(), assign=True)
    materialize_buffers(flash)
    flash.eval()
    pixels, prompt, tokens = random_frames(plain, size.batch)
    prompts = tuple(prompt if row % 2 else prompt[:-5] for row in range(size.batch))  # padding in every other row
    logps = {}
    for name, model in {"sdpa": plain, "flash": flash}.items():
        logps[name] = _without_graph(model, PolicyInputs(pixels, prompts), tokens)
    difference = (logps["sdpa"] - logps["flash"]).abs()
    facts = {
        "tokens": difference.numel(),
        "mean_difference_nats_a_token": float(difference.mean()),
        "largest_difference_nats_a_token": float(difference.max()),
    }
    for name, model in {"sdpa": plain, "flash": flash}.items():
        work = functools.partial(_without_graph, model, PolicyInputs(pixels, prompts), tokens)
        facts[f"logps_{name}"] = repeat(work, place, enough=5)
    return {**size.to_json(), **facts, "flash_attention_2": _decisions(place, flash, size)}


def _without_graph(model: OpenVLA, inputs: PolicyInputs, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model.action_logps(inputs, tokens)


def four_bit(place: Place) -> dict[str, Any]:
    """`--load-in-4bit`: seconds to make the weights, decisions, and an update of adapters beside them."""
    choose_precision(str(place.device), "auto", "sdpa", True, "bfloat16")

    def needed(layers: int, rows: int) -> int:
        whole = max(decision_memory(place, "decode", layers, rows), update_estimate(place, layers, rows).memory.peak)
        return whole - saved_by_4bit(place, layers)

    size = fitting(place, _batch(place), needed)
    saved = saved_by_4bit(place, size.layers)
    began = time.perf_counter()
    model = build_4bit(place, size.layers)
    torch.cuda.synchronize()
    built = time.perf_counter() - began
    deciding = decision_memory(place, "decode", size.layers, size.batch) - saved
    training = update_estimate(place, size.layers, size.batch).memory.peak - saved
    return {
        **size.to_json(),
        "build_seconds": round(built, 2),
        "decode": _decisions(place, model, Size(size.layers, size.batch, deciding)),
        "update": _update(place, model, Size(size.layers, size.batch, training)),
    }


def _batch(place: Place) -> int:
    return 2 if place.tiny else BATCH


def _rows(place: Place, size: Size) -> list[int]:
    return [size.batch] if place.tiny else sorted({1, size.batch})


def _inputs(model: OpenVLA, rows: int) -> PolicyInputs:
    pixels, prompt, _ = random_frames(model, rows)
    return PolicyInputs(pixels.to(model.device), (prompt,) * rows)
