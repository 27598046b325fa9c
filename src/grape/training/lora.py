"""A policy that trains: opened, all parameters or low-rank adapters (LoRA, arXiv 2106.09685; PEFT) chosen, and saved.

The result of a run is one folder that ``--policy`` takes. For full training that is a whole checkpoint; for adapters of
policy types that keep them apart it is PEFT's layout with a pointer to the base policy, which is not copied.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from grape.core.atomic_folders import atomic_folder
from grape.core.errors import CompatibilityError, PolicyError, SettingsError
from grape.core.runs import is_complete
from grape.core.seeds import derive_seed
from grape.policies.base import LoraTargets, TrainablePolicy
from grape.policies.registry import open_policy, recognize_policy
from grape.policies.types import AdapterInfo, OpeningOptions
from grape.training.settings import SftSettings, TrainerSettings, TrainSettings

__all__ = [
    "add_adapters",
    "check_start",
    "computing_type",
    "open_for_training",
    "parameter_counts",
    "prepare_parameters",
    "save_result",
    "wrap_with_adapters",
]


def open_for_training(
    path: Path,
    settings: TrainerSettings,
    options: OpeningOptions,
    device: str,
) -> TrainablePolicy:
    """Open the policy that a run starts from in the precision that fits what is trained.

    A run with adapters that starts from an adapter trains that one on: merging it would round its changes away where
    weights are held or stored in less than float32. Only a run of all parameters, in float32 throughout, merges it.

    Frozen weights are held in ``dtype`` (``"auto"``: as at collection, float32 on a CPU and as stored on a GPU) with
    float32 adapters beside them. Weights that train are float32, since in bfloat16 most steps of a fine-tuning's size
    are rounded away; a bfloat16 run then only computes in it (:func:`computing_type`).

    Args:
        path: Folder of the policy.
        settings: What the trainer was told.
        options: Statistics, crop, chunks; precision and device are the trainer's.
        device: Where to compute.

    Raises:
        SettingsError: The policy is an adapter that these settings cannot train on (see :func:`check_start`).
        CompatibilityError: Policies of its type cannot be trained.
        PolicyError: Its weights are not in float32 although all of them train.
    """
    if not is_complete(settings.out):  # a finished run is told, however it was begun
        check_start(path, settings, device)
    policy = open_policy(
        path,
        replace(
            options,
            merge=not settings.lora_rank,
            device=device,
            dtype=settings.dtype if settings.lora_rank else "float32",
            attention=settings.attention,
            load_in_4bit=settings.load_in_4bit,
        ),
    )
    if not isinstance(policy, TrainablePolicy):
        raise CompatibilityError(
            f"{path} cannot be trained: its type gives actions, but no log-probabilities with a gradient.",
            "Train a policy whose class derives from grape.policies.TrainablePolicy.",
        )
    policy.module.eval()  # the gradient is exact without dropout only
    others = {parameter.dtype for parameter in policy.module.parameters() if parameter.requires_grad} - {torch.float32}
    if others and not settings.lora_rank:
        raise PolicyError(
            f"{path} was opened with weights in {', '.join(sorted(map(str, others)))}; weights that train are float32.",
            "Its policy type must open it in the type asked for (OpeningOptions.dtype).",
        )
    return policy


def check_start(path: Path, settings: TrainerSettings, device: str) -> None:
    """Refuse a start from an adapter that would have to be merged with loss, or that is not the adapter asked for.

    Args:
        path: Folder of the policy.
        settings: What the trainer was told.
        device: Where to compute.

    Raises:
        SettingsError: Says what the adapter is and which settings train it on.
    """
    adapter = _adapter_of(path)
    if adapter is None:
        return
    rank, merged = settings.lora_rank, "or merge it with 'grape export merged' and collect with the result."
    if not rank:
        if adapter.storage_dtype == "float32" and computing_type(settings, device) is None:
            return
        raise SettingsError(
            f"{path} is an adapter, and --lora-rank 0 would merge it into weights stored or computed in fewer than 32 "
            "bits.",
            f"Give --lora-rank {adapter.rank} to train the adapter on, {merged}",
        )
    targets = adapter.targets or settings.lora_targets
    options: list[tuple[str, Any, Any]] = [
        ("rank", rank, adapter.rank),
        ("targets", settings.lora_targets, targets),
    ]
    if settings.lora_alpha:
        options.append(("alpha", settings.lora_alpha, adapter.alpha))
    for name, given, trained in options:
        if given != trained:
            raise SettingsError(
                f"{path} is an adapter with {name} {trained}, and --lora-{name} is {given}.",
                f"Give --lora-{name} {trained} to train the adapter on, {merged}",
            )


def _adapter_of(path: Path) -> AdapterInfo | None:
    policy_type, place = recognize_policy(path)
    return policy_type.adapter(place)


def computing_type(settings: TrainerSettings, device: str) -> torch.dtype | None:
    """What a run computes in (for ``torch.autocast``) where that differs from its weights' type."""
    lower = settings.dtype == "bfloat16" or (settings.dtype == "auto" and device != "cpu")
    return torch.bfloat16 if lower and not settings.lora_rank else None


def prepare_parameters(policy: TrainablePolicy, settings: SftSettings | TrainSettings) -> Path | None:
    """Add adapters, or make those of the start trainable, and switch activation checkpointing on, as the settings say.

    Args:
        policy: The policy to train, changed in place.
        settings: What the verb was told.

    Returns:
        What adapters point to: the start, or where that is an adapter, its base; None where all parameters train, or
        where the policy's type keeps no adapters apart, so that they are merged in the end.

    Raises:
        CompatibilityError: Release 0.1 began the run from an adapter, which it merged.
        SettingsError: The policy takes no adapters, or cannot compute activations again.
    """
    base, path = None, settings.policy
    if settings.lora_rank and path is not None:
        adapter = _adapter_of(path)
        if adapter is not None and (settings.out / "base").exists():
            raise CompatibilityError(
                f"{settings.out} was begun by release 0.1, which merged the adapter {path} and trained another one.",
                "Choose another --out: today the same adapter is trained on.",
            )
        if recognize_policy(path)[0].keeps_adapters:
            base = path if adapter is None else adapter.base
        if policy.adapter is None:
            add_adapters(policy, settings.lora_rank, settings.lora_alpha, settings.seed, settings.lora_targets)
        else:
            for name, parameter in policy.module.named_parameters():
                parameter.requires_grad_(".lora_" in name)
    if settings.activation_checkpointing:
        policy.checkpoint_activations()
    return base


def add_adapters(
    policy: TrainablePolicy,
    rank: int,
    alpha: float,
    seed: int,
    targets: LoraTargets = "language+projector",
) -> None:
    """Freeze the network and put trainable low-rank adapters beside its linear layers, in place.

    The second factor starts at zero, so the policy acts as before. The target layers are named one by one
    (``policy.lora_targets()``): what "all linear layers" means changed between releases of PEFT.

    Args:
        policy: The policy; ``policy.adapter`` is PEFT's wrapper afterwards.
        rank: Rank of the adapters, positive.
        alpha: Scale is ``alpha / rank``; 0 means twice the rank.
        seed: Seed of the first factor.
        targets: Which linear layers.

    Raises:
        SettingsError: PEFT is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "adapters"))
        policy.adapter = wrap_with_adapters(policy.module, policy.lora_targets(targets), rank, alpha).eval()


def wrap_with_adapters(model: nn.Module, targets: list[str], rank: int, alpha: float) -> Any:
    """Freeze a network and put low-rank adapters beside some of its linear layers, in place.

    Args:
        model: The network.
        targets: Full names of the layers.
        rank: Rank of the adapters, positive.
        alpha: Scale is ``alpha / rank``; 0 means twice the rank.

    Returns:
        PEFT's wrapper around the same network.

    Raises:
        SettingsError: PEFT is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise SettingsError("Adapters need PEFT.", "pip install 'grape-vla[train]'") from error
    config = LoraConfig(r=rank, lora_alpha=alpha or 2 * rank, lora_dropout=0.0, bias="none", target_modules=targets)
    wrapper: Any = model
    return get_peft_model(wrapper, config)


def parameter_counts(policy: TrainablePolicy) -> dict[str, int]:
    """Number of parameters, and of those that train."""
    parameters = list(policy.module.parameters())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
    }


def save_result(policy: TrainablePolicy, out: Path, base: Path | None) -> None:
    """Save a trained policy as ``out/policy``, which appears when complete.

    Args:
        policy: The trained policy; adapters that nothing keeps apart are merged into it.
        out: Output folder of the run.
        base: What adapters point to (see :func:`prepare_parameters`); None saves the whole policy.
    """
    if base is None and policy.adapter is not None:
        policy.adapter.merge_and_unload()
        policy.adapter = None
    with atomic_folder(out / "policy") as temporary:
        if base is None:
            policy.save(temporary)
        else:
            recognize_policy(base)[0].save_adapter(policy, temporary, base, out / "policy")
