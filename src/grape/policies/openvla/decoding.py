"""Decoding of action tokens: a batch at a time, with a cache, exactly as many tokens as an action has dimensions.

The loop is our own. The published way through ``generate`` depends on how a library passes its first, empty cache:
with a current transformers it silently drops the image.
"""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from grape.core.errors import PolicyError
from grape.policies.openvla.model import OpenVLA, PolicyInputs

__all__ = ["choose_tokens", "decode_actions", "decode_rows_alike", "equal_calls"]

ROWS = 16
"""Rows of one call of a small network where each row's bits must not depend on the others."""
SMALL = 10**8
"""Parameters below which a network is small: one thread computes it, and many rows share a call."""


@torch.inference_mode()
def decode_actions(
    model: OpenVLA, inputs: PolicyInputs, dim: int, temperature: float, seeds: Sequence[int] | None
) -> tuple[Tensor, Tensor]:
    """Choose ``dim`` tokens for each row.

    Sampling adds Gumbel noise to ``logits / temperature`` and takes the largest (the Gumbel-max trick), so that a
    row's choice depends on its own seed and logits and on nothing else in the batch.

    Args:
        model: The network.
        inputs: ``B`` encoded observations.
        dim: Number of tokens ``D``.
        temperature: 0 is greedy over the whole vocabulary.
        seeds: One a row; needed when ``temperature > 0``.

    Returns:
        Token ids, int64 ``(B, D)``, and their log-probabilities under temperature 1 over the whole vocabulary,
        float32 ``(B, D)``.

    Raises:
        PolicyError: The logits are not finite.
    """
    generators = [np.random.default_rng(seed) for seed in seeds or ()] if temperature > 0.0 else []
    llama = model.language_model
    prefix = model.embed_prompts(inputs)
    cache = DynamicCache(config=llama.config)
    step_embeds, first = prefix.embeds_BSH, 0
    tokens: list[Tensor] = []
    logps: list[Tensor] = []
    for _ in range(dim):
        positions = prefix.positions()
        hidden_BSH = llama.model(
            inputs_embeds=step_embeds,
            attention_mask=prefix.mask(model.attention, first),
            position_ids=None if positions is None else positions[:, first:],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        logits_BV = llama.lm_head(hidden_BSH[:, -1]).float()
        chosen_B = choose_tokens(logits_BV, temperature, generators)
        logp_B = logits_BV.gather(-1, chosen_B[:, None])[:, 0] - logits_BV.logsumexp(-1)
        if not bool(torch.isfinite(logp_B).all()):
            raise PolicyError(
                "The policy's logits are not finite.", "Its weights may have diverged; use an earlier checkpoint."
            )
        tokens.append(chosen_B)
        logps.append(logp_B)
        first = prefix.embeds_BSH.shape[1]
        step_embeds = llama.model.embed_tokens(chosen_B[:, None])
        prefix = prefix.extend(step_embeds)
    return torch.stack(tokens, dim=1), torch.stack(logps, dim=1)


def decode_rows_alike(
    model: OpenVLA, inputs: PolicyInputs, dim: int, temperature: float, seeds: Sequence[int] | None
) -> tuple[Tensor, Tensor]:
    """As :func:`decode_actions`, with every bit of a row independent of the rest of the batch.

    Which kernel a matrix product runs through, and so its last bits, depends on the number of rows, in steps that
    differ from processor to processor; with several threads also on a row's place; attention takes another way where
    there is padding. So rows of equal prompt length go together, always :data:`ROWS` a call, the last call filled up by
    repeating a row, in one thread. A network that is not small goes through row by row, in as many threads as there
    are. Which episodes share a batch depends on which worker answers first, so without this a collection would not
    give the same bytes twice.
    """
    tokens_BD = torch.empty(len(inputs), dim, dtype=torch.long)
    logps_BD = torch.empty(len(inputs), dim)
    with equal_calls(model, inputs) as calls:
        for rows, filled in calls:
            own_seeds = None if seeds is None else [seeds[row] for row in filled]
            tokens, logps = decode_actions(model, inputs.select(filled), dim, temperature, own_seeds)
            tokens_BD[rows], logps_BD[rows] = tokens[: len(rows)].cpu(), logps[: len(rows)].cpu()
    return tokens_BD, logps_BD


@contextlib.contextmanager
def equal_calls(model: OpenVLA, inputs: PolicyInputs) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Rows divided into calls of one shape, and the number of threads to make them in; see :func:`decode_rows_alike`.

    Yields:
        For each call its rows, and the same filled up to the number of rows that every call has.
    """
    small = sum(parameter.numel() for parameter in model.parameters()) < SMALL
    count = ROWS if small else 1
    groups: dict[int, list[int]] = {}
    for row, ids in enumerate(inputs.prompt_ids):
        groups.setdefault(len(ids), []).append(row)
    calls = [group[start : start + count] for group in groups.values() for start in range(0, len(group), count)]
    with _threads(1 if small else torch.get_num_threads()):
        yield [(rows, rows + rows[-1:] * (count - len(rows))) for rows in calls]


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads of PyTorch for a while."""
    before = torch.get_num_threads()
    if before != count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if before != count:
            torch.set_num_threads(before)


def choose_tokens(logits_BV: Tensor, temperature: float, generators: Sequence[np.random.Generator]) -> Tensor:
    """One token a row: the largest logit at temperature 0, else a sample of ``softmax(logits / temperature)``.

    Args:
        logits_BV: Over the whole vocabulary, ``(B, V)``.
        temperature: Not negative.
        generators: One a row, read only when sampling; each moves on by ``V`` numbers.

    Returns:
        Token ids, int64 ``(B,)``.
    """
    if temperature <= 0.0:
        return logits_BV.argmax(dim=-1)
    noise_BV = np.stack([generator.gumbel(size=logits_BV.shape[1]) for generator in generators])
    scores_BV = logits_BV.double() / temperature + torch.from_numpy(noise_BV).to(logits_BV.device)
    return scores_BV.argmax(dim=-1)
