"""Device, number type, attention and 4-bit weights of a policy, checked before any weights are read."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from grape.core.errors import SettingsError, require_known

__all__ = [
    "LANGUAGE_LINEARS",
    "Attention",
    "DType",
    "Precision",
    "choose_precision",
    "is_quantized",
    "quantize_layers",
    "quantized_names",
]

DType = Literal["auto", "float32", "bfloat16"]
Attention = Literal["sdpa", "flash-attention-2", "eager"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_ATTENTION = {"sdpa": "sdpa", "flash-attention-2": "flash_attention_2", "eager": "eager"}


@dataclass(frozen=True)
class Precision:
    """How a policy computes.

    Attributes:
        device: Where.
        dtype: Type of the frozen weights and of the computation; adapters are float32 always.
        attention: transformers' name of the language model's attention.
        four_bit: Whether the language model's linear layers hold 4-bit weights.
    """

    device: torch.device
    dtype: torch.dtype
    attention: str
    four_bit: bool

    def __str__(self) -> str:
        weights = " with 4-bit weights" if self.four_bit else ""
        return f"{self.device.type} {str(self.dtype).removeprefix('torch.')}{weights}, {self.attention}"


def choose_precision(
    device: str, dtype: DType, attention: Attention, load_in_4bit: bool, storage_dtype: str
) -> Precision:
    """Resolve ``auto`` and refuse what this machine cannot do.

    Args:
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``...
        dtype: ``"auto"``: float32 on the CPU, on other devices as stored (bfloat16 for published checkpoints).
        attention: ``"sdpa"`` runs everywhere.
        load_in_4bit: Hold the language model in 4 bits.
        storage_dtype: How the checkpoint stores its weights: ``"float32"`` or ``"bfloat16"``.

    Raises:
        SettingsError: The device is unknown or not there, or something asked for needs another one or a package.
    """
    require_known("dtype", dtype, ("auto", *_DTYPES))
    require_known("attention", attention, _ATTENTION)
    place = _device(device)
    if load_in_4bit:
        _need(place, "bitsandbytes", "4-bit weights", "pip install 'grape-vla[4bit]'")
        if dtype == "float32":
            raise SettingsError("4-bit weights compute in bfloat16, not float32.", "Leave --dtype out.")
    if dtype == "auto":
        dtype = "bfloat16" if load_in_4bit else "float32" if place.type == "cpu" else _as_stored(storage_dtype)
    if attention == "flash-attention-2":
        _need(
            place, "flash_attn", "Flash attention", "pip install flash-attn --no-build-isolation, or --attention sdpa"
        )
        if dtype != "bfloat16":
            raise SettingsError(f"Flash attention does not compute in {dtype}.", "Use --dtype bfloat16.")
    return Precision(place, _DTYPES[dtype], _ATTENTION[attention], load_in_4bit)


def _as_stored(storage_dtype: str) -> Literal["float32", "bfloat16"]:
    return "bfloat16" if storage_dtype == "bfloat16" else "float32"


def _device(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise SettingsError(f"Unknown device {device!r}.", "For example 'auto', 'cpu' or 'cuda'.") from error
    if place.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise SettingsError("No CUDA device is available.", "Use --device cpu; 'grape doctor' says what it sees.")
        if (place.index or 0) >= count:
            raise SettingsError(f"There is no {device}: {count} CUDA devices are visible.", "They count from cuda:0.")
    elif place.type == "mps" and not torch.backends.mps.is_available():
        raise SettingsError("No MPS device is available.", "Use --device cpu.")
    elif place.type not in ("cpu", "mps"):
        raise SettingsError(f"Device {device!r} is not supported.", "Use 'auto', 'cpu', 'cuda' or 'mps'.")
    return place


def _need(place: torch.device, package: str, what: str, fix: str) -> None:
    if place.type != "cuda":
        raise SettingsError(
            f"{what} need{'s' if what.endswith('n') else ''} a CUDA device, not {place.type}.", "Leave it out here."
        )
    if importlib.util.find_spec(package) is None:
        raise SettingsError(f"{what} need{'s' if what.endswith('n') else ''} the package {package}.", fix)


LANGUAGE_LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
"""Linear layers of one block of the language model."""


def quantized_names(layers: int) -> frozenset[str]:
    """Names of the linear layers that hold 4-bit weights, for a language model of so many blocks."""
    return frozenset(
        f"language_model.model.layers.{layer}.{name}" for layer in range(layers) for name in LANGUAGE_LINEARS
    )


def quantize_layers(model: nn.Module, weights: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> None:
    """Put 4-bit layers in the place of linear ones, in place.

    Args:
        model: The network; the layers named may still be empty.
        weights: Weight of each layer by the layer's name, ``(out, in)``, on the CPU.
        device: Where the layers shall be; the weights are quantized there.
        dtype: Type the layers compute in.
    """
    import bitsandbytes as bnb

    for name, weight in weights.items():
        parent, _, child = name.rpartition(".")
        layer: Any = bnb.nn.Linear4bit(
            weight.shape[1], weight.shape[0], bias=False, compute_dtype=dtype, quant_type="nf4", device="meta"
        )
        layer.weight = bnb.nn.Params4bit(
            weight.to(dtype), requires_grad=False, quant_type="nf4", compress_statistics=True, module=layer
        )
        setattr(model.get_submodule(parent), child, layer.to(device))
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # PEFT asks for it


def is_quantized(model: nn.Module) -> bool:
    """Whether some weights are held in 4 bits."""
    return bool(getattr(model, "is_loaded_in_4bit", False))
