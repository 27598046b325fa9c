"""Decoding of a chunk: one forward pass, then the largest or a sampled token in each place."""

from collections.abc import Sequence

import torch
from torch import Tensor

from grape.core.errors import PolicyError
from grape.policies.openvla.decoding import choose_tokens, equal_calls, seed_tensor
from grape.policies.openvla.model import PolicyInputs
from grape.policies.openvla_oft.model import OpenVLAOFT, logps_of

__all__ = ["decode_chunks", "regress_chunks"]


@torch.inference_mode()
def decode_chunks(
    model: OpenVLAOFT, inputs: PolicyInputs, temperature: float, seeds: Sequence[int] | None
) -> tuple[Tensor, Tensor]:
    """Choose all tokens of each row's chunk. On a CPU a row's result is the same, bit by bit, in any batch.

    Args:
        model: The network.
        inputs: ``B`` encoded observations.
        temperature: 0 takes the likeliest token of the support; else tokens are sampled at this temperature.
        seeds: One a row; needed when sampling. A row's random numbers depend on its seed alone.

    Returns:
        Token ids, int64 ``(B, K, D)``, and their log-probabilities under the model's own support and temperature,
        float32 ``(B, K, D)``.

    Raises:
        PolicyError: The logits are not finite, or the policy has no action tokens.
    """
    layout = model.layout
    tokens_BKD = torch.empty(len(inputs), layout.chunk, layout.action_dim, dtype=torch.long)
    logps_BKD = torch.empty(tokens_BKD.shape)
    with equal_calls(model, inputs) as calls:
        for rows, filled in calls if model.device.type == "cpu" else [(_all(inputs), _all(inputs))]:
            seeds_B = seed_tensor([seeds[row] for row in filled] if seeds else None, model.device)
            logits_BTV = model.chunk_logits(inputs.select(filled))
            columns_BT = torch.stack(
                [
                    # The logits are divided by the model's temperature already.
                    choose_tokens(logits_BV, temperature / model.conventions.temperature, seeds_B, place)
                    for place, logits_BV in enumerate(logits_BTV.unbind(dim=1))
                ],
                dim=1,
            )
            tokens = (columns_BT + model.support.start).reshape(-1, layout.chunk, layout.action_dim)
            logps = logps_of(logits_BTV, tokens, model.support)
            if not bool(torch.isfinite(logps).all()):
                raise PolicyError(
                    "The policy's logits are not finite.", "Its weights may have diverged; use an earlier checkpoint."
                )
            tokens_BKD[rows], logps_BKD[rows] = tokens[: len(rows)].cpu(), logps[: len(rows)].cpu()
    return tokens_BKD, logps_BKD


@torch.inference_mode()
def regress_chunks(model: OpenVLAOFT, inputs: PolicyInputs) -> Tensor:
    """Normalized actions of each row's chunk from the L1 head; rows are independent as in :func:`decode_chunks`.

    Args:
        model: The network, with an action head.
        inputs: ``B`` encoded observations.

    Returns:
        float32 ``(B, K, D)``, not clipped.

    Raises:
        PolicyError: The output is not finite, or there is no such head.
    """
    if model.action_head is None:
        raise PolicyError("This policy has no regression head.", "Its actions are tokens.")
    actions_BKD = torch.empty(len(inputs), model.layout.chunk, model.layout.action_dim)
    with equal_calls(model, inputs) as calls:
        for rows, filled in calls if model.device.type == "cpu" else [(_all(inputs), _all(inputs))]:
            actions = model.action_head(model.hidden_rows(inputs.select(filled))).float()
            actions_BKD[rows] = actions[: len(rows)].cpu()
    if not bool(torch.isfinite(actions_BKD).all()):
        raise PolicyError("The policy's actions are not finite.", "Its weights may have diverged.")
    return actions_BKD


def _all(inputs: PolicyInputs) -> list[int]:
    return list(range(len(inputs)))
