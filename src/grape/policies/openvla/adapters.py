"""LoRA adapters in PEFT's layout: attached beside the weights, or merged into them.

An adapter folder holds PEFT's ``adapter_config.json`` and ``adapter_model.safetensors``, and ``grape_adapter.json``
which points to the policy it belongs to: ``{"base": path or name on the hub}``, with what differs from that policy's
configuration beside it. Folders that PEFT alone wrote have no such file; there ``base_model_name_or_path`` counts.
Statistics of data that the base has not seen stand in ``dataset_statistics.json``, as in a checkpoint.
"""

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from grape.core.errors import DataError, PolicyError, SettingsError
from grape.core.files import read_json, write_json
from grape.core.reading import open_file
from grape.policies.opening import parse_hub_name, resolve_policy
from grape.policies.openvla.adapter_config import CONFIG_FILE, AdapterConfig, AdapterLayer, read_adapter_config
from grape.policies.openvla.config import OpenVLAConfig
from grape.policies.openvla.precision import is_quantized

if TYPE_CHECKING:
    from grape.policies.openvla.policy import OpenVLAPolicy

__all__ = [
    "AdapterPointer",
    "MergedWeights",
    "adapter_base",
    "attach_adapter",
    "check_adapter",
    "read_pointer",
    "scales_of",
    "write_pointer",
]

_POINTER = "grape_adapter.json"
_WEIGHTS = "adapter_model.safetensors"
_STATISTICS = "dataset_statistics.json"

_PREFIX = "base_model.model."
_FACTORS = (".lora_A.weight", ".lora_B.weight")
_STORED_TYPES = frozenset({"BF16", "F16", "F32", "F64"})
_MOST_LISTED = 4


@dataclass(frozen=True)
class AdapterPointer:
    """The base policy of an adapter.

    Attributes:
        base: Folder of that policy.
        name: The base as it is written down: a path or a name on the hub.
        center_crop: Whether the adapter was trained with cropped images; None where the base's configuration holds.
        unnorm_key: Statistics that are in use with the adapter; empty where the base's configuration holds.
        gripper: What the last dimension of its actions means; empty where the base's configuration holds.
        norm_stats: Normalization statistics by data set that the base has not.
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
    if not (folder / CONFIG_FILE).is_file():
        return None
    source, key = (_POINTER, "base") if (folder / _POINTER).is_file() else (CONFIG_FILE, "base_model_name_or_path")
    data = read_json(folder / source)
    name = data.get(key) if isinstance(data, dict) else None
    pointer = data if isinstance(data, dict) and source == _POINTER else {}
    crop, key_in_use, gripper = pointer.get("center_crop"), pointer.get("unnorm_key", ""), pointer.get("gripper", "")
    sound = isinstance(crop, bool | None) and isinstance(key_in_use, str) and isinstance(gripper, str)
    if not isinstance(name, str) or not name or not sound:
        raise DataError(
            f"{folder / source} does not say which policy the adapter belongs to.",
            f"Write {{'base': path or name on the hub}} into {folder / _POINTER}.",
        )
    for base in (folder / name, Path(name)):
        if _is_folder(base):
            return AdapterPointer(base, name, crop, key_in_use, gripper, _statistics(folder))
    if parse_hub_name(name) is not None:
        revision = "" if pointer else _revision(folder, name, data.get("revision"))
        return AdapterPointer(resolve_policy(name + revision), name, crop, key_in_use, gripper, _statistics(folder))
    raise DataError(
        f"The base policy of adapter {folder} is not at {str(folder / name)!r}.",
        f"Move it there, or correct '{key}' in {folder / source}.",
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have: too long, or with a NUL byte
        return False


def _revision(folder: Path, name: str, revision: Any) -> str:
    """``@revision`` as PEFT wrote it down beside the base's name; empty where it did not."""
    if revision in (None, "") or "@" in name:
        return ""
    if not isinstance(revision, str) or parse_hub_name(f"{name}@{revision}") is None:
        raise DataError(f"{folder / CONFIG_FILE}: revision {revision!r} of {name} is none.", "Save the adapter again.")
    return f"@{revision}"


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
        center_crop: Whether the adapter was trained with cropped images, where that differs from the base.
        place: The adapter folder's final path, if it is written to a temporary folder first.
        changed: Configuration of the base and of the policy with the adapter; what differs is written down.
    """
    path = os.path.relpath(base, place or folder) if parse_hub_name(base) is None else str(base)
    extra: dict[str, Any] = {} if center_crop is None else {"center_crop": center_crop}
    if changed is not None:
        old, new = changed
        names = ("unnorm_key", "gripper")
        extra |= {name: getattr(new, name) for name in names if getattr(new, name) != getattr(old, name)}
        if new.recorded_center_crop != old.recorded_center_crop:
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
        DataError: A file is missing or truncated, or the adapter does not fit the policy.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise SettingsError("Adapters need PEFT.", "pip install 'grape-vla[train]'") from error
    layers = check_adapter(folder, policy.model)
    config = read_adapter_config(folder)
    trainable = {name: parameter.requires_grad for name, parameter in policy.model.named_parameters()}
    network: Any = policy.model
    with torch.random.fork_rng(devices=[]):  # PEFT draws values, which are replaced
        wrapper: Any = get_peft_model(network, LoraConfig(**_settings_for_peft(config, layers)))
    _fill(policy.model, layers, folder)
    wrapper.requires_grad_(False)
    wrapper.eval()
    if merge:
        wrapper.merge_and_unload()
        for name, parameter in policy.model.named_parameters():
            parameter.requires_grad_(trainable[name])  # PEFT froze them all
    else:
        policy.adapter = wrapper
    return policy


def _settings_for_peft(config: AdapterConfig, layers: Mapping[str, AdapterLayer]) -> dict[str, Any]:
    """Settings that name each layer in full, so that nothing depends on how a release of PEFT matches names."""
    pattern = {name: rf"^{re.escape(name)}" for name in layers}
    return {
        "r": config.rank,
        "lora_alpha": config.alpha,
        "use_rslora": config.rank_stabilized,
        "target_modules": list(layers),
        "rank_pattern": {pattern[name]: layer.rank for name, layer in layers.items() if layer.rank != config.rank},
        "alpha_pattern": {pattern[name]: layer.alpha for name, layer in layers.items() if layer.alpha != config.alpha},
    }


def _fill(model: nn.Module, layers: Mapping[str, AdapterLayer], folder: Path) -> None:
    """Copy the weights into the layers that PEFT made.

    Raises:
        DataError: The file cannot be read, or a value is not finite.
    """
    with _opened(folder) as handle, torch.no_grad():
        for name in layers:
            module: Any = model.get_submodule(name)
            for factor, linear in zip(_FACTORS, (module.lora_A, module.lora_B), strict=True):
                tensor = handle.get_tensor(f"{_PREFIX}{name}{factor}")
                if not bool(torch.isfinite(tensor).all()):
                    raise DataError(f"{folder / _WEIGHTS}: {name}{factor} is not finite.", "Use another checkpoint.")
                linear["default"].weight.copy_(tensor)


def check_adapter(folder: Path, model: nn.Module) -> dict[str, AdapterLayer]:
    """Compare an adapter's configuration and weights with its base, before PEFT sees any of them.

    Args:
        folder: Folder with PEFT's two files.
        model: The base's network; it may be empty (on the meta device).

    Returns:
        The layers that it adapts, by full name.

    Raises:
        SettingsError: The adapter is of another kind than plain LoRA; what is not supported is named.
        DataError: A file is missing or broken, or the weights are not those that the configuration says.
    """
    for name in (CONFIG_FILE, _WEIGHTS):
        if not (folder / name).is_file():
            raise DataError(f"Adapter folder {folder} lacks {name}.", "Save the adapter again.")
    layers = read_adapter_config(folder).layers(model)
    with _opened(folder) as handle:
        slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 - not a mapping
        stored = {name: (tuple(part.get_shape()), str(part.get_dtype())) for name, part in slices.items()}
    expected_shapes = {
        f"{_PREFIX}{name}{factor}": shape
        for name, layer in layers.items()
        for factor, shape in zip(_FACTORS, _shapes(model.get_submodule(name), layer.rank), strict=True)
    }
    foreign = [name.removeprefix(_PREFIX) for name in sorted(stored.keys() - expected_shapes.keys())]
    if foreign or not stored:
        raise DataError(
            f"{folder / _WEIGHTS} does not fit: its configuration, on this base, has no "
            f"{_listed(foreign) or 'layers: it is empty'}.",
            "Check 'base' in grape_adapter.json, and that adapter_config.json belongs to these weights.",
        )
    missing = [name.removeprefix(_PREFIX) for name in sorted(expected_shapes.keys() - stored.keys())]
    if missing:
        raise DataError(f"{folder / _WEIGHTS} lacks weights of {_listed(missing)}.", "Save the adapter again.")
    mismatches = [
        f"{name.removeprefix(_PREFIX)} is {kind} {shape}, not {expected_shapes[name]}"
        for name, (shape, kind) in sorted(stored.items())
        if shape != expected_shapes[name] or kind not in _STORED_TYPES
    ]
    if mismatches:
        raise DataError(
            f"The adapter in {folder} does not fit its base policy and configuration: {_listed(mismatches)}.",
            "Check 'base' in grape_adapter.json, and that adapter_config.json belongs to these weights.",
        )
    return layers


def _shapes(module: nn.Module, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of a layer's two factors."""
    if isinstance(module, nn.Conv2d):
        return (rank, module.in_channels, *module.kernel_size), (module.out_channels, rank, 1, 1)
    layer: Any = module
    return (rank, layer.in_features), (layer.out_features, rank)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    path = folder / _WEIGHTS
    open_file(path).close()  # a regular file
    try:
        with safe_open(path, framework="pt") as handle:
            yield handle
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is truncated ({error}).", "Save the adapter again.") from error


def scales_of(model: nn.Module) -> list[float]:
    """Scale of each LoRA layer in a network that is switched on and not merged; empty without adapters."""
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "get_delta_weight")]
    return [
        float(layer.scaling[name])
        for layer in layers
        if not layer.merged and not layer.disable_adapters
        for name in layer.active_adapters
        if name in layer.lora_A
    ]


class MergedWeights(Mapping[str, Tensor]):
    """Weights under their published names, with all active LoRA adapters added in; the model is not changed.

    A merged weight is computed when it is asked for and kept by nobody, so writing a large policy needs memory for one
    file of it at a time.

    Args:
        model: The network, with or without LoRA layers inside.
        without: Submodules of the network whose weights are left out.

    Raises:
        PolicyError: Weights are held in 4 bits: what was rounded away cannot be written back.
    """

    def __init__(self, model: nn.Module, without: Collection[str] = ()) -> None:
        if is_quantized(model):
            raise PolicyError(
                "A policy held in 4 bits cannot be merged or saved: its weights are rounded.",
                "Save its adapter, or load it without --load-in-4bit.",
            )
        self._model = model
        self._refuse_unknown_parts()
        self._keys = {
            name.replace(".base_layer.", "."): name
            for name in model.state_dict()
            if ".lora_" not in name and name.partition(".")[0] not in without
        }

    def _refuse_unknown_parts(self) -> None:
        """Refuse other parts that PEFT may have added, since merging would lose them silently."""
        for name in self._model.state_dict():
            beside = ".lora_" in name and re.search(r"\.lora_[AB]\.[^.]+\.weight$", name) is None
            if beside or ".modules_to_save." in name or ".token_adapter." in name:
                raise PolicyError(
                    f"The adapter cannot be merged: {name} is no part of plain LoRA.", "Load it without merging."
                )

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
