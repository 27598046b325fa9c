"""Decoding of action tokens: a batch at a time, with a cache, exactly as many tokens as an action has dimensions.

The loop is our own. The published way through ``generate`` depends on how a library passes its first, empty cache:
with a current transformers it silently drops the image.
"""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import DynamicCache

from grape.core.errors import PolicyError
from grape.policies.openvla.model import OpenVLA, PolicyInputs

__all__ = ["choose_tokens", "decode_actions", "decode_rows_alike", "equal_calls", "seed_tensor"]

ROWS = 16
"""Rows of one call of a small network where each row's bits must not depend on the others."""
SMALL = 10**8
"""Parameters below which a network is small: one thread computes it, and many rows share a call."""


@torch.inference_mode()
def decode_actions(
    model: OpenVLA,
    inputs: PolicyInputs,
    dim: int,
    temperature: float,
    seeds: Sequence[int] | None,
    action_ids: npt.NDArray[np.int64] | None = None,
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
        action_ids: The ids that are sampled from, int64 ``(K,)``; None is the whole vocabulary.

    Returns:
        Token ids, int64 ``(B, D)``, and their log-probabilities under temperature 1 over the whole vocabulary,
        float32 ``(B, D)``.

    Raises:
        PolicyError: The logits are not finite.
    """
    seeds_B = seed_tensor(seeds, model.device)
    ids_K = None if action_ids is None else torch.from_numpy(action_ids).to(model.device)
    llama = model.language_model
    prefix = model.embed_prompts(inputs)
    cache = DynamicCache(config=llama.config)
    step_embeds, first = prefix.embeds_BSH, 0
    tokens: list[Tensor] = []
    logps: list[Tensor] = []
    for place in range(dim):
        positions = prefix.positions()
        hidden_BSH = llama.model(
            inputs_embeds=step_embeds,
            attention_mask=prefix.mask(model.attention, first),
            position_ids=None if positions is None else positions[:, first:],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        logits_BV = llama.lm_head(hidden_BSH[:, -1]).float()
        chosen_B = choose_tokens(logits_BV, temperature, seeds_B, place, ids_K)
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
    model: OpenVLA,
    inputs: PolicyInputs,
    dim: int,
    temperature: float,
    seeds: Sequence[int] | None,
    action_ids: npt.NDArray[np.int64] | None = None,
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
            tokens, logps = decode_actions(model, inputs.select(filled), dim, temperature, own_seeds, action_ids)
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


def choose_tokens(
    logits_BV: Tensor, temperature: float, seeds_B: Tensor, place: int, ids_K: Tensor | None = None
) -> Tensor:
    """One token a row: the largest logit at temperature 0, else a sample of ``softmax(logits / temperature)``.

    Args:
        logits_BV: Over the whole vocabulary, ``(B, V)``.
        temperature: Not negative.
        seeds_B: Seed of each row, int64; read only when sampling.
        place: Which token of the action it is, from 0: each has noise of its own.
        ids_K: The ids that are sampled from, int64; None is the whole vocabulary.

    Returns:
        Token ids, int64 ``(B,)``.
    """
    if temperature <= 0.0:
        return logits_BV.argmax(dim=-1)
    logits_BK = logits_BV if ids_K is None else logits_BV[:, ids_K]
    noise_BK = _gumbel_noise(seeds_B, place, logits_BK.shape[1])
    chosen_B = (logits_BK.double() / temperature + noise_BK).argmax(dim=-1)
    return chosen_B if ids_K is None else ids_K[chosen_B]


def seed_tensor(seeds: Sequence[int] | None, device: torch.device) -> Tensor:
    """Seeds as int64 of the same low 64 bits, ``(B,)``; empty without seeds."""
    return torch.tensor([_signed(seed) for seed in seeds or ()], dtype=torch.int64, device=device)


def _gumbel_noise(seeds_B: Tensor, place: int, count: int) -> Tensor:
    """Standard Gumbel numbers, float64 ``(B, count)``, made where the seeds lie.

    Each is a function of its row's seed, the place and its column: SplitMix64 (Steele, Lea, Flood: "Fast splittable
    pseudorandom number generators", 2014) of a counter. Integers are exact, so all devices begin with the same bits.
    """
    counter_K = torch.arange(1, count + 1, device=seeds_B.device) + (place << 32)
    bits_BK = _mix(_mix(seeds_B)[:, None] + counter_K * _signed(0x9E3779B97F4A7C15))
    uniform_BK = (_shift(bits_BK, 12).double() + 0.5) * 2.0**-52  # in (0, 1): 52 bits and a half are exact
    return -torch.log(-torch.log(uniform_BK))


def _mix(state: Tensor) -> Tensor:
    """SplitMix64's output function, on 64 bits kept as int64; products wrap around."""
    state = (state ^ _shift(state, 30)) * _signed(0xBF58476D1CE4E5B9)
    state = (state ^ _shift(state, 27)) * _signed(0x94D049BB133111EB)
    return state ^ _shift(state, 31)


def _shift(state: Tensor, bits: int) -> Tensor:
    """Shift to the right that fills with zeros."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The int64 of the same low 64 bits."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
