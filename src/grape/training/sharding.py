"""Parameters spread over processes (FSDP): for training all parameters of a model that one GPU cannot hold thrice.

PyTorch's ``fully_shard`` turns parameters into distributed tensors; each block of the network is gathered while it
computes. The rest of the trainer sees three questions only: the part that lives here, the whole, and putting a whole
back in.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

__all__ = ["is_sharded", "local_part", "put_whole", "shard_fully", "whole"]


def shard_fully(model: Any, compute: torch.dtype) -> None:
    """Spread a network's parameters over all processes, in place.

    Args:
        model: An :class:`~grape.policies.openvla.model.OpenVLA`.
        compute: What blocks compute in; parameters and sums of gradients stay float32.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    precision = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
    backbone = model.vision_backbone
    towers = [backbone.featurizer, *([backbone.fused_featurizer] if backbone.fused else [])]
    for tower in towers:
        for number in range(tower.config.feature_block + 1):
            fully_shard(tower.blocks[number], mp_policy=precision)
    for block in model.language_model.model.layers:
        fully_shard(block, mp_policy=precision)
    fully_shard(model, mp_policy=precision)
    register_fsdp_forward_method(model, "action_logps")
    register_fsdp_forward_method(model, "action_logits")


def is_sharded(model: nn.Module) -> bool:
    """Whether :func:`shard_fully` was applied."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def local_part(tensor: Tensor) -> Tensor:
    """What lives in this process; the tensor itself if it is not spread."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The complete tensor, gathered in every process: all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def put_whole(target: Tensor, value: Tensor) -> Tensor:
    """A whole value laid out as ``target`` is: on its device, spread as it is spread.

    Every process takes its part of the value it has; nothing is sent.
    """
    if isinstance(target, DTensor):
        return distribute_tensor(value.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
    return value.to(target.device)
