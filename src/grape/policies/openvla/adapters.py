"""LoRA adapters in PEFT's layout: attached beside the weights, or merged into them.

An adapter folder holds PEFT's ``adapter_config.json`` and ``adapter_model.safetensors``, and ``grape_adapter.json``
with one key, ``base``: the policy it belongs to, a path that is absolute or relative to the adapter's folder.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from grape.core.errors import DataError, SettingsError
from grape.core.files import read_json

if TYPE_CHECKING:
    from grape.policies.openvla.policy import OpenVLAPolicy

__all__ = ["adapter_base", "attach_adapter", "merged_weights"]

_POINTER = "grape_adapter.json"
_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"


def adapter_base(folder: Path) -> Path | None:
    """The policy an adapter folder belongs to, or None if ``folder`` holds no adapter.

    Raises:
        DataError: The pointer to the base is missing or malformed, or leads nowhere.
    """
    if not (folder / _CONFIG).is_file():
        return None
    data = read_json(folder / _POINTER)
    if not isinstance(data, dict) or not isinstance(data.get("base"), str):
        raise DataError(f"{folder / _POINTER} must hold {{'base': path}}.", "Write the path of the base policy there.")
    base: Path = folder / data["base"]
    if not base.is_dir():
        raise DataError(
            f"The base policy of adapter {folder} is not at {base}.",
            f"Move it there, or mend 'base' in {folder / _POINTER}.",
        )
    return base


def attach_adapter(policy: "OpenVLAPolicy", folder: Path, *, merge: bool = False) -> "OpenVLAPolicy":
    """Add a trained LoRA adapter to a policy, in place.

    Args:
        policy: The base policy; its network is changed.
        folder: Folder with PEFT's two files.
        merge: Add the adapter into the weights, instead of keeping it beside them. A kept adapter can be switched off
            with ``policy.adapter.disable_adapter()`` and computes in float32.

    Returns:
        The same policy.

    Raises:
        SettingsError: PEFT is not installed, or the adapter is of another kind than LoRA.
        DataError: A file is missing or torn, or the adapter does not fit the policy.
    """
    try:
        from peft import PeftModel
    except ModuleNotFoundError as error:
        raise SettingsError("Adapters need PEFT.", "pip install 'grape-vla[train]'") from error
    for name in (_CONFIG, _WEIGHTS):
        if not (folder / name).is_file():
            raise DataError(f"Adapter folder {folder} lacks {name}.", "Save the adapter again.")
    _check_kind(folder)
    _check_names(folder, policy.model)
    trainable = {name: parameter.requires_grad for name, parameter in policy.model.named_parameters()}
    try:
        wrapper: Any = PeftModel.from_pretrained(policy.model, str(folder), is_trainable=False)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The adapter in {folder} does not fit its base policy: {error}", "Check 'base' in grape_adapter.json."
        ) from error
    wrapper.eval()
    if merge:
        wrapper.merge_and_unload()
        for name, parameter in policy.model.named_parameters():
            parameter.requires_grad_(trainable[name])  # PEFT froze them all
    else:
        policy.adapter = wrapper
    return policy


def _check_kind(folder: Path) -> None:
    config = read_json(folder / _CONFIG)
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise SettingsError(f"The adapter in {folder} is of type {kind!r}.", "Only LoRA adapters are supported.")
    extras = [key for key in ("use_dora", "modules_to_save") if config.get(key)]
    if extras or config.get("bias", "none") != "none":
        raise SettingsError(
            f"The adapter in {folder} is more than plain LoRA: {', '.join(extras) or 'bias'}.",
            "Only low-rank weights are supported.",
        )


def _check_names(folder: Path, model: nn.Module) -> None:
    """PEFT only warns about adapter weights that match no layer; here that is an error."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / _WEIGHTS, framework="pt") as handle:
            names = list(handle.keys())
    except (SafetensorError, OSError) as error:
        raise DataError(f"{folder / _WEIGHTS} is torn ({error}).", "Save the adapter again.") from error
    modules = {name for name, _ in model.named_modules()}
    foreign = [name for name in names if name.removeprefix("base_model.model.").rsplit(".lora_", 1)[0] not in modules]
    if foreign or not names:
        shown = ", ".join(sorted(foreign)[:4]) or "it is empty"
        raise DataError(f"The adapter in {folder} fits no layer of its base: {shown}.", "Check 'base'.")


def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights under their published names, with all active LoRA adapters added in; the model is not changed.

    Args:
        model: The network, with or without LoRA layers inside.
    """
    with torch.no_grad():
        weights = {
            name.replace(".base_layer.", "."): tensor.detach()
            for name, tensor in model.state_dict().items()
            if ".lora_" not in name
        }
        for name, module in model.named_modules():
            if hasattr(module, "get_delta_weight") and not module.merged and not module.disable_adapters:
                base = weights[f"{name}.weight"]
                total = base.float()
                for adapter in module.active_adapters:
                    if adapter in module.lora_A:
                        total = total + module.get_delta_weight(adapter).float()
                weights[f"{name}.weight"] = total.to(base.dtype)
    return weights
