"""PEFT's ``adapter_config.json`` for LoRA: read by an allow-list, so that no unknown field is ignored.

A setting that changes what an adapter computes is either understood here or refused by its name; every other one must
have the value that PEFT gives it by default. Regular expressions are never run: names of layers are matched as PEFT
matches plain ones.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from grape.core.errors import DataError, SettingsError
from grape.core.files import read_json

__all__ = ["CONFIG_FILE", "DEFAULTS", "AdapterConfig", "AdapterLayer", "read_adapter_config"]

CONFIG_FILE = "adapter_config.json"

T = TypeVar("T")

_MOST_NAMES = 1024
_LONGEST_NAME = 256
_LARGEST_RANK = 2**16
_LARGEST_ALPHA = 1e6

_SUPPORTED = "Supported are plain LoRA, rank and alpha by layer, selected layers, and rank-stabilized scaling."

DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "alora_invocation_tokens": (None,),
    "arrow_config": (None,),
    "bias": ("none",),
    "corda_config": (None,),
    "ensure_weight_tying": (False,),
    "kasa_config": (None,),
    "layer_replication": (None,),
    "loftq_config": (None, {}),
    "lora_bias": (False,),
    "lora_ga_config": (None,),
    "megatron_config": (None,),
    "megatron_core": (None, "megatron.core"),
    "modules_to_save": (None, []),
    "monteclora_config": (None,),
    "qalora_group_size": (16,),
    "runtime_config": (None, {"ephemeral_gpu_offload": False}),
    "target_parameters": (None, []),
    "trainable_token_indices": (None,),
    "use_bdlora": (None,),
    "use_dora": (False,),
    "use_qalora": (False,),
    "velora_config": (None,),
}
"""Settings that must have one of these values."""

_NO_EFFECT = frozenset(
    {
        "auto_mapping",  # PEFT's class for the base
        "base_model_name_or_path",  # see read_pointer
        "eva_config",  # how the first values of adapters were found
        "fan_in_fan_out",  # for layers of another class than these networks have
        "inference_mode",
        "lora_dropout",  # in training only
        "peft_version",
        "revision",  # see read_pointer, with the base's name
        "task_type",
    }
)
_HARMLESS_STARTS = frozenset({"gaussian", "eva", "orthogonal"})
"""Values of ``init_lora_weights`` that leave the base's weights as they are."""

_PLAIN = re.compile(r"\^?(?:\\\.|[\w.-])+\$?", re.ASCII)
"""Regular expressions that are names: matching one takes time linear in its length."""


@dataclass(frozen=True)
class AdapterLayer:
    """How one layer is adapted: the scale is ``alpha / rank``, or ``alpha / sqrt(rank)`` if rank-stabilized."""

    rank: int
    alpha: float


@dataclass(frozen=True)
class AdapterConfig:
    """What a LoRA configuration says.

    Attributes:
        rank: Rank of layers without a rank of their own.
        alpha: The same of the scale's numerator.
        rank_stabilized: Whether the scale is ``alpha / sqrt(rank)`` (arXiv 2312.03732).
        targets: Names of layers or ends of names; a text is the whole name of one, or ``"all-linear"``.
        excluded: The same for layers to leave out.
        indexes: Numbers of the blocks to adapt; empty for all.
        block_lists: Names of lists of blocks that ``indexes`` count in; empty for any list.
        ranks: Ranks of single layers by name or end of name.
        alphas: The same of the scale's numerator.
    """

    rank: int
    alpha: float
    rank_stabilized: bool
    targets: frozenset[str] | str
    excluded: frozenset[str] | str
    indexes: frozenset[int]
    block_lists: tuple[str, ...]
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]

    def layers(self, model: nn.Module) -> dict[str, AdapterLayer]:
        """The layers that are adapted, by full name, in the network's order.

        Raises:
            SettingsError: A layer of another kind than linear or convolution would be adapted, or one has several
                ranks or scales.
        """
        layers = {}
        for name, module in model.named_modules():
            if self._is_target(name, module):
                if not _can_be_adapted(module):
                    kind = type(module).__name__
                    raise SettingsError(f"target_modules names {name}, which is no linear layer ({kind}).", _SUPPORTED)
                layers[name] = AdapterLayer(
                    rank=_by_name("rank_pattern", self.ranks, name, self.rank),
                    alpha=_by_name("alpha_pattern", self.alphas, name, self.alpha),
                )
        return layers

    def _is_target(self, name: str, module: nn.Module) -> bool:
        if not name or _names(self.excluded, name):
            return False
        if self.targets == "all-linear":
            return isinstance(module, nn.Linear) and name.rpartition(".")[2] != "lm_head"
        if not _names(self.targets, name):
            return False
        if not self.indexes or name in self.targets:
            return True
        return _block_index(name, self.block_lists) in self.indexes


def _can_be_adapted(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
    return isinstance(module, nn.Linear)


def _names(targets: frozenset[str] | str, name: str) -> bool:
    """PEFT's rule: an entry of a list is a whole name or the end of one; a single text is a whole name."""
    if isinstance(targets, str):
        return bool(targets) and re.fullmatch(targets, name) is not None
    return name in targets or any(name[dot + 1 :] in targets for dot, sign in enumerate(name) if sign == ".")


def _block_index(name: str, block_lists: tuple[str, ...]) -> int | None:
    """Number of the block that a layer stands in; None where it stands in none, or in none of these lists."""
    patterns = [rf"(?:^|.*?\.){re.escape(item)}\.([0-9]+)\." for item in block_lists] or [r".*?\.[^.]*\.([0-9]+)\."]
    for pattern in patterns:
        match = re.match(pattern, name)
        if match is not None:
            return int(match[1])
    return None


def _by_name(key: str, table: Mapping[str, T], name: str, default: T) -> T:
    """PEFT's rule: the first key that, as a regular expression, is the name or its end behind a dot.

    PEFT saves the keys sorted, so where several fit, the file does not say which one was the first in training.
    """
    matches = {pattern: value for pattern, value in table.items() if re.match(rf"(.*\.)?({pattern})$", name)}
    if len(set(matches.values())) > 1:
        raise SettingsError(
            f"{key} gives several values for {name}: {_short(matches)}. Which one it was trained with is not recorded.",
            f"Write one key for each layer into {key}.",
        )
    return next(iter(matches.values()), default)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read ``adapter_config.json``.

    Raises:
        SettingsError: The adapter is of another kind than LoRA, or uses what is not supported; it is named.
        DataError: The file is missing or broken, or a value is of the wrong type or out of range.
    """
    path = folder / CONFIG_FILE
    data = read_json(path, hint="Save the adapter again.")
    if not isinstance(data, dict):
        raise DataError(f"{path} holds no JSON object.", "Save the adapter again.")
    kind = data.get("peft_type")
    if kind != "LORA":
        raise SettingsError(f"The adapter in {folder} is of type {kind!r}.", "Only LoRA adapters are supported.")
    _refuse_unsupported(folder, data)
    reader = _Reader(path, data)
    config = AdapterConfig(
        rank=reader.rank("r", data.get("r", 8)),
        alpha=reader.alpha("lora_alpha", data.get("lora_alpha", 8)),
        rank_stabilized=reader.flag("use_rslora"),
        targets=reader.names("target_modules"),
        excluded=reader.names("exclude_modules"),
        indexes=reader.indexes(),
        block_lists=reader.block_lists(),
        ranks={key: reader.rank(f"rank_pattern[{key!r}]", value) for key, value in reader.pattern("rank_pattern")},
        alphas={key: reader.alpha(f"alpha_pattern[{key!r}]", value) for key, value in reader.pattern("alpha_pattern")},
    )
    if not config.targets:
        raise DataError(f"{path}: target_modules names no layers.", "Save the adapter again.")
    if isinstance(config.targets, str) and (config.indexes or config.block_lists):
        raise DataError(f"{path}: layers_to_transform needs target_modules to be a list.", "Save the adapter again.")
    if config.block_lists and not config.indexes:
        raise DataError(f"{path}: layers_pattern needs layers_to_transform.", "Save the adapter again.")
    return config


_UNDERSTOOD = frozenset(
    {
        "alpha_pattern", "exclude_modules", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha",
        "peft_type", "r", "rank_pattern", "target_modules", "use_rslora",
    }
)  # fmt: skip


def _refuse_unsupported(folder: Path, data: Mapping[str, Any]) -> None:
    used = []
    for key, value in data.items():
        if key in _UNDERSTOOD or key in _NO_EFFECT:
            continue
        # A setting that releases to come may have added: whatever it is, these values switch it off.
        allowed = DEFAULTS.get(key, (None, False, {}, []))
        if not any(type(value) is type(default) and value == default for default in allowed):
            used.append(f"{_short(key)[1:-1]} {_short(value)}")
    if used:
        raise SettingsError(
            f"The adapter in {folder} is more than plain LoRA and cannot be applied in part; not supported: "
            f"{', '.join(used[:4])}{f' and {len(used) - 4} more' if len(used) > 4 else ''}.",
            f"{_SUPPORTED} Merge the adapter where it was made, and give the merged checkpoint.",
        )
    start = data.get("init_lora_weights", True)
    if not isinstance(start, bool) and not (isinstance(start, str) and start.lower() in _HARMLESS_STARTS):
        raise SettingsError(
            f"The adapter in {folder} was made with init_lora_weights {_short(start)}, which is not supported: such an "
            "adapter may belong to a base whose weights were changed at its start.",
            "Convert it where it was made: save_pretrained(..., path_initial_model_for_weight_conversion=...), or "
            "merge it.",
        )


class _Reader:
    """Values of a configuration with types and ranges checked; the file is named where one is wrong."""

    def __init__(self, path: Path, data: Mapping[str, Any]) -> None:
        self._path = path
        self._data = data

    def _wrong(self, key: str, value: Any, expected: str) -> DataError:
        return DataError(f"{self._path}: {key} must be {expected}, not {_short(value)}.", "Save the adapter again.")

    def rank(self, key: str, value: Any) -> int:
        if type(value) is not int or not 1 <= value <= _LARGEST_RANK:
            raise self._wrong(key, value, f"an integer from 1 to {_LARGEST_RANK}")
        return value

    def alpha(self, key: str, value: Any) -> float:
        sound = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not sound or abs(value) > _LARGEST_ALPHA:
            raise self._wrong(key, value, f"a number of at most {_LARGEST_ALPHA:g}")
        number: float = value
        return number

    def flag(self, key: str) -> bool:
        value = self._data.get(key, False)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def names(self, key: str) -> frozenset[str] | str:
        value = self._data.get(key)
        if value is None:
            return frozenset()
        if isinstance(value, str):
            self._refuse_expression(key, value)
            return value
        return frozenset(self._texts(key, value))

    def block_lists(self) -> tuple[str, ...]:
        value = self._data.get("layers_pattern")
        if value in (None, ""):
            return ()
        names = self._texts("layers_pattern", [value] if isinstance(value, str) else value)
        for name in names:
            self._refuse_expression("layers_pattern", name)
        return tuple(names)

    def indexes(self) -> frozenset[int]:
        value = self._data.get("layers_to_transform")
        items = [] if value is None else value if isinstance(value, list) else [value]
        if len(items) > _MOST_NAMES or any(type(item) is not int or item < 0 for item in items):
            raise self._wrong("layers_to_transform", value, "a list of block numbers")
        return frozenset(items)

    def pattern(self, key: str) -> list[tuple[str, Any]]:
        value = self._data.get(key)
        if value is None:
            return []
        if not isinstance(value, dict) or len(value) > _MOST_NAMES:
            raise self._wrong(key, value, f"a mapping of at most {_MOST_NAMES} names of layers")
        for name in value:
            self._refuse_expression(key, name)
        return list(value.items())

    def _texts(self, key: str, value: Any) -> list[str]:
        sound = isinstance(value, list) and len(value) <= _MOST_NAMES
        if not sound or not all(isinstance(item, str) and 0 < len(item) <= _LONGEST_NAME for item in value):
            raise self._wrong(key, value, f"a list of at most {_MOST_NAMES} names of layers")
        return list(value)

    def _refuse_expression(self, key: str, text: str) -> None:
        if len(text) > _LONGEST_NAME or not _PLAIN.fullmatch(text):
            raise SettingsError(
                f"{self._path}: {key} holds the regular expression {_short(text)}; expressions are not run.",
                "Write the names of the layers instead (target_modules: a list of them).",
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
