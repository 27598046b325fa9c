"""Hash of a policy: configuration and weights as they would be stored."""

import hashlib
from typing import TYPE_CHECKING

import torch

from grape.core.files import content_hash
from grape.policies.openvla.adapters import MergedWeights, scales_of
from grape.policies.openvla.precision import is_quantized

if TYPE_CHECKING:
    from grape.policies.openvla.policy import OpenVLAPolicy

__all__ = ["hash_weights"]


def hash_weights(policy: "OpenVLAPolicy") -> str:
    """SHA-256 over configuration and weights as they would be stored, adapters apart where a merge would round.

    Empty for a policy that was opened without its weights.
    """
    if policy.model.device.type == "meta":
        return ""
    digest = hashlib.sha256(content_hash(policy.config.to_json()).encode())
    digest.update(policy.unnorm_key.encode())
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(policy.config.storage_dtype, torch.float32)
    adapter_acts = policy.adapter is not None and bool(scales_of(policy.model))
    apart = is_quantized(policy.model)
    if adapter_acts and (dtype != torch.float32 or policy.model.dtype != torch.float32):
        apart = True  # a merge rounds most of a fine-tuning's changes away: policies that differ would look alike
        digest.update(str(sorted(set(scales_of(policy.model)))).encode())
    weights = policy.model.state_dict() if apart else MergedWeights(policy.model)
    for name in sorted(weights):
        tensor = weights[name].detach().to("cpu")
        if ".lora_" in name and not adapter_acts:
            continue
        rounded = tensor.is_floating_point() and ".lora_" not in name
        stored = (tensor.to(dtype) if rounded else tensor).contiguous()
        name = name.replace(".base_layer.", ".")
        digest.update(f"{name}:{tuple(stored.shape)}".encode())
        digest.update(stored.view(torch.uint8).numpy().data)
    return digest.hexdigest()
