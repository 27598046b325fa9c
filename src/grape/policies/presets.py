"""Shapes of vision towers and of the nano policy: plain data, no torch.

The published ``config.json`` names its towers (``timm_model_ids``) without giving their sizes, so the sizes live here.
A checkpoint may also carry them itself under ``grape.towers`` (the nano preset does); that wins over this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["NANO", "TOWERS", "NanoShape", "TowerConfig"]


@dataclass(frozen=True)
class TowerConfig:
    """Size and style of one vision transformer.

    Attributes:
        width: Channels of a token.
        depth: Number of blocks, counting those whose output nothing reads.
        heads: Attention heads; divides ``width``.
        mlp_width: Hidden channels of a block's MLP.
        patch: Side of the square of pixels that becomes one token.
        image_size: Side of the square image.
        feature_block: Index of the block whose output (without the final norm) is the feature; later blocks are kept
            for their names but never run. Published: ``depth - 2``.
        class_token: Whether a class token stands before the patches.
        registers: Number of register tokens after the class token.
        layer_scale: Whether each residual branch has a learnt scale.
        final_norm: Whether the (never read) final norm exists.
        attention_pool: Whether the (never read) attention pooling head of SigLIP exists.
        stem: ``"patch"``: one convolution of kernel and stride ``patch``. ``"conv"``: a chain of 3x3 convolutions of
            stride 2, which sees small things better in small images.
        stem_channels: Channels after each convolution but the last; only for ``"conv"``.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    patch: int
    image_size: int
    feature_block: int
    class_token: bool = False
    registers: int = 0
    layer_scale: bool = False
    final_norm: bool = True
    attention_pool: bool = False
    stem: Literal["patch", "conv"] = "patch"
    stem_channels: tuple[int, ...] = ()

    @property
    def patches(self) -> int:
        """Number of patch tokens of an image."""
        return (self.image_size // self.patch) ** 2

    @property
    def prefix(self) -> int:
        """Number of tokens before the patches."""
        return int(self.class_token) + self.registers


def _dinov2_reg4(width: int, depth: int, heads: int) -> TowerConfig:
    return TowerConfig(
        width=width,
        depth=depth,
        heads=heads,
        mlp_width=4 * width,
        patch=14,
        image_size=224,
        feature_block=depth - 2,
        class_token=True,
        registers=4,
        layer_scale=True,
    )


def _siglip(width: int, depth: int, heads: int) -> TowerConfig:
    return TowerConfig(
        width=width,
        depth=depth,
        heads=heads,
        mlp_width=int(3.7362 * width),  # so400m's ratio: 1152 -> 4304
        patch=14,
        image_size=224,
        feature_block=depth - 2,
        attention_pool=True,
    )


TOWERS: Mapping[str, TowerConfig] = {
    "vit_large_patch14_reg4_dinov2.lvd142m": _dinov2_reg4(1024, 24, 16),
    "vit_so400m_patch14_siglip_224": _siglip(1152, 27, 16),
    # The tiny pair of the golden fixtures, made with the public reference implementation.
    "vit_tinydino_patch14_reg4_dinov2": _dinov2_reg4(48, 3, 3),
    "vit_tinysiglip_patch14_siglip_224": _siglip(40, 3, 4),
}
"""Known towers by their published names."""


@dataclass(frozen=True)
class NanoShape:
    """Everything that fixes the size of the nano policy.

    Attributes:
        tower: The one vision tower.
        hidden: Width of the language model.
        layers: Its depth.
        heads: Its attention heads.
        mlp: Hidden channels of its MLP.
        action_bins: Bins a dimension of the action. 32 rather than the published 256: a policy of this size that is
            cloned from a few demonstrations spreads its probability over neighbouring bins.
    """

    tower: TowerConfig = field(
        default_factory=lambda: TowerConfig(
            width=96,
            depth=2,
            heads=4,
            mlp_width=288,
            patch=16,
            image_size=64,
            feature_block=1,
            final_norm=False,
            stem="conv",
            stem_channels=(16, 32, 64),
        )
    )
    hidden: int = 96
    layers: int = 3
    heads: int = 4
    mlp: int = 256
    action_bins: int = 32


NANO = NanoShape()
"""The nano preset."""
