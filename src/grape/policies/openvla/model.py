"""The network: image towers, projector, Llama. Weights carry OpenVLA's published names.

The sequence is: begin-of-sequence token, image tokens, the robot's state as one token if the policy reads it, rest of
the prompt, action tokens. Where prompts of a batch
differ in length, the rest of the prompt is padded on its left; padded positions are masked out and not counted in the
positions, so a row means the same alone and in any batch. Logits are computed at the action positions only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from grape.core.errors import PolicyError
from grape.policies.openvla.config import OpenVLAConfig
from grape.policies.openvla.proprio import ProprioProjector
from grape.policies.openvla.vision import Projector, VisionBackbone

__all__ = ["OpenVLA", "PolicyInputs", "Prefix"]


_Rows = TypeVar("_Rows", slice, Tensor)


@dataclass(frozen=True, eq=False)
class PolicyInputs:
    """A batch of encoded observations: either images or what the vision towers make of them.

    Attributes:
        pixel_values_BCHW: Normalized images, float32; ``C`` is 3 channels a tower, of one camera after the other where
            there are several. None where features are given.
        prompt_ids: Token ids of each prompt, beginning with the begin-of-sequence token; lengths may differ.
        features_BNC: Outputs of the vision towers (``OpenVLA.image_features``), where they were computed before:
            frozen towers need not run again.
        proprio_BP: Normalized robot state, float32, for policies that read it; else None.
    """

    pixel_values_BCHW: Tensor | None
    prompt_ids: tuple[tuple[int, ...], ...]
    features_BNC: Tensor | None = None
    proprio_BP: Tensor | None = None

    def __post_init__(self) -> None:
        images = self.pixel_values_BCHW if self.features_BNC is None else self.features_BNC
        if images is None or (self.pixel_values_BCHW is not None and self.features_BNC is not None):
            raise ValueError("either images or features are needed")
        if images.shape[0] != len(self.prompt_ids):
            raise ValueError(f"{images.shape[0]} images with {len(self.prompt_ids)} prompts")
        if self.proprio_BP is not None and self.proprio_BP.shape[0] != len(self.prompt_ids):
            raise ValueError(f"{self.proprio_BP.shape[0]} robot states with {len(self.prompt_ids)} prompts")

    def __len__(self) -> int:
        return len(self.prompt_ids)

    def slice(self, start: int, stop: int) -> "PolicyInputs":
        """Rows ``start`` to ``stop`` (exclusive); shares memory."""
        return self._rows(slice(start, stop), self.prompt_ids[start:stop])

    def select(self, rows: Sequence[int]) -> "PolicyInputs":
        """The given rows, in that order."""
        index = torch.as_tensor(list(rows), dtype=torch.long)
        return self._rows(index, tuple(self.prompt_ids[row] for row in rows))

    def _rows(self, index: _Rows, prompt_ids: tuple[tuple[int, ...], ...]) -> "PolicyInputs":
        return PolicyInputs(
            None if self.pixel_values_BCHW is None else self.pixel_values_BCHW[index],
            prompt_ids,
            None if self.features_BNC is None else self.features_BNC[index],
            None if self.proprio_BP is None else self.proprio_BP[index],
        )

    @staticmethod
    def cat(parts: Sequence["PolicyInputs"]) -> "PolicyInputs":
        """One batch out of several, all with images or all with features."""
        pixels = [part.pixel_values_BCHW for part in parts if part.pixel_values_BCHW is not None]
        features = [part.features_BNC for part in parts if part.features_BNC is not None]
        proprio = [part.proprio_BP for part in parts if part.proprio_BP is not None]
        return PolicyInputs(
            torch.cat(pixels) if pixels else None,
            tuple(ids for part in parts for ids in part.prompt_ids),
            torch.cat(features) if features else None,
            torch.cat(proprio) if proprio else None,
        )


class Prefix:
    """A batch of embedded prompts with images, ready for the language model.

    Args:
        embeds_BSH: Embeddings, ``(B, S, hidden)``.
        valid_BS: Which positions are not padding; None if all.
    """

    def __init__(self, embeds_BSH: Tensor, valid_BS: Tensor | None) -> None:
        self.embeds_BSH = embeds_BSH
        self.valid_BS = valid_BS

    def extend(self, embeds_BTH: Tensor) -> "Prefix":
        """The same with ``T`` further embeddings behind."""
        valid = self.valid_BS
        if valid is not None:
            valid = torch.cat([valid, valid.new_ones(embeds_BTH.shape[:2])], dim=1)
        return Prefix(torch.cat([self.embeds_BSH, embeds_BTH], dim=1), valid)

    def positions(self) -> Tensor | None:
        """Position of each embedding without counting padding, ``(B, S)``; None stands for 0, 1, 2, ..."""
        if self.valid_BS is None:
            return None
        return (self.valid_BS.long().cumsum(dim=1) - 1).clamp_min_(0)

    def mask(self, attention: str = "sdpa", first: int = 0, *, causal: bool = True) -> Tensor | None:
        """Which position may look at which, in the form that an implementation of attention reads.

        Args:
            attention: ``"sdpa"``, ``"eager"`` or ``"flash_attention_2"``.
            first: First position that looks; the ones before it are in the cache.
            causal: False lets every position look at every other that is not padding; not for flash attention.

        Returns:
            None for plain causal. Else for sdpa bool ``(B, 1, S - first, S)``; for eager the same as numbers to add;
            for flash attention the positions that are not padding, ``(B, S)``.
        """
        if causal and (self.valid_BS is None or attention == "flash_attention_2"):
            return self.valid_BS
        batch, length = self.embeds_BSH.shape[:2]
        seen_SS = torch.ones(length, length, dtype=torch.bool, device=self.embeds_BSH.device)
        allowed_B1QS = (seen_SS.tril() if causal else seen_SS).expand(batch, 1, -1, -1)[:, :, first:]
        if self.valid_BS is not None:
            allowed_B1QS = allowed_B1QS & self.valid_BS[:, None, None, :]
        if attention == "sdpa":
            return allowed_B1QS
        forbidden = torch.finfo(self.embeds_BSH.dtype).min
        return torch.zeros_like(allowed_B1QS, dtype=self.embeds_BSH.dtype).masked_fill_(~allowed_B1QS, forbidden)


class OpenVLA(nn.Module):
    """OpenVLA (arXiv 2406.09246) at any size.

    Args:
        config: Its configuration, kept as ``vla_config``.
        attention: How the language model computes attention: ``"sdpa"``, ``"eager"`` or ``"flash_attention_2"``.

    Attributes:
        proprio_projector: Embeds the robot's state; None where it is not read.
    """

    def __init__(self, config: OpenVLAConfig, attention: str = "sdpa") -> None:
        super().__init__()
        self.vla_config = config
        self.attention = attention
        self.vision_backbone = VisionBackbone(config.towers)
        self.projector = Projector(self.vision_backbone.width, config.hidden, config.fused)
        self.language_model: Any = LlamaForCausalLM(llama_config(config, attention))
        self.proprio_projector: ProprioProjector | None = None
        if config.proprio_dim:
            self.proprio_projector = ProprioProjector(config.proprio_dim, config.hidden)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.projector.fc1.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type the network computes in."""
        return self.vision_backbone.featurizer.pos_embed.dtype

    def checkpoint_activations(self) -> None:
        """Keep one hidden state a block for the backward pass and compute the rest again: less memory, more time.

        The gradient stays the same, since the network has no dropout.
        """
        llama, options = self.language_model, {"use_reentrant": False}
        if hasattr(llama, "activation_checkpointing_enable"):
            llama.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
        else:  # its name in earlier releases of transformers 5
            llama.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
        for block in self.language_model.model.layers:
            block.training = True  # transformers checkpoints blocks in training mode only
        self.vision_backbone.checkpoint_activations()

    def image_features(self, pixel_values_BCHW: Tensor) -> Tensor:
        """What the vision towers make of images; the projector comes after.

        Args:
            pixel_values_BCHW: Normalized images, float32; several cameras one after the other along the channels.

        Returns:
            ``(B, N, C)``: ``N`` patches, of one camera after the other, with the concatenated channels of the towers.
        """
        pixels = pixel_values_BCHW.to(device=self.device, dtype=self.dtype)
        channels = 3 * len(self.vla_config.towers)
        features_MNC = self.vision_backbone(pixels.reshape(-1, channels, *pixels.shape[2:]))
        return cast(Tensor, features_MNC.reshape(len(pixels), -1, features_MNC.shape[2]))

    def embed_prompts(self, inputs: PolicyInputs) -> Prefix:
        """Embed images, robot states and prompts.

        Args:
            inputs: ``B`` encoded observations.

        Returns:
            ``S = 1 + patches + R + (longest prompt - 1)`` embeddings a row; ``R`` is 1 where the robot's state is read,
            else 0.

        Raises:
            PolicyError: States are missing, or given to a policy that does not read them.
        """
        if inputs.features_BNC is None:
            features_BNC = self.image_features(cast(Tensor, inputs.pixel_values_BCHW))
        else:
            features_BNC = inputs.features_BNC.to(device=self.device, dtype=self.dtype)
        image_BNH = self.projector(features_BNC)
        if (self.proprio_projector is None) != (inputs.proprio_BP is None):
            reads = "does not read" if self.proprio_projector is None else "reads"
            raise PolicyError(f"This policy {reads} the robot's state.", "Give it exactly where it is read.")
        if self.proprio_projector is not None and inputs.proprio_BP is not None:
            proprio_BP = inputs.proprio_BP.to(device=self.device, dtype=self.dtype)
            image_BNH = torch.cat([image_BNH, self.proprio_projector(proprio_BP)], dim=1)
        longest = max(len(ids) for ids in inputs.prompt_ids)
        pad = self.vla_config.pad_token_id
        rows = [(ids[0], *(pad,) * (longest - len(ids)), *ids[1:]) for ids in inputs.prompt_ids]
        ids_BL = torch.tensor(rows, dtype=torch.long, device=self.device)
        text_BLH = self.language_model.model.embed_tokens(ids_BL)
        embeds_BSH = torch.cat([text_BLH[:, :1], image_BNH, text_BLH[:, 1:]], dim=1)
        if all(len(ids) == longest for ids in inputs.prompt_ids):
            return Prefix(embeds_BSH, None)
        start = 1 + image_BNH.shape[1]
        padding_B1 = torch.tensor([[longest - len(ids)] for ids in inputs.prompt_ids], device=self.device)
        place_1S = torch.arange(embeds_BSH.shape[1], device=self.device)[None]
        return Prefix(embeds_BSH, (place_1S < start) | (place_1S >= start + padding_B1))

    def action_logits(self, inputs: PolicyInputs, tokens_BD: Tensor) -> Tensor:
        """Logits of each action token given the ones before it (teacher forcing).

        Args:
            inputs: ``B`` encoded observations.
            tokens_BD: Action token ids, integer ``(B, D)``; the last column is not read.

        Returns:
            ``(B, D, V)`` over the whole vocabulary, with gradient.
        """
        prefix = self.embed_prompts(inputs)
        tokens_BD = tokens_BD.to(device=self.device, dtype=torch.long)
        whole = prefix.extend(self.language_model.model.embed_tokens(tokens_BD[:, :-1]))
        hidden_BSH = self.language_model.model(
            inputs_embeds=whole.embeds_BSH,
            attention_mask=whole.mask(self.attention),
            position_ids=whole.positions(),
            use_cache=False,
        ).last_hidden_state
        return cast(Tensor, self.language_model.lm_head(hidden_BSH[:, -tokens_BD.shape[1] :]))

    def action_logps(self, inputs: PolicyInputs, tokens_BD: Tensor) -> Tensor:
        """Log-probability of each action token under temperature 1 over the whole vocabulary.

        Args:
            inputs: ``B`` encoded observations.
            tokens_BD: Action token ids, integer ``(B, D)``.

        Returns:
            float32 ``(B, D)``, with gradient. Their sum is log pi(a | o, q).
        """
        logits_BDV = self.action_logits(inputs, tokens_BD).float()
        index_BD1 = tokens_BD.to(device=logits_BDV.device, dtype=torch.long).unsqueeze(-1)
        return logits_BDV.gather(-1, index_BD1).squeeze(-1) - logits_BDV.logsumexp(-1)


def llama_config(config: OpenVLAConfig, attention: str = "sdpa") -> Any:
    """Settings for transformers' Llama, all of them explicit."""
    text = dict(config.text)
    rope_theta = text.pop("rope_theta")
    heads = text.pop("num_key_value_heads") or text["num_attention_heads"]
    return LlamaConfig(
        **text,
        num_key_value_heads=heads,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        attn_implementation=attention,
        pad_token_id=None,  # would zero an embedding's gradient; padding is masked here instead
        use_cache=False,
    )
