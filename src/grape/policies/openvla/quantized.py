"""4-bit weights for the language model's blocks through bitsandbytes (NF4 as in QLoRA, arXiv 2305.14314).

The seven linear layers of each block hold nearly all weights: 7 B shrink from 15 GB to about 5.5 GB. Towers, projector,
embeddings and the output layer stay as they are. Such a policy can be run and can carry adapters; its own weights
cannot be trained, merged into or saved again: exports start from the checkpoint.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LANGUAGE_LINEARS", "is_quantized", "quantize_layers", "quantized_names"]

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
        device: Where the layers shall be; the weights are quantised there.
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
