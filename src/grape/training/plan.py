"""What a run will do and take, from its settings, its pairs and the episodes' facts alone; ``--dry-run`` shows it."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch

from grape.core.errors import DataError
from grape.core.events import SILENT
from grape.core.seeds import derive_rng
from grape.core.trajectories import EpisodeMeta
from grape.policies.base import ImitationPolicy, TrainablePolicy, WeightlessNetwork
from grape.policies.opening import opening_options, read_norm_stats
from grape.policies.registry import read_policy
from grape.policies.types import OpeningOptions
from grape.store import EpisodeSource
from grape.training.batches import BatchSampler
from grape.training.decision_axis import DecisionAxis
from grape.training.distributed import device_of
from grape.training.estimate import estimate_training
from grape.training.initial_policy import preview_policy
from grape.training.items import ComparisonItem, Sample, make_items
from grape.training.lora import add_adapters, check_start, parameter_counts
from grape.training.meta_profile import forward_flops
from grape.training.process_group import plan_processes
from grape.training.settings import SftSettings, TrainSettings
from grape.training.sources import TrainingData

__all__ = [
    "choose_micro_batch",
    "gradient_mode",
    "plan_schedule",
    "plan_sft",
    "plan_training",
    "saved_by_quantization",
    "schedule_facts",
    "split_samples",
    "starting_options",
]

# A backward costs about twice a forward: one product for the inputs' gradient, one for the weights'.
_FORWARD_BACKWARD = 3


def split_samples(settings: TrainSettings, samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Samples to train on and samples to measure the loss on; those of one initial state stay together.

    Raises:
        DataError: All pairs of one part weigh 0, so that it has no mean, while pairs of the other do not.
    """
    states = sorted({(sample.task, sample.initial_state) for sample in samples})
    share = max(1, round(settings.holdout * len(states))) if settings.holdout else 0
    held_count = min(share, len(states) - 1)
    order = derive_rng(settings.seed, "holdout").permutation(len(states))
    held = {states[position] for position in order[:held_count]}
    groups: tuple[list[Sample], list[Sample]] = ([], [])
    for sample in samples:
        groups[(sample.task, sample.initial_state) in held].append(sample)
    if settings.method != "filtered-bc" and any(sample.weight for sample in samples):
        for group, part in zip(groups, ("left to train on", "kept out"), strict=True):
            if group and not any(sample.weight for sample in group):
                raise DataError(
                    f"All {len(group)} pairs that --holdout {settings.holdout:g} has {part} weigh 0.",
                    "Give another --seed or --holdout, or leave --holdout out.",
                )
    return groups


def plan_schedule(
    settings: TrainSettings,
    samples: Sequence[Sample],
    spans: Mapping[str, tuple[int, int]],
    axis: DecisionAxis,
    succeeded: Container[str] | None = None,
    *,
    even: bool = True,
) -> tuple[Sequence[ComparisonItem], BatchSampler, float]:
    """Items, their order, and mean decisions of a side; see :func:`~grape.training.items.make_items`."""
    items, per_pair = make_items(settings.method, samples, spans, settings.window, settings.stride, succeeded, axis)
    per_update = max(1, round(settings.pairs_per_update * per_pair))
    schedule = BatchSampler.plan(
        len(items), per_update, settings.epochs, settings.max_updates, settings.seed, repeat=False, even=even
    )
    first_sides = (item.chosen if item.chosen[0] < item.chosen[1] else item.rejected for item in items)
    per_side = sum(axis.count(side) for side in first_sides) / len(items)
    return items, schedule, per_side


def gradient_mode(settings: TrainSettings, frames_per_side: float) -> Literal["one-pass", "two-pass"]:
    """Which way to the exact gradient.

    One pass needs two buffers of the trainable parameters' size and cannot mix sides in a micro-batch, so it pays for
    adapters whose micro-batches a single side fills. Windows overlap, so only two passes compute each of their frames
    once; sharded parameters need equally many calls; KTO's reference point needs all sums of an update.
    """
    if settings.gradient != "auto":
        return settings.gradient
    if settings.window or settings.sharding == "full" or not settings.lora_rank or settings.method == "kto":
        return "two-pass"
    return "one-pass" if settings.micro_batch <= frames_per_side else "two-pass"


def choose_micro_batch(chosen: int, parameters: int) -> int:
    """Frames that go through the network at once.

    Activations grow with the network: 256 frames of nano need 0.4 GB, 8 frames of OpenVLA-7B 21 GB.

    Args:
        chosen: The user's choice; 0 chooses by size.
        parameters: Number of parameters of the network.
    """
    return chosen or (256 if parameters < 10**7 else 32 if parameters < 2 * 10**8 else 8)


def schedule_facts(
    settings: TrainSettings,
    data: TrainingData,
    items: Sequence[ComparisonItem],
    schedule: BatchSampler,
    axis: DecisionAxis,
) -> dict[str, Any]:
    """Numbers of pairs, episodes, frames and updates for summaries."""
    return {
        "method": settings.method,
        **({} if settings.unpaired else {"pairs": len(data.samples)}),
        "episodes": len(data.episodes),
        **({"replayed_episodes": len(data.replayed)} if settings.replay else {}),
        "frames_per_epoch": _frames_of_epoch(schedule, items, axis),
        "units_per_update": schedule.per_update,
        "updates": schedule.updates,
    }


def _frames_of_epoch(schedule: BatchSampler, items: Sequence[ComparisonItem], axis: DecisionAxis) -> int:
    """Frames that an update needs, summed over the first epoch; see :func:`~grape.training.batches.collate`."""
    total = 0
    for update in range(min(schedule.per_epoch, schedule.updates)):
        frames: set[tuple[int, int]] = set()
        for number in schedule.batch(update):
            frames.update(axis.cut(items[number].chosen), axis.cut(items[number].rejected))
        total += len(frames)
    return total


def starting_options(settings: TrainSettings) -> OpeningOptions:
    """How the policy that a run starts from is opened."""
    return opening_options(settings, norm_stats=read_norm_stats(settings.norm_stats))


def plan_training(settings: TrainSettings, data: TrainingData) -> dict[str, Any]:
    """What a run would do and take; nothing is written, and neither weights nor images are read.

    Where the policy's type opens no policy without its weights, or has no network to profile, nothing is said of
    memory and operations, and ``estimate`` says why.

    Raises:
        CompatibilityError: The episodes were decided or recorded otherwise than the policy does.
        SettingsError: The policy is an adapter that these settings cannot train on.
    """
    check_start(settings.policy, settings, device_of(settings.device))
    policy = read_policy(settings.policy, starting_options(settings))
    spec = None if policy is None else data.check_policy(policy)
    steps = data.load(SILENT, 0.0, spec)
    axis = steps.axis
    if policy is not None:
        micro_batch = choose_micro_batch(settings.micro_batch, parameter_counts(policy)["parameters"])
        settings = replace(settings, micro_batch=micro_batch)
    training, held = split_samples(settings, data.samples)
    items, schedule, per_side = plan_schedule(settings, training, steps.step_spans, axis)
    facts = schedule_facts(settings, data, items, schedule, axis)
    mode = gradient_mode(settings, per_side) if settings.micro_batch else settings.gradient
    epochs = max(1, schedule.updates / schedule.per_epoch)
    return {
        "dry_run": True,
        **facts,
        "held_out_episodes" if settings.unpaired else "held_out_pairs": len(held),
        "steps": axis.steps,
        **({} if len(steps) == axis.steps else {"decisions": len(steps), "chunk": steps.tokens_NKD.shape[1]}),
        "gradient": mode,
        **_estimate(settings, data, policy, mode, round(facts["frames_per_epoch"] * epochs)),
        **plan_processes(settings),
        "out": str(settings.out),
    }


def _estimate(
    settings: TrainSettings, data: TrainingData, policy: TrainablePolicy | None, mode: Any, frames: int
) -> dict[str, Any]:
    """Operations and memory of a training, where the policy's network can be profiled."""
    network = None if policy is None else policy.weightless(torch.float32)
    if policy is None or network is None:
        return {"estimate": "none: policies of this type cannot be profiled without their weights"}
    on_gpu = settings.device.startswith("cuda") or (settings.device == "auto" and torch.cuda.is_available())
    dtype: Literal["float32", "bfloat16"] = "float32"
    if settings.dtype != "auto":
        dtype = settings.dtype
    elif on_gpu and (network.storage_dtype == "bfloat16" or not settings.lora_rank):
        dtype = "bfloat16"
    saved_gb = saved_by_quantization(network, dtype) if settings.load_in_4bit else 0.0
    towers_frozen = bool(settings.lora_rank) and settings.lora_targets != "all"
    estimate = estimate_training(
        lambda weights: cast(WeightlessNetwork, policy.weightless(weights)),
        instruction_tokens=max(policy.prompt_length(meta.instruction) for meta in data.metas()),
        micro_batch=settings.micro_batch,
        frames=frames,
        lora_rank=settings.lora_rank,
        lora_targets=policy.lora_targets(settings.lora_targets) if settings.lora_rank else (),
        dtype=dtype,
        gradient=mode,
        terms=2 if settings.is_anchored and settings.sharding == "none" else 1,
        activation_checkpointing=settings.activation_checkpointing,
        cached_features=towers_frozen and bool(settings.feature_cache_gb),
        memory_gb=settings.memory_gb + saved_gb if settings.memory_gb else None,
    ).to_json()
    estimate["memory_gb"] = settings.memory_gb or None
    estimate["peak_memory_gb"] = round(estimate["peak_memory_gb"] - saved_gb, 3)
    estimate["memory_parts_gb"]["weights"] = round(estimate["memory_parts_gb"]["weights"] - saved_gb, 3)
    return {"dtype": dtype, **estimate}


def saved_by_quantization(network: WeightlessNetwork, dtype: str) -> float:
    """Memory that 4-bit weights of the language model's linear layers save, GB.

    They take half a byte each and a float32 scale for 64 (NF4, arXiv 2305.14314).
    """
    weights = dict(network.module.named_parameters())
    count = sum(weights[f"{name}.weight"].numel() for name in network.quantized)
    return count * ((2 if dtype == "bfloat16" else 4) - 0.5 - 4 / 64) / 1e9


def plan_sft(
    settings: SftSettings,
    stores: Sequence[EpisodeSource],
    metas: Sequence[Sequence[EpisodeMeta]],
    start: ImitationPolicy | None,
) -> dict[str, Any]:
    """What a run would do, from the episodes' facts alone.

    Args:
        settings: What the verb was told.
        stores: Demonstrations.
        metas: Facts of the episodes to learn from, store by store.
        start: The checkpoint to continue, without its weights; None for a new policy.
    """
    every = [meta for some in metas for meta in some]
    count = sum(meta.steps for meta in every)
    decisions = sum(_decisions(store, some) for store, some in zip(stores, metas, strict=True))
    held = min(round(settings.holdout * len(every)), len(every) - 1)
    training = round(decisions * (1 - held / len(every)))
    schedule = BatchSampler.plan(
        training, settings.batch_size, settings.epochs, settings.max_updates, settings.seed, repeat=True
    )
    plan: dict[str, Any] = {
        "dry_run": True,
        "episodes": len(every),
        "held_out_episodes": held,
        "steps": count,
        **({} if decisions == count else {"decisions": decisions}),
        "shuffle_episodes": settings.shuffle_episodes,
        "updates": schedule.updates,
    }
    policy = start
    if settings.policy is None:
        policy = preview_policy(settings, stores, metas)
    elif policy is not None:
        check_start(settings.policy, settings, device_of(settings.device))
        if settings.lora_rank:
            add_adapters(policy, settings.lora_rank, settings.lora_alpha, settings.seed, settings.lora_targets)
    if policy is not None:
        plan |= parameter_counts(policy)
        if forward := forward_flops(policy, every[0].instruction):
            frames = schedule.updates * settings.batch_size
            plan["tflop_forward_per_frame"] = forward / 1e12
            plan["tflop"] = _FORWARD_BACKWARD * frames * forward / 1e12
    return {**plan, **plan_processes(settings), "out": str(settings.out)}


def _decisions(store: EpisodeSource, metas: Sequence[EpisodeMeta]) -> int:
    """Decisions of some episodes of a store: control steps, unless its policy decided in chunks."""
    if "chunks" not in store.contract:
        return sum(meta.steps for meta in metas)
    return sum(len(store.decisions(meta.episode_id).executed) for meta in metas)
