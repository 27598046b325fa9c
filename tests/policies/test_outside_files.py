"""Configurations and tokenizers that could hang, abort or exhaust a process are refused before anything is built."""

import json
from typing import Any

import pytest

from grape.core.errors import DataError
from grape.policies.openvla.config import LLAMA_DEFAULTS
from grape.policies.openvla.processor import read_tokenizer
from grape.policies.presets import TOWERS, TowerConfig, check_text, check_tower

TOWER: dict[str, Any] = {
    "width": 96, "depth": 2, "heads": 4, "mlp_width": 288, "patch": 16, "image_size": 64, "feature_block": 1,
}  # fmt: skip


def test_published_shapes_are_accepted() -> None:
    check_text(LLAMA_DEFAULTS, "config.json")
    for tower in TOWERS.values():
        check_tower(tower, "config.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 1_000_000),
        ("num_attention_heads", 0),
        ("num_attention_heads", 7),
        ("num_key_value_heads", -1),
        ("num_key_value_heads", 3),
        ("hidden_size", "x"),
        ("hidden_size", 2**40),
        ("hidden_act", "os.system"),
        ("rms_norm_eps", float("nan")),
        ("rope_theta", 0),
        ("tie_word_embeddings", "yes"),
    ],
)
def test_language_models_that_cannot_be_built_are_named(name: str, value: Any) -> None:
    with pytest.raises(DataError, match=name):
        check_text({**LLAMA_DEFAULTS, name: value}, "config.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [("depth", 10**6), ("heads", 0), ("heads", 5), ("patch", 7), ("image_size", 2**40), ("feature_block", 9)],
)
def test_towers_that_cannot_be_built_are_named(name: str, value: int) -> None:
    with pytest.raises(DataError, match=name):
        check_tower(TowerConfig(**(TOWER | {name: value})), "config.json")
    with pytest.raises(DataError, match="convolutions"):
        check_tower(TowerConfig(**TOWER, stem="conv", stem_channels=(8,) * 1000), "config.json")


def _file(**changes: Any) -> bytes:
    document = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
    }
    return json.dumps(document | changes).encode()


def test_padding_and_truncation_of_a_trainer_are_dropped() -> None:
    strategy = {"strategy": {"Fixed": 10**10}, "direction": "Right", "pad_to_multiple_of": None}
    padding = {**strategy, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"}
    truncation = {"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    assert read_tokenizer(_file(padding=padding, truncation=truncation), 2).encode("abab").ids == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}}, "regular expression"),
        ({"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 99}}, "16 times as long"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}}, "Precompiled"),
        ({"model": {"type": "BPE", "vocab": {"a": 2**31}, "merges": []}}, "beyond the 2"),
        ({"model": {"type": "WordPiece", "vocab": {"a": 0}}}, "WordPiece"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a x"]}}, "cannot be read"),
        ({"added_tokens": [{"id": -1, "content": "x"}]}, "beyond"),
        (
            {"post_processor": {"type": "TemplateProcessing", "special_tokens": {}, "pair": [],
                                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}]}},
            "does not know",
        ),
    ],
)  # fmt: skip
def test_tokenizers_that_the_library_cannot_bear_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_tokenizer(_file(**changes), 2)
