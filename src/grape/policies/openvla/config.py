"""OpenVLA's ``config.json``: read without executing code, and written back unchanged.

The published file describes the language model by its differences from ``LlamaConfig``'s defaults of transformers 4.40,
and its towers by name only. What the project adds stands under one key of its own, ``grape``::

    "grape": {"preset": "nano", "gripper": "+1 closes", "center_crop": true, "unnorm_key": "toy", "proprio_dim": 8,
              "towers": [{...}]}
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import LlamaConfig

from grape.core.errors import DataError, GrapeError, SettingsError, did_you_mean
from grape.core.settings import settings_from_dict, settings_to_dict
from grape.policies.presets import TOWERS, TowerConfig, check_text, check_tower

__all__ = ["LLAMA_DEFAULTS", "OpenVLAConfig", "towers_to_json"]

LLAMA_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "tie_word_embeddings": False,
}
"""Defaults that ``text_config`` is relative to. Pinned, so that a later transformers cannot change a checkpoint's
meaning. Llama-2 itself has ``rms_norm_eps`` 1e-5; the published OpenVLA runs with 1e-6."""

_ROPE = ("rope_parameters", "rope_scaling")
_OLDER_DEFAULTS: Mapping[str, Any] = {
    "mlp_bias": False,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "tie_encoder_decoder": False,
    "cross_attention_hidden_size": None,
    "pruned_heads": {},
    "torchscript": False,
    "use_bfloat16": False,
}
"""Settings that releases of transformers before the installed one wrote, at their defaults."""
MOST_PROPRIO = 4096
"""Dimensions of a robot's state at most."""
_STORAGE = ("bfloat16", "float32", "float16")

_LLAMA_INERT = frozenset(
    {
        "_attn_implementation_autoset", "_attn_implementation_internal", "_name_or_path", "architectures",
        "attention_dropout", "attn_implementation", "bos_token_id", "dtype", "eos_token_id", "id2label", "label2id",
        "output_attentions", "output_hidden_states", "problem_type", "return_dict", "chunk_size_feed_forward",
        "initializer_range", "model_type", "pad_token_id", "pretraining_tp", "torch_dtype", "transformers_version",
        "use_cache",
    }
)  # fmt: skip
"""Keys of ``text_config`` that do not change what the network computes here."""


@dataclass(frozen=True)
class OpenVLAConfig:
    """Validated content of a checkpoint's ``config.json``.

    Attributes:
        raw: The file's content; :meth:`to_json` returns it unchanged.
        towers: One or two vision towers, in the order in which their features are concatenated.
        text: Complete settings of the language model, by ``LlamaConfig``'s names.
        text_vocab: Number of ids the tokenizer's rule counts from: ``vocab_size - pad_to_multiple_of`` (32000
            published). Action token of bin ``b`` is ``text_vocab - b``.
        pad_token_id: Id used at padded positions; never attended to.
        action_bins: Edges of the action bins (256 published).
        norm_stats: Normalization statistics by dataset.
        storage_dtype: ``"float32"`` or ``"bfloat16"``: how weights are stored.
        gripper: What the last dimension of an un-normalized action means; empty if unknown.
        preset: Name of the preset the policy was made from; empty for foreign checkpoints.
        center_crop: Whether images are cropped in the middle, as policies trained with random crops need.
        unnorm_key: Which statistics are in use unless others are asked for; empty if the file does not say.
        proprio_dim: Dimensions of the robot's state that the network reads as one token; 0 for none.
    """

    raw: Mapping[str, Any]
    towers: tuple[TowerConfig, ...]
    text: Mapping[str, Any]
    text_vocab: int
    pad_token_id: int
    action_bins: int
    norm_stats: Mapping[str, Any]
    storage_dtype: str
    gripper: str
    preset: str
    center_crop: bool
    unnorm_key: str
    proprio_dim: int

    @property
    def fused(self) -> bool:
        """Whether there are two towers (then the projector has three layers, else two)."""
        return len(self.towers) == 2

    @property
    def image_size(self) -> int:
        """Side of the square image."""
        return self.towers[0].image_size

    @property
    def patches(self) -> int:
        """Number of image tokens the language model reads."""
        return self.towers[0].patches

    @property
    def hidden(self) -> int:
        """Width of the language model."""
        return int(self.text["hidden_size"])

    @property
    def recorded_center_crop(self) -> bool | None:
        """:attr:`center_crop` where the configuration records it; None where it does not, which means no crop."""
        center_crop = self.raw.get("grape", {}).get("center_crop")
        return None if center_crop is None else bool(center_crop)

    def to_json(self) -> dict[str, Any]:
        """Content for ``config.json``."""
        return dict(self.raw)

    def with_norm_stats(self, norm_stats: Mapping[str, Any]) -> "OpenVLAConfig":
        """The same configuration with other normalization statistics."""
        return OpenVLAConfig.from_json({**self.raw, "norm_stats": dict(norm_stats)})

    def with_center_crop(self, center_crop: bool) -> "OpenVLAConfig":
        """The same configuration with the crop recorded; this very one where it is recorded so already."""
        if center_crop == self.recorded_center_crop:
            return self
        grape_fields = {**self.raw.get("grape", {}), "center_crop": center_crop}
        return OpenVLAConfig.from_json({**self.raw, "grape": grape_fields})

    def with_facts(self, **facts: str) -> "OpenVLAConfig":
        """The same configuration with another ``gripper`` or ``unnorm_key``; the very same where nothing changes."""
        changed = {name: value for name, value in facts.items() if value != getattr(self, name)}
        if not changed:
            return self
        return OpenVLAConfig.from_json({**self.raw, "grape": {**self.raw.get("grape", {}), **changed}})

    @staticmethod
    def from_json(data: Any, where: str = "config.json") -> "OpenVLAConfig":
        """Check the content of a ``config.json``.

        Args:
            data: The parsed file.
            where: Its name, for messages.

        Raises:
            SettingsError: It describes another kind of model, or a variant that is not supported.
            DataError: Something that must be there is missing or malformed.
        """
        if not isinstance(data, Mapping):
            raise DataError(f"{where} holds no JSON object.", "Is this the folder of a checkpoint?")
        kind = data.get("model_type")
        if kind != "openvla":
            raise SettingsError(
                f"{where} describes a model of type {kind!r}, not 'openvla'.",
                "Only OpenVLA checkpoints (and policies that grape itself saved) can be loaded.",
            )
        try:
            return _parse(data, where)
        except GrapeError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(
                f"{where} is not a complete OpenVLA configuration ({type(error).__name__}: {error}).",
                "Copy or download this file again.",
            ) from error


def _parse(data: Mapping[str, Any], where: str) -> OpenVLAConfig:
    grape_fields: Mapping[str, Any] = data.get("grape", {})
    text = _text(data["text_config"], where)
    check_text(text, where)
    towers = _towers(data, grape_fields, where)
    text_vocab = int(text["vocab_size"]) - int(data["pad_to_multiple_of"])
    bins = int(data["n_action_bins"])
    if not 2 <= bins < text_vocab:
        raise DataError(f"{where}: n_action_bins is {bins} with a vocabulary of {text_vocab}.")
    storage = str(data.get("torch_dtype") or data.get("dtype") or "bfloat16")
    if storage not in _STORAGE:
        raise SettingsError(
            f"{where}: weights of type {storage!r} are not supported.", f"Supported: {', '.join(_STORAGE)}."
        )
    if data.get("image_resize_strategy", "resize-naive") != "resize-naive":
        raise SettingsError(
            f"{where}: image_resize_strategy {data['image_resize_strategy']!r} is not supported.",
            "OpenVLA's published checkpoints use 'resize-naive'.",
        )
    pad = int(data["pad_token_id"])
    if not 0 <= pad < int(text["vocab_size"]):
        raise DataError(f"{where}: pad_token_id {pad} lies outside the vocabulary of {text['vocab_size']}.")
    return OpenVLAConfig(
        raw=data,
        towers=towers,
        text=text,
        text_vocab=text_vocab,
        pad_token_id=pad,
        action_bins=bins,
        norm_stats=dict(data.get("norm_stats") or {}),
        storage_dtype=storage,
        gripper=str(grape_fields.get("gripper", "")),
        preset=str(grape_fields.get("preset", "")),
        center_crop=_center_crop(grape_fields, where),
        unnorm_key=str(grape_fields.get("unnorm_key", "")),
        proprio_dim=_proprio_dim(grape_fields, where),
    )


def _proprio_dim(grape_fields: Mapping[str, Any], where: str) -> int:
    value = grape_fields.get("proprio_dim", 0)
    if type(value) is not int or not 0 <= value <= MOST_PROPRIO:
        raise DataError(f"{where}: grape.proprio_dim is {value!r}.", f"It is a whole number from 0 to {MOST_PROPRIO}.")
    return value


def _center_crop(grape_fields: Mapping[str, Any], where: str) -> bool:
    value = grape_fields.get("center_crop", False)
    if not isinstance(value, bool):
        raise DataError(f"{where}: grape.center_crop is {value!r}.", "It must be true or false.")
    return value


def _towers(data: Mapping[str, Any], grape_fields: Mapping[str, Any], where: str) -> tuple[TowerConfig, ...]:
    if "towers" in grape_fields:
        if not isinstance(grape_fields["towers"], list) or len(grape_fields["towers"]) > 2:
            raise DataError(f"{where}: grape.towers is no list of one or two vision towers.")
        towers = tuple(settings_from_dict(TowerConfig, entry) for entry in grape_fields["towers"])
    else:
        names = list(data["timm_model_ids"])
        unknown = [name for name in names if name not in TOWERS]
        if unknown:
            raise SettingsError(f"{where}: unknown vision tower {unknown[0]!r}.", did_you_mean(unknown[0], TOWERS))
        towers = tuple(TOWERS[name] for name in names)
    fused = bool(data["use_fused_vision_backbone"])
    if len(towers) != 1 + fused:
        raise DataError(f"{where}: {len(towers)} vision towers with use_fused_vision_backbone={fused}.")
    for tower in towers:
        check_tower(tower, where)
    sizes = {(tower.image_size, tower.patches) for tower in towers}
    if len(sizes) != 1:
        raise DataError(f"{where}: the towers disagree on image size or number of patches: {sorted(sizes)}.")
    return towers


def _text(text: Mapping[str, Any], where: str) -> dict[str, Any]:
    if text.get("model_type", "llama") != "llama":
        raise SettingsError(
            f"{where}: the language model is {text['model_type']!r}.", "Only Llama language models are supported."
        )
    values = {key: text.get(key, default) for key, default in LLAMA_DEFAULTS.items()}
    rope = _rope(text, where)
    if rope is not None and "rope_theta" not in text:
        values["rope_theta"] = rope
    plain = LlamaConfig().to_dict() | _OLDER_DEFAULTS
    plain["head_dim"] = _head_dim(values)
    unknown = sorted(
        key
        for key, value in text.items()
        if key not in LLAMA_DEFAULTS
        and key not in _LLAMA_INERT
        and key not in _ROPE
        and value is not None
        and (key not in plain or value != plain[key])
    )
    if unknown:
        settings_text = ", ".join(f"{key} = {str(text[key])[:40]}" for key in unknown)
        raise SettingsError(
            f"{where}: text_config has settings that would change the network and are not supported: {settings_text}.",
            f"Supported: {', '.join(sorted(LLAMA_DEFAULTS))}; any other must have the default of Llama.",
        )
    return values


def _head_dim(values: Mapping[str, Any]) -> int | None:
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    sound = isinstance(hidden, int) and isinstance(heads, int) and heads > 0
    return hidden // heads if sound else None


def _rope(text: Mapping[str, Any], where: str) -> float | None:
    """Base of the rotary embedding where it stands in a mapping of its own, as transformers 5 writes it."""
    base = None
    for key in _ROPE:
        entry = text.get(key)
        if entry is None:
            continue
        kind = entry.get("rope_type", entry.get("type", "default")) if isinstance(entry, Mapping) else None
        extra = sorted(set(entry) - {"rope_type", "type", "rope_theta"}) if isinstance(entry, Mapping) else ["?"]
        if kind != "default" or extra:
            raise SettingsError(
                f"{where}: text_config.{key} is {str(entry)[:80]}.", "Only Llama's plain rotary embedding is supported."
            )
        base = entry.get("rope_theta", base)
    if base is not None and text.get("rope_theta", base) != base:
        raise DataError(f"{where}: text_config says rope_theta {text['rope_theta']} and {base}.", "Keep one of them.")
    return base


def towers_to_json(towers: tuple[TowerConfig, ...]) -> list[dict[str, Any]]:
    """Towers as they stand under ``grape.towers``; defaults are left out."""
    rows = []
    for tower in towers:
        row = settings_to_dict(tower)
        for item in dataclasses.fields(tower):
            if item.default is not dataclasses.MISSING and getattr(tower, item.name) == item.default:
                del row[item.name]
        rows.append(row)
    return rows
