"""Sampling of action tokens and hashing of a network, for implementations of policies."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grape.core.errors import SettingsError
from grape.core.files import content_hash
from grape.policies.openvla.decoding import choose_tokens, seed_tensor

__all__ = ["choose_bins", "hash_module"]


def choose_bins(logits: Tensor, temperature: float, seeds: Sequence[int] | None) -> Tensor:
    """One bin for each dimension of each action, each drawn independently given the observation.

    Args:
        logits: ``(B, K, D, n_bins)``.
        temperature: 0 takes the likeliest bin; otherwise bins are sampled from ``softmax(logits / temperature)``.
        seeds: One a row, needed when sampling. A row's random numbers depend on its seed alone.

    Returns:
        int64 ``(B, K, D)``.

    Raises:
        SettingsError: Seeds are missing.
    """
    if temperature > 0.0 and (seeds is None or len(seeds) != len(logits)):
        raise SettingsError("Sampling needs one seed for each observation.")
    row_seeds = seed_tensor(seeds, logits.device)
    places = logits.flatten(1, 2).unbind(dim=1)
    chosen = [choose_tokens(place_logits, temperature, row_seeds, place) for place, place_logits in enumerate(places)]
    return torch.stack(chosen, dim=1).reshape(logits.shape[:-1])


def hash_module(module: nn.Module, facts: Mapping[str, Any]) -> str:
    """SHA-256 of a network's weights and of JSON facts beside them, for ``PolicySpec.policy_hash``."""
    digest = hashlib.sha256(content_hash(dict(facts)).encode())
    for name, value in sorted(module.state_dict().items()):
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
