"""LoRA adapters in PEFT's layout: attached beside the weights, or merged into them.

An adapter folder holds PEFT's ``adapter_config.json`` and ``adapter_model.safetensors``, and ``grape_adapter.json``
which points to the policy it belongs to: ``{"base": path or name on the hub}``, with what differs from that policy's
configuration beside it. Folders that PEFT alone wrote have no such file; there ``base_model_name_or_path`` counts.
Statistics of data that the base has not seen stand in ``dataset_statistics.json``, as in a checkpoint.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from grape.core.errors import DataError, PolicyError, SettingsError
from grape.core.files import read_json, write_json
from grape.policies.names import parse_hub_name
from grape.policies.openvla.config import OpenVLAConfig
from grape.policies.openvla.hub import resolve_policy
from grape.policies.openvla.quantised import is_quantised

if TYPE_CHECKING:
    from grape.policies.openvla.policy import OpenVLAPolicy

__all__ = [
    "AdapterPointer",
    "MergedWeights",
    "adapter_base",
    "attach_adapter",
    "check_adapter",
    "read_pointer",
    "write_pointer",
]

_POINTER = "grape_adapter.json"
_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_STATISTICS = "dataset_statistics.json"


@dataclass(frozen=True)
class AdapterPointer:
    """Which policy an adapter belongs to.

    Attributes:
        base: Folder of that policy.
        name: The base as it is written down: a path or a name on the hub.
        center_crop: Whether the adapter was trained with cropped pictures; None where the base's configuration holds.
        unnorm_key: Statistics that are in use with the adapter; empty where the base's configuration holds.
        gripper: What the last dimension of its actions means; empty where the base's configuration holds.
        norm_stats: Normalisation statistics by data set that the base has not.
    """

    base: Path
    name: str
    center_crop: bool | None = None
    unnorm_key: str = ""
    gripper: str = ""
    norm_stats: Mapping[str, Any] = field(default_factory=dict)

    def configure(self, config: OpenVLAConfig) -> OpenVLAConfig:
        """The base's configuration as it is with the adapter."""
        if self.center_crop is not None:
            config = config.with_center_crop(self.center_crop)
        if self.norm_stats:
            config = config.with_norm_stats({**config.norm_stats, **self.norm_stats})
        return config.with_facts(
            unnorm_key=self.unnorm_key or config.unnorm_key, gripper=self.gripper or config.gripper
        )


def read_pointer(policy: Path | str) -> AdapterPointer | None:
    """The base of an adapter, or None if ``policy`` is no folder that holds an adapter.

    ``grape_adapter.json`` says it; folders of others have only ``base_model_name_or_path`` in PEFT's configuration. A
    path counts from the adapter's folder, then from the current one; a name is looked up on the hub.

    Raises:
        DataError: The pointer to the base is missing or malformed, or leads nowhere.
    """
    folder = Path(policy)
    if not (folder / _CONFIG).is_file():
        return None
    source, key = (_POINTER, "base") if (folder / _POINTER).is_file() else (_CONFIG, "base_model_name_or_path")
    data = read_json(folder / source)
    name = data.get(key) if isinstance(data, dict) else None
    ours = data if isinstance(data, dict) and source == _POINTER else {}
    crop, key_in_use, gripper = ours.get("center_crop"), ours.get("unnorm_key", ""), ours.get("gripper", "")
    sound = isinstance(crop, bool | None) and isinstance(key_in_use, str) and isinstance(gripper, str)
    if not isinstance(name, str) or not name or not sound:
        raise DataError(
            f"{folder / source} does not say which policy the adapter belongs to.",
            f"Write {{'base': path or name on the hub}} into {folder / _POINTER}.",
        )
    for base in (folder / name, Path(name)):
        if base.is_dir():
            return AdapterPointer(base, name, crop, key_in_use, gripper, _statistics(folder))
    if parse_hub_name(name) is not None:
        return AdapterPointer(resolve_policy(name), name, crop, key_in_use, gripper, _statistics(folder))
    raise DataError(
        f"The base policy of adapter {folder} is not at {folder / name}.",
        f"Move it there, or mend '{key}' in {folder / source}.",
    )


def _statistics(folder: Path) -> Mapping[str, Any]:
    path = folder / _STATISTICS
    if not path.is_file():
        return {}
    data = read_json(path)
    if not isinstance(data, dict):
        raise DataError(f"{path} holds no JSON object.", "Save the adapter again.")
    return data


def adapter_base(policy: Path | str) -> Path | None:
    """Folder of the policy that an adapter belongs to, or None for no adapter; see :func:`read_pointer`."""
    pointer = read_pointer(resolve_policy(policy))
    return None if pointer is None else pointer.base


def write_pointer(
    folder: Path,
    base: Path | str,
    center_crop: bool | None = None,
    place: Path | None = None,
    *,
    changed: tuple[OpenVLAConfig, OpenVLAConfig] | None = None,
) -> None:
    """Write ``grape_adapter.json``, and ``dataset_statistics.json`` where there are new statistics.

    Args:
        folder: The adapter's folder.
        base: The policy it belongs to. A folder is written relative to the adapter, a name on the hub as it is.
        center_crop: Whether the adapter was trained with cropped pictures, where that differs from the base.
        place: Where the adapter's folder will stand, if it is written elsewhere first.
        changed: Configuration of the base and of the policy with the adapter; what differs is written down.
    """
    path = os.path.relpath(base, place or folder) if parse_hub_name(base) is None else str(base)
    extra: dict[str, Any] = {} if center_crop is None else {"center_crop": center_crop}
    if changed is not None:
        old, new = changed
        names = ("unnorm_key", "gripper")
        extra |= {name: getattr(new, name) for name in names if getattr(new, name) != getattr(old, name)}
        if new.says_center_crop != old.says_center_crop:
            extra["center_crop"] = new.center_crop
        fresh = {name: value for name, value in new.norm_stats.items() if name not in old.norm_stats}
        if fresh:
            write_json(folder / _STATISTICS, fresh)
    write_json(folder / _POINTER, {"base": Path(path).as_posix(), **extra})


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
    check_adapter(folder, policy.model)
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


def check_adapter(folder: Path, model: nn.Module) -> None:
    """Refuse an adapter of another kind than plain LoRA, or one that fits no layer of its base.

    Args:
        folder: Folder with PEFT's two files.
        model: The base's network; it may be empty (on the meta device).

    Raises:
        SettingsError: The adapter is of another kind.
        DataError: A file is missing or torn, or names of weights match no layer.
    """
    for name in (_CONFIG, _WEIGHTS):
        if not (folder / name).is_file():
            raise DataError(f"Adapter folder {folder} lacks {name}.", "Save the adapter again.")
    _check_kind(folder)
    _check_names(folder, model)


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
    """PEFT only warns about layers without weights and weights without layers; here both are errors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / _WEIGHTS, framework="pt") as handle:
            names = list(handle.keys())
    except (SafetensorError, OSError) as error:
        raise DataError(f"{folder / _WEIGHTS} is torn ({error}).", "Save the adapter again.") from error
    modules = {name for name, _ in model.named_modules()}
    halves: dict[str, set[str]] = {}
    for name in names:
        layer, _, half = name.removeprefix("base_model.model.").rpartition(".lora_")
        halves.setdefault(layer, set()).add(half[:1])
    foreign = sorted(halves.keys() - modules)
    if foreign or not names:
        shown = ", ".join(foreign[:4]) or "it is empty"
        raise DataError(f"The adapter in {folder} fits no layer of its base: {shown}.", "Check 'base'.")
    targets = read_json(folder / _CONFIG).get("target_modules")
    due = {name for name in modules if isinstance(targets, list) and _is_target(name, targets)}
    missing = sorted(due - halves.keys()) + sorted(name for name, found in halves.items() if found != {"A", "B"})
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise DataError(
            f"{folder / _WEIGHTS} lacks weights of {', '.join(missing[:4])}{more}.", "Save the adapter again."
        )


def _is_target(module: str, targets: list[str]) -> bool:
    """PEFT's rule: a target is a whole name or the end of one."""
    return any(module == target or module.endswith(f".{target}") for target in targets)


class MergedWeights(Mapping[str, Tensor]):
    """Weights under their published names, with all active LoRA adapters added in; the model is not changed.

    A merged weight is computed when it is asked for and kept by nobody, so writing a large policy needs memory for one
    file of it at a time.

    Args:
        model: The network, with or without LoRA layers inside.

    Raises:
        PolicyError: Weights are held in 4 bits: what was rounded away cannot be written back.
    """

    def __init__(self, model: nn.Module) -> None:
        if is_quantised(model):
            raise PolicyError(
                "A policy held in 4 bits cannot be merged or saved: its weights are rounded.",
                "Save its adapter, or load it without --load-in-4bit.",
            )
        self._model = model
        self._keys = {name.replace(".base_layer.", "."): name for name in model.state_dict() if ".lora_" not in name}

    def __getitem__(self, name: str) -> Tensor:
        module_name, _, kind = self._keys[name].removesuffix(".weight").rpartition(".base_layer")
        weight = self._model.get_parameter(self._keys[name]).detach()
        module: Any = self._model.get_submodule(module_name) if kind == "" and module_name else None
        if not hasattr(module, "get_delta_weight") or module.merged or module.disable_adapters:
            return weight
        with torch.no_grad():
            total = weight.float()
            for adapter in module.active_adapters:
                if adapter in module.lora_A:
                    total = total + module.get_delta_weight(adapter).float()
            return total.to(weight.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
