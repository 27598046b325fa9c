"""Which parameters train: all of them, or low-rank adapters (LoRA, arXiv 2106.09685) through PEFT; and saving either.

The result of a run is one folder that ``--policy`` takes. For full training that is a checkpoint in the published
layout; for adapters it is PEFT's layout with a pointer to the base policy, which is not copied.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from grape.core.atomic_folders import atomic_folder
from grape.core.errors import SettingsError
from grape.core.files import write_json
from grape.core.seeds import derive_seed
from grape.policies.openvla import load_policy, read_policy_config, save_policy
from grape.policies.openvla.adapters import adapter_base, write_pointer
from grape.policies.openvla.checkpoint import empty_model, save_tensors
from grape.training.settings import TrainerSettings

if TYPE_CHECKING:
    from grape.policies.openvla import OpenVLAPolicy

__all__ = [
    "LoraTargets",
    "adapter_home",
    "add_adapters",
    "open_for_training",
    "open_with_precision",
    "parameter_counts",
    "save_result",
    "wrap_with_adapters",
]


LoraTargets = Literal["language", "language+projector", "all"]


def open_for_training(path: Path, unnorm_key: str, **precision: Any) -> "OpenVLAPolicy":
    """Open a policy whose weights are about to change; an adapter is merged into its base.

    Args:
        path: The policy's folder.
        unnorm_key: Normalization statistics to use; empty picks the only ones.
        precision: Further arguments of :func:`~grape.policies.openvla.load_policy`.
    """
    policy = load_policy(path, unnorm_key=unnorm_key or None, merge=True, **precision)
    if adapter_base(path) is not None:
        # PEFT froze everything; the network itself freezes only what it never reads.
        fresh = dict(empty_model(policy.config).named_parameters())
        for name, parameter in policy.model.named_parameters():
            parameter.requires_grad_(fresh[name].requires_grad)
    return policy


def open_with_precision(
    path: Path | None,
    settings: TrainerSettings,
    unnorm_key: str,
    device: str,
    center_crop: bool | None = None,
    norm_stats: Mapping[str, Any] | None = None,
) -> tuple["OpenVLAPolicy", torch.dtype | None]:
    """Open the policy that a run starts from in the precision that fits what is trained.

    Frozen weights are held in ``dtype`` (``"auto"``: as at collection, float32 on a CPU and as stored on a GPU) with
    float32 adapters beside them. Weights that train are float32, since in bfloat16 most steps of a fine-tuning's size
    are rounded away; a bfloat16 run then only computes in it.

    Args:
        path: Folder of the policy.
        settings: What the trainer was told.
        unnorm_key: Normalization statistics to use; empty picks the only ones.
        device: Where to compute.
        center_crop: As for :func:`~grape.policies.openvla.load_policy`.
        norm_stats: As for :func:`~grape.policies.openvla.load_policy`.

    Returns:
        The policy, and the type to compute in where that differs from the weights' (for ``torch.autocast``).
    """
    if path is None:
        raise SettingsError("There is no policy to start from.", "Give --policy.")
    dtype = settings.dtype
    if dtype == "auto" and device != "cpu" and not settings.lora_rank:
        dtype = "bfloat16"
    policy = open_for_training(
        path,
        unnorm_key,
        device=device,
        dtype=dtype if settings.lora_rank else "float32",
        attention=settings.attention,
        load_in_4bit=settings.load_in_4bit,
        center_crop=center_crop,
        norm_stats=norm_stats,
    )
    return policy, torch.bfloat16 if dtype == "bfloat16" and not settings.lora_rank else None


def add_adapters(
    policy: "OpenVLAPolicy",
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
        policy.adapter = wrap_with_adapters(policy.model, policy.lora_targets(targets), rank, alpha).eval()


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


def parameter_counts(policy: "OpenVLAPolicy") -> dict[str, int]:
    """Number of parameters, and of those that train."""
    parameters = list(policy.model.parameters())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
    }


def adapter_home(policy: "OpenVLAPolicy", start: Path, out: Path) -> Path:
    """The folder that adapters trained from ``start`` point to; call before :func:`add_adapters`.

    That is ``start`` itself, or, where ``start`` is an adapter already, a merged copy of it in ``out/base``.
    """
    if adapter_base(start) is None:
        return start
    if not (out / "base").exists():
        save_policy(policy, out / "base")
    return out / "base"


def save_result(policy: "OpenVLAPolicy", out: Path, home: Path | None) -> None:
    """Save a trained policy as ``out/policy``, which appears when complete.

    Args:
        policy: The trained policy.
        out: Output folder of the run.
        home: What adapters point to (see :func:`adapter_home`); None where all parameters were trained.
    """
    if home is None:
        save_policy(policy, out / "policy")
    else:
        _save_adapter(policy, out / "policy", home)


def _save_adapter(policy: "OpenVLAPolicy", folder: Path, home: Path) -> None:
    from peft import get_peft_model_state_dict

    tensors = {
        name: value.detach().cpu().contiguous() for name, value in get_peft_model_state_dict(policy.adapter).items()
    }
    with atomic_folder(folder) as temporary:
        save_tensors(tensors, temporary / "adapter_model.safetensors")
        write_json(temporary / "adapter_config.json", _plain(policy.adapter.peft_config["default"].to_dict()))
        write_pointer(temporary, home, place=folder, changed=(read_policy_config(home), policy.config))


def _plain(value: Any) -> Any:
    """JSON value; PEFT keeps names in sets, whose order would differ from run to run."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)
