"""Vision towers and projector: a DINOv2-style and a SigLIP-style ViT under the names that timm gave their weights.

Three things differ from an ordinary ViT, all as published: the feature is the output of a block before the last one,
without the final norm; class and register tokens are dropped from it; and tensors that nothing reads (last block,
final norm, pooling head) still exist, because other programs load checkpoints strictly. Those are frozen and never run.
"""

import itertools
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from grape.policies.presets import TowerConfig

__all__ = ["Projector", "VisionBackbone", "VisionTower"]

_NORM_EPS = 1e-6


class _Scale(nn.Module):
    """LayerScale; its weight is called ``scale_factor`` in OpenVLA's checkpoints (``gamma`` in timm)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(width))

    def forward(self, x_BNC: Tensor) -> Tensor:
        return x_BNC * self.scale_factor


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BNC: Tensor) -> Tensor:
        batch, tokens, width = x_BNC.shape
        qkv = self.qkv(x_BNC).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed_BHNE = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return cast(Tensor, self.proj(mixed_BHNE.transpose(1, 2).reshape(batch, tokens, width)))


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x))))  # exact GELU in both towers


class _Block(nn.Module):
    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=_NORM_EPS)
        self.attn = _Attention(config.width, config.heads)
        self.ls1 = _Scale(config.width) if config.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(config.width, eps=_NORM_EPS)
        self.mlp = _Mlp(config.width, config.mlp_width)
        self.ls2 = _Scale(config.width) if config.layer_scale else nn.Identity()

    def forward(self, x_BNC: Tensor) -> Tensor:
        x_BNC = x_BNC + self.ls1(self.attn(self.norm1(x_BNC)))
        return cast(Tensor, x_BNC + self.ls2(self.mlp(self.norm2(x_BNC))))


class _AttentionPool(nn.Module):
    """SigLIP's pooling head: weights only, since OpenVLA reads patch features."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.zeros(1, 1, config.width))
        self.q = nn.Linear(config.width, config.width)
        self.kv = nn.Linear(config.width, 2 * config.width)
        self.proj = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, eps=_NORM_EPS)
        self.mlp = _Mlp(config.width, config.mlp_width)


class _PatchStem(nn.Module):
    """One convolution that turns each patch into a token."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, kernel_size=config.patch, stride=config.patch)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return cast(Tensor, self.proj(pixels_BCHW))


class _ConvStem(nn.Module):
    """3x3 convolutions of stride 2 with ReLU between them; the last one gives the tokens.

    Early convolutions make small transformers learn faster and see finer than one patch convolution
    (arXiv 2106.14881). ReLU, because on a CPU GELU costs as much here as a convolution.
    """

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        channels = (3, *config.stem_channels, config.width)
        if 2 ** (len(channels) - 1) != config.patch:
            raise ValueError(f"{len(channels) - 1} convolutions of stride 2 cannot give patches of {config.patch}")
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1)
            for before, after in itertools.pairwise(channels)
        )

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        x = pixels_BCHW.contiguous(memory_format=torch.channels_last)
        for number, conv in enumerate(self.convs):
            x = conv(F.relu(x) if number else x)
        return x


class VisionTower(nn.Module):
    """One ViT.

    Args:
        config: Its shape.
    """

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        if config.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        if config.registers:
            self.reg_token = nn.Parameter(torch.zeros(1, config.registers, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.patches, config.width))
        self.patch_embed = _ConvStem(config) if config.stem == "conv" else _PatchStem(config)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        if config.final_norm:
            self.norm = nn.LayerNorm(config.width, eps=_NORM_EPS)
        if config.attention_pool:
            self.attn_pool = _AttentionPool(config)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not self._is_unread(name))
        self.checkpointing = False

    def _is_unread(self, name: str) -> bool:
        part, *rest = name.split(".")
        return part in {"norm", "attn_pool"} or (part == "blocks" and int(rest[0]) > self.config.feature_block)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Patch features.

        Args:
            pixels_BCHW: Normalized images, ``(B, 3, H, W)``.

        Returns:
            ``(B, patches, width)``, row by row from the top left.
        """
        x_BNC = self.patch_embed(pixels_BCHW).flatten(2).transpose(1, 2)
        x_BNC = x_BNC + self.pos_embed  # before the prefix tokens, which have no position (timm's no_embed_class)
        batch = x_BNC.shape[0]
        prefix = []
        if self.config.class_token:
            prefix.append(self.cls_token.expand(batch, -1, -1))
        if self.config.registers:
            prefix.append(self.reg_token.expand(batch, -1, -1))
        if prefix:
            x_BNC = torch.cat([*prefix, x_BNC], dim=1)
        for number in range(self.config.feature_block + 1):
            if self.checkpointing and torch.is_grad_enabled():
                x_BNC = checkpoint(self.blocks[number], x_BNC, use_reentrant=False)
            else:
                x_BNC = self.blocks[number](x_BNC)
        return cast(Tensor, x_BNC[:, self.config.prefix :])


class VisionBackbone(nn.Module):
    """One tower, or two whose features are concatenated; ``featurizer`` reads the first three channels.

    Args:
        towers: Shapes of the towers.
    """

    def __init__(self, towers: tuple[TowerConfig, ...]) -> None:
        super().__init__()
        self.featurizer = VisionTower(towers[0])
        if len(towers) == 2:
            self.fused_featurizer = VisionTower(towers[1])
        self.fused = len(towers) == 2
        self.width = sum(tower.width for tower in towers)

    def checkpoint_activations(self) -> None:
        """Compute the inside of each block again in the backward pass instead of keeping it."""
        for tower in (self.featurizer, self.fused_featurizer) if self.fused else (self.featurizer,):
            tower.checkpointing = True

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Patch features ``(B, patches, width)`` of images ``(B, 3 or 6, H, W)``."""
        if not self.fused:
            return cast(Tensor, self.featurizer(pixels_BCHW))
        return torch.cat([self.featurizer(pixels_BCHW[:, :3]), self.fused_featurizer(pixels_BCHW[:, 3:])], dim=2)


class Projector(nn.Module):
    """From image features to embeddings of the language model: three layers for fused towers, else two.

    Args:
        vision_width: Channels of an image feature.
        hidden: Width of the language model.
        fused: Whether two towers feed it.
    """

    def __init__(self, vision_width: int, hidden: int, fused: bool) -> None:
        super().__init__()
        first = 4 * vision_width if fused else hidden
        self.fc1 = nn.Linear(vision_width, first)
        self.fc2 = nn.Linear(first, hidden)
        if fused:
            self.fc3 = nn.Linear(hidden, hidden)
        self.fused = fused

    def forward(self, features_BNC: Tensor) -> Tensor:
        """Embeddings ``(B, patches, hidden)``."""
        x = self.fc2(F.gelu(self.fc1(features_BNC)))
        return cast(Tensor, self.fc3(F.gelu(x)) if self.fused else x)
