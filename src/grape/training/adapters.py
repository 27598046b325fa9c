"""Which parameters train: all of them, or low-rank adapters (LoRA, arXiv 2106.09685) through PEFT; and saving either.

The result of a run is one folder that ``--policy`` takes. For full training that is a checkpoint in the published
layout; for adapters it is PEFT's layout with a pointer to the base policy, which is not copied.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from grape.core.errors import SettingsError
from grape.core.files import write_json
from grape.core.seeds import derive_seed
from grape.policies.openvla import load_policy, save_policy
from grape.policies.openvla.adapters import adapter_base
from grape.policies.openvla.checkpoint import atomic_folder, empty_model

if TYPE_CHECKING:
    from grape.policies.openvla import OpenVLAPolicy

__all__ = ["adapter_home", "add_adapters", "open_for_training", "parameter_counts", "save_result"]


def open_for_training(path: Path, unnorm_key: str) -> "OpenVLAPolicy":
    """Open a policy whose weights are about to change; an adapter is merged into its base."""
    policy = load_policy(path, unnorm_key=unnorm_key or None, merge=True)
    if adapter_base(path) is not None:
        # PEFT froze everything; the network itself freezes only what it never reads.
        fresh = dict(empty_model(policy.config).named_parameters())
        for name, parameter in policy.model.named_parameters():
            parameter.requires_grad_(fresh[name].requires_grad)
    return policy


def add_adapters(policy: "OpenVLAPolicy", rank: int, alpha: float, seed: int) -> None:
    """Freeze the network and put trainable low-rank adapters beside its linear layers, in place.

    The second factor starts at zero, so the policy acts as before. The target layers are named one by one
    (``policy.lora_targets()``): what "all linear layers" means changed between releases of PEFT.

    Args:
        policy: The policy; ``policy.adapter`` is PEFT's wrapper afterwards.
        rank: Rank of the adapters, positive.
        alpha: Scale is ``alpha / rank``; 0 means twice the rank.
        seed: Seed of the first factor.

    Raises:
        SettingsError: PEFT is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise SettingsError("Adapters need PEFT.", "pip install 'grape-vla[train]'") from error
    config = LoraConfig(
        r=rank, lora_alpha=alpha or 2 * rank, lora_dropout=0.0, bias="none", target_modules=policy.lora_targets()
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "adapters"))
        wrapper: Any = get_peft_model(policy.model, config)
    policy.adapter = wrapper.eval()


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
        _save_adapter(policy, out / "policy", Path(os.path.relpath(home, out / "policy")))


def _save_adapter(policy: "OpenVLAPolicy", folder: Path, base: Path) -> None:
    from peft import get_peft_model_state_dict

    tensors = {
        name: value.detach().cpu().contiguous() for name, value in get_peft_model_state_dict(policy.adapter).items()
    }
    with atomic_folder(folder) as temporary:
        save_file(tensors, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
        write_json(temporary / "adapter_config.json", _plain(policy.adapter.peft_config["default"].to_dict()))
        write_json(temporary / "grape_adapter.json", {"base": base.as_posix()})


def _plain(value: Any) -> Any:
    """JSON value; PEFT keeps names in sets, whose order would differ from run to run."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)
