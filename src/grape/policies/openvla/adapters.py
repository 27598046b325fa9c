"""LoRA adapters in PEFT's layout: attached beside the weights, or merged into them.

Which policy an adapter belongs to is read in :mod:`grape.policies.openvla.adapter_pointer`.
"""

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from grape.core.errors import DataError, PolicyError, SettingsError
from grape.core.reading import open_file
from grape.policies.openvla.adapter_config import CONFIG_FILE, AdapterConfig, AdapterLayer, read_adapter_config
from grape.policies.openvla.precision import is_quantized

__all__ = ["MergedWeights", "attach_adapter", "check_adapter", "refuse_4bit_merge", "scales_of"]

_WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_FACTORS = (".lora_A.weight", ".lora_B.weight")
_STORED_TYPES = frozenset({"BF16", "F16", "F32", "F64"})
_MOST_LISTED = 4


class _Adaptable(Protocol):
    """A policy with a network and a place for PEFT's wrapper around it."""

    model: Any
    adapter: Any


_Policy = TypeVar("_Policy", bound=_Adaptable)


def attach_adapter(policy: _Policy, folder: Path, *, merge: bool = False, apart: Collection[str] = ()) -> _Policy:
    """Add a trained LoRA adapter to a policy, in place.

    Args:
        policy: The base policy; its network is changed.
        folder: Folder with PEFT's two files.
        merge: Add the adapter into the weights, instead of keeping it beside them. A kept adapter can be switched off
            with ``policy.adapter.disable_adapter()`` and computes in float32.
        apart: As for :func:`check_adapter`.

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
    layers = check_adapter(folder, policy.model, apart=apart)
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


def refuse_4bit_merge(load_in_4bit: bool) -> None:
    """Refuse to merge into weights that are held in 4 bits.

    Raises:
        SettingsError: They are.
    """
    if load_in_4bit:
        raise SettingsError("An adapter cannot be merged into 4-bit weights.", "Leave --load-in-4bit out.")


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


def check_adapter(folder: Path, model: nn.Module, *, apart: Collection[str] = ()) -> dict[str, AdapterLayer]:
    """Compare an adapter's configuration and weights with its base, before PEFT sees any of them.

    Args:
        folder: Folder with PEFT's two files.
        model: The base's network; it may be empty (on the meta device).
        apart: Submodules that the base keeps in files of their own. Other software puts adapters around the rest
            alone, but names layers by their ends, which fit here, too: none are adapted where no weight says so.

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
    untouched = tuple(f"{part}." for part in apart if not any(name.startswith(f"{_PREFIX}{part}.") for name in stored))
    layers = {name: layer for name, layer in layers.items() if not name.startswith(untouched)}
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
