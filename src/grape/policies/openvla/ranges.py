"""What numbers of a configuration can be, checked before a network is built from them.

The limits are several times what any published model of this architecture has; a network within them is built (without
memory for its weights) in seconds.
"""

import math
from collections.abc import Mapping
from typing import Any

from grape.core.errors import DataError, did_you_mean
from grape.policies.presets import TowerConfig

__all__ = ["check_text", "check_tower"]

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
