"""Shapes of vision towers and of the nano policy: plain data, no torch.

The published ``config.json`` names its towers (``timm_model_ids``) without giving their sizes, so the sizes are listed
here. A checkpoint may also carry them itself under ``grape.towers`` (the nano preset does); that takes precedence over
this table.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from grape.core.errors import DataError, did_you_mean

__all__ = ["NANO", "TOWERS", "NanoShape", "TowerConfig", "check_text", "check_tower"]


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
        layer_scale: Whether each residual branch has a learned scale.
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
            trained on a few demonstrations spreads its probability over neighboring bins.
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


_TEXT: Mapping[str, tuple[int, int]] = {
    "vocab_size": (2, 1_000_000),
    "hidden_size": (1, 65_536),
    "intermediate_size": (1, 1_048_576),
    "num_hidden_layers": (1, 1_000),
    "num_attention_heads": (1, 4_096),
    "max_position_embeddings": (1, 100_000_000),
}
_TOWER: Mapping[str, tuple[int, int]] = {
    "width": (1, 65_536),
    "depth": (1, 1_000),
    "heads": (1, 4_096),
    "mlp_width": (1, 1_048_576),
    "patch": (1, 1_024),
    "image_size": (1, 4_096),
    "registers": (0, 1_024),
}
_MOST_PATCHES = 65_536
_MOST_CHANNELS = 65_536
_ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "swish")


def check_text(text: Mapping[str, Any], where: str) -> None:
    """Refuse settings of a language model that no network can be built from.

    Args:
        text: Complete settings, by ``LlamaConfig``'s names.
        where: The file, for messages.

    Raises:
        DataError: Names the setting and what it can be.
    """
    for name, (least, most) in _TEXT.items():
        _check_whole(text[name], least, most, f"{where}: text_config.{name}")
    hidden, heads, groups = text["hidden_size"], text["num_attention_heads"], text["num_key_value_heads"]
    if groups is not None:
        _check_whole(groups, 1, heads, f"{where}: text_config.num_key_value_heads")
        _check_divides(groups, heads, f"{where}: text_config.num_key_value_heads", "num_attention_heads")
    _check_divides(heads, hidden, f"{where}: text_config.num_attention_heads", "hidden_size")
    if hidden // heads % 2:
        raise DataError(f"{where}: heads of the language model have {hidden // heads} channels, not an even number.")
    for name in ("rms_norm_eps", "rope_theta"):
        value = text[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise DataError(f"{where}: text_config.{name} is {_shown(value)}, not a positive number.")
    for name in ("attention_bias", "tie_word_embeddings"):
        if not isinstance(text[name], bool):
            raise DataError(f"{where}: text_config.{name} is {_shown(text[name])}.", "It must be true or false.")
    if text["hidden_act"] not in _ACTIVATIONS:
        raise DataError(
            f"{where}: text_config.hidden_act is {_shown(text['hidden_act'])}.",
            did_you_mean(str(text["hidden_act"])[:80], _ACTIVATIONS),
        )


def check_tower(tower: TowerConfig, where: str) -> None:
    """Refuse a vision tower that cannot be built.

    Raises:
        DataError: Names the setting and what it can be.
    """
    for name, (least, most) in _TOWER.items():
        _check_whole(getattr(tower, name), least, most, f"{where}: {name} of a vision tower")
    _check_whole(tower.feature_block, 0, tower.depth - 1, f"{where}: feature_block of a vision tower")
    _check_divides(tower.heads, tower.width, f"{where}: heads of a vision tower", "width")
    _check_divides(tower.patch, tower.image_size, f"{where}: patch of a vision tower", "image_size")
    _check_whole(tower.patches, 1, _MOST_PATCHES, f"{where}: patches of a vision tower")
    if tower.stem == "conv":
        for channels in tower.stem_channels:
            _check_whole(channels, 1, _MOST_CHANNELS, f"{where}: stem_channels of a vision tower")
        if 2 ** min(len(tower.stem_channels) + 1, 64) != tower.patch:
            raise DataError(
                f"{where}: a stem of {len(tower.stem_channels) + 1} convolutions of stride 2 cannot give patches of "
                f"{tower.patch}."
            )


def _check_whole(value: Any, least: int, most: int, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise DataError(f"{what} is {_shown(value)}, not a whole number from {least:,} to {most:,}.")


def _check_divides(part: int, whole: int, what: str, other: str) -> None:
    if whole % part:
        raise DataError(f"{what} is {part}, which does not divide {other} {whole}.")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
