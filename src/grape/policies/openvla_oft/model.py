"""The network of OpenVLA-OFT: OpenVLA's, with rows of zeros where the actions come out, all in one forward pass.

The sequence is: begin-of-sequence token, patches of each camera, the robot's state if it is read, rest of the prompt,
``K * D`` rows of zeros, the stop token's row. Nothing but rotary position tells the rows of zeros apart. Action token
``k`` (dimension by dimension, action by action) is read one row early: the last row of the prompt gives token 0, row
``k - 1`` of the zeros token ``k``. Given the observation all tokens are independent, so log pi(chunk) is the sum of
their log-probabilities, exact and from one pass. Padding stands before the prompt's rest, masked out and not counted in
the positions, as in :mod:`grape.policies.openvla.model`.

Policies made here have ``K`` rows, one learned vector an action, and read all ``D`` tokens of action ``k`` one row
early through an output matrix of ``D * n_bins`` columns: the same factorization, half the time of an update.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grape.core.errors import PolicyError, SettingsError
from grape.policies.openvla.config import OpenVLAConfig
from grape.policies.openvla.model import OpenVLA, PolicyInputs
from grape.policies.openvla_oft.conventions import Conventions, Layout
from grape.policies.openvla_oft.parts import L1ActionHead

__all__ = ["PARTS", "OpenVLAOFT", "check_attention", "empty_oft_model", "logps_of", "rows_beside_prompt"]

_STOP_ID = 2

PARTS = ("proprio_projector", "action_head")
"""Submodules that are no part of ``model.safetensors``."""


class OpenVLAOFT(OpenVLA):
    """OpenVLA-OFT (arXiv 2502.19645) at any size. Its weights carry the names of OpenVLA's.

    Args:
        config: Configuration of the checkpoint.
        conventions: How it is run.
        layout: What goes in and comes out.
        attention: How the language model computes attention: ``"sdpa"`` or ``"eager"``; ``"flash_attention_2"`` where
            attention is causal.

    Attributes:
        conventions: As given.
        layout: As given.
        proprio_projector: Embeds the robot's state; None where it is not read. Attached after the other weights.
        action_head: L1 regression head; None where actions are tokens.
        placeholders: Embeddings of the rows where the actions come out, ``(K, hidden)``; None where they are zeros.

    Raises:
        SettingsError: This kind of attention cannot be bidirectional; or a row gives a whole action, so the network has
            logits of action tokens alone, and the support is the vocabulary.
    """

    def __init__(
        self, config: OpenVLAConfig, conventions: Conventions, layout: Layout, attention: str = "sdpa"
    ) -> None:
        check_attention(attention, conventions)
        super().__init__(config, attention)
        self.conventions = conventions
        self.layout = layout
        self.action_head: L1ActionHead | None = None
        self.placeholders: nn.Parameter | None = None
        if layout.placeholders == "per-action":
            if conventions.support != "window":
                raise SettingsError(
                    "This policy has logits of action tokens alone: a softmax over the vocabulary is not defined.",
                    "Leave --preset out, or add --convention support=window.",
                )
            self.placeholders = nn.Parameter(torch.empty(layout.rows, config.hidden))
            columns = layout.action_dim * len(self.window)
            self.language_model.lm_head = nn.Linear(config.hidden, columns, bias=False)

    @property
    def window(self) -> range:
        """Ids of the action tokens, lowest first: 31744 to 31999 published."""
        return range(self.vla_config.text_vocab - self.vla_config.action_bins, self.vla_config.text_vocab)

    @property
    def support(self) -> range:
        """Token ids that the softmax runs over."""
        return self.window if self.conventions.support == "window" else range(int(self.vla_config.text["vocab_size"]))

    def hidden_rows(self, inputs: PolicyInputs, extra: int = 0) -> Tensor:
        """Final hidden states of the rows that give the action tokens.

        Args:
            inputs: ``B`` encoded observations.
            extra: 1 adds the last placeholder's row, from which the reference's training loss reads the stop token.

        Returns:
            ``(B, R + extra, hidden)``, with gradient, of the layout's ``R`` rows: one a token, or one an action.
        """
        prefix = self.embed_prompts(inputs)
        batch, length, hidden = prefix.embeds_BSH.shape
        if self.placeholders is None:
            whole = prefix.extend(prefix.embeds_BSH.new_zeros(batch, self.layout.rows, hidden))
        else:
            whole = prefix.extend(self.placeholders.expand(batch, -1, -1))
        embeddings = self.language_model.model.embed_tokens
        if self.conventions.stop_row == "kept":
            stop_B1 = torch.full((batch, 1), _STOP_ID, dtype=torch.long, device=self.device)
            whole = whole.extend(embeddings(stop_B1))
        hidden_BSH = self.language_model.model(
            inputs_embeds=whole.embeds_BSH,
            attention_mask=whole.mask(self.attention, causal=self.conventions.attention == "causal"),
            position_ids=whole.positions(),
            use_cache=False,
        ).last_hidden_state
        return cast(Tensor, hidden_BSH[:, length - 1 : length - 1 + self.layout.rows + extra])

    def chunk_logits(self, inputs: PolicyInputs) -> Tensor:
        """Logits of each action token over the support, divided by the temperature.

        Args:
            inputs: ``B`` encoded observations.

        Returns:
            float32 ``(B, K * D, V)``, with gradient; column ``v`` is token ``support[v]``.

        Raises:
            PolicyError: The policy has a regression head: its language model was not trained to give tokens.
        """
        if self.layout.head != "tokens":
            raise PolicyError(
                "This policy has an L1 regression head and no action tokens: its lm_head was never trained to act.",
                "It has no log-probabilities; preferences need a checkpoint with action tokens.",
            )
        logits_BTV = self.language_model.lm_head(self.hidden_rows(inputs))
        if self.layout.placeholders == "per-action":
            logits_BTV = logits_BTV.reshape(len(inputs), self.layout.tokens, len(self.window))
            # Under a wider support, as a probe reads it, other tokens have no probability.
            before, behind = self.window.start - self.support.start, self.support.stop - self.window.stop
            logits_BTV = F.pad(logits_BTV, (before, behind), value=-torch.inf)
        else:
            logits_BTV = logits_BTV[..., self.support.start : self.support.stop]
        logits_BTV = logits_BTV.float()
        return cast(Tensor, logits_BTV / self.conventions.temperature)

    def token_logps(self, inputs: PolicyInputs, tokens_BKD: Tensor) -> Tensor:
        """Log-probability of each action token over the support, at the temperature.

        Args:
            inputs: ``B`` encoded observations.
            tokens_BKD: Action token ids, integer ``(B, K, D)``.

        Returns:
            float32 ``(B, K, D)``, with gradient; minus infinity for ids outside the support.

        Raises:
            PolicyError: The tokens are of another chunk or another action than the policy's.
        """
        self._check_tokens(inputs, tokens_BKD)
        return logps_of(self.chunk_logits(inputs), tokens_BKD, self.support)

    def decision_logps(self, inputs: PolicyInputs, tokens_BKD: Tensor, executed_B: Tensor) -> Tensor:
        """Log-probability of each decision's executed actions.

        Args:
            inputs: ``B`` encoded observations.
            tokens_BKD: Action token ids, integer ``(B, K, D)``.
            executed_B: How many actions of each chunk were executed, from 0 to ``K``. Tokens of later actions are not
                read and have no gradient.

        Returns:
            float32 ``(B,)``, with gradient: sums over executed tokens.

        Raises:
            PolicyError: An executed token lies outside the support: it was not sampled under these conventions. Or the
                tokens are of another chunk or another action than the policy's.
        """
        self._check_tokens(inputs, tokens_BKD)
        executed_B = executed_B.to(device=self.device)
        if bool(((executed_B < 0) | (executed_B > self.layout.chunk)).any()):
            raise PolicyError(f"Executed actions must be 0 to {self.layout.chunk}, found {executed_B.tolist()}.")
        played_BK1 = (torch.arange(self.layout.chunk, device=self.device) < executed_B[:, None])[..., None]
        tokens_BKD = torch.where(played_BK1, tokens_BKD.to(device=self.device), self.support.start)
        logps_BKD = logps_of(self.chunk_logits(inputs), tokens_BKD, self.support)
        if bool(torch.isneginf(logps_BKD).any()):
            raise PolicyError(
                f"Some executed tokens lie outside ids {self.support.start} to {self.support.stop - 1}.",
                "They were sampled over another support: use the conventions they were collected under.",
            )
        return torch.where(played_BK1, logps_BKD, 0.0).sum(dim=(1, 2))

    def _check_tokens(self, inputs: PolicyInputs, tokens_BKD: Tensor) -> None:
        due = (len(inputs), self.layout.chunk, self.layout.action_dim)
        if tuple(tokens_BKD.shape) != due:
            raise PolicyError(
                f"Tokens {tuple(tokens_BKD.shape)} are given, not {due}: the policy decides {due[1]} actions of "
                f"{due[2]} dimensions.",
                "They were collected with another policy.",
            )


def check_attention(attention: str, conventions: Conventions) -> None:
    """Refuse an implementation of attention that cannot compute a policy's.

    Raises:
        SettingsError: Flash attention, where attention is bidirectional.
    """
    if attention == "flash_attention_2" and conventions.attention == "bidirectional":
        raise SettingsError(
            "Flash attention is causal here, and this policy's attention is bidirectional.", "Use --attention sdpa."
        )


def logps_of(logits_BTV: Tensor, tokens_BKD: Tensor, support: range) -> Tensor:
    """Log-probabilities ``(B, K, D)`` of token ids, from logits over a support; minus infinity outside of it."""
    index_BT1 = tokens_BKD.to(device=logits_BTV.device, dtype=torch.long).flatten(1)[..., None] - support.start
    inside_BT1 = (index_BT1 >= 0) & (index_BT1 < len(support))
    chosen_BT1 = logits_BTV.gather(-1, index_BT1.clamp(0, len(support) - 1))
    logps_BT1 = torch.where(inside_BT1, chosen_BT1 - logits_BTV.logsumexp(-1, keepdim=True), -torch.inf)
    return logps_BT1.reshape(tokens_BKD.shape)


def rows_beside_prompt(config: OpenVLAConfig, conventions: Conventions, layout: Layout) -> int:
    """Rows of a sequence that are not the prompt's: patches, the robot's state, placeholders and the stop row."""
    state_and_stop = bool(layout.proprio_dim) + (conventions.stop_row == "kept")
    return len(layout.cameras) * config.patches + layout.rows + state_and_stop


def empty_oft_model(
    config: OpenVLAConfig, conventions: Conventions, layout: Layout, attention: str = "sdpa"
) -> OpenVLAOFT:
    """The network without memory for its weights and without the parts of their own, to be filled by assignment."""
    with torch.device("meta"):
        return OpenVLAOFT(config, conventions, layout, attention)
