"""Checkpoints and adapters: configuration, statistics, tokenizer, weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.baseline import MAKERS
from tests.hostile.cases import Spoil, cases_of, changed_json, check, contents
from tests.hostile.documents import BAD_JSON, ESCAPES
from tests.hostile.hostile_files import DAMAGED, SPECIAL, replace
from tests.hostile.images import sound
from tests.hostile.tensors import HOSTILE_SAFETENSORS, read_header, safetensors

MAKERS["image.png"] = lambda path: path.write_bytes(sound()) and None

PREDICT = "predict --policy sft/policy --image image.png --instruction open"
MERGE = "export merged --policy sft/policy --out OUT"
SFT = "sft --data demos/store --policy sft/policy --max-updates 1 --batch-size 4 --out OUT"
TRAIN = "train --pairs pairs --policy sft/policy --max-updates 1 --out OUT"
EVALUATE = (
    "evaluate --suite toy --tasks push-block --policy sft/policy --episodes 1 --max-steps 2 --workers 1 --out OUT"
)
PARTS = ("sft", "image.png", "demos", "pairs", "rollouts", "scores")
READERS = [PREDICT, MERGE, SFT + " --dry-run", TRAIN + " --dry-run"]
BAD = contents(BAD_JSON)


def edited(change: Callable[[Any], None]) -> Spoil:
    """The sound JSON document after ``change``."""

    def spoil(path: Path) -> None:
        document = json.loads(path.read_text(encoding="utf-8"))
        change(document)
        replace(path, json.dumps(document))

    return spoil


def _set(*steps: Any) -> Spoil:
    """Assign the last of ``steps`` under the path that the others are."""

    def change(document: Any) -> None:
        *way, last, value = steps
        for step in way:
            document = document[step]
        document[last] = value

    return edited(change)


def _text(name: str, value: Any) -> Spoil:
    return _set("text_config", name, value)


def _tower(name: str, value: Any) -> Spoil:
    return _set("grape", "towers", 0, name, value)


CONFIG: dict[str, Spoil] = {
    "a million layers": _text("num_hidden_layers", 1_000_000),
    "no layers": _text("num_hidden_layers", 0),
    "no heads": _text("num_attention_heads", 0),
    "heads that do not divide": _text("num_attention_heads", 7),
    "heads for keys that do not divide": _text("num_key_value_heads", 3),
    "no width": _text("hidden_size", 0),
    "width of text": _text("hidden_size", "x"),
    "width of 2^40": _text("hidden_size", 2**40),
    "vocabulary of 2^40": _text("vocab_size", 2**40),
    "vocabulary of nothing": _text("vocab_size", 0),
    "vocabulary of 10": _text("vocab_size", 10),
    "unknown activation": _text("hidden_act", "wave"),
    "activation of another module": _text("hidden_act", "os.system"),
    "positions of 2^40": _text("max_position_embeddings", 2**40),
    "theta of nothing": _text("rope_theta", 0),
    "theta of NaN": _text("rope_theta", float("nan")),
    "unknown scaling of positions": _text("rope_scaling", {"rope_type": "spiral", "factor": -1}),
    "epsilon of text": _text("rms_norm_eps", "small"),
    "dtype": _text("torch_dtype", "complex512"),
    "quantization": _set("quantization_config", {"quant_method": "gptq", "bits": 0}),
    "code of its own": _set("auto_map", {"AutoConfig": "evil.Config"}),
    "another model": _set("model_type", "bert"),
    "text model of another kind": _text("model_type", "mamba"),
    "no towers": _set("grape", "towers", []),
    "a hundred thousand towers": edited(lambda data: data["grape"].update(towers=data["grape"]["towers"] * 100_000)),
    "tower of a million blocks": _tower("depth", 1_000_000),
    "tower without heads": _tower("heads", 0),
    "tower without width": _tower("width", 0),
    "tower of width 2^40": _tower("width", 2**40),
    "feature block beyond the last": _tower("feature_block", 9),
    "feature block below the first": _tower("feature_block", -9),
    "patch of nothing": _tower("patch", 0),
    "patch that does not divide": _tower("patch", 7),
    "image of 2^40": _tower("image_size", 2**40),
    "image of nothing": _tower("image_size", 0),
    "stem of 2^40": _tower("stem_channels", [2**40]),
    "a thousand stems": _tower("stem_channels", [3] * 1000),
    "no bins": _set("n_action_bins", 0),
    "one bin": _set("n_action_bins", 1),
    "2^40 bins": _set("n_action_bins", 2**40),
    "padding to a multiple of nothing": _set("pad_to_multiple_of", 0),
    "padding to a multiple of 2^40": _set("pad_to_multiple_of", 2**40),
    "padding token beyond the vocabulary": _set("pad_token_id", 10**6),
    "images of nothing": _set("image_sizes", [0]),
    "statistics of 100,000 dimensions": _set("norm_stats", "toy", "action", "q01", [0.0] * 100_000),
    "statistics of NaN": _set("norm_stats", "toy", "action", "q99", [float("nan")] * 7),
    "statistics of 1e308": _set("norm_stats", "toy", "action", "q99", [1e308] * 7),
    "statistics with escapes in their name": edited(
        lambda data: data.update(norm_stats={ESCAPES: data["norm_stats"]["toy"], "b": data["norm_stats"]["toy"]})
    ),
    "gripper with escapes": _set("grape", "gripper", ESCAPES),
}

TOKENIZER: dict[str, Spoil] = {
    "pattern without end in its normalizer": _set(
        "normalizer", {"type": "Replace", "pattern": {"Regex": "(?:a|a|[a-z ])*?(?:([a-z ]+)+)+$^x"}, "content": "x"}
    ),
    "pattern without end in its pre-tokenizer": _set(
        "pre_tokenizer",
        {"type": "Split", "pattern": {"Regex": "(([a-zA-Z ])+)+X"}, "behavior": "Isolated", "invert": False},
    ),
    "pattern that is none": _set("normalizer", {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}),
    "replacement of 10 MB": _set(
        "normalizer", {"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 10_000_000}
    ),
    "a thousand normalizers": _set(
        "normalizer",
        {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"Regex": "."}, "content": "xx"}] * 40},
    ),
    "normalizers 100 deep": edited(lambda data: data.update(normalizer=_deep({"type": "NFC"}, 100))),
    "unknown normalizer": _set("normalizer", {"type": "Wave"}),
    "charsmap": _set("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA" * 10}),
    "charsmap of nothing": _set("normalizer", {"type": "Precompiled", "precompiled_charsmap": ""}),
    "padding to 10^10": _set(
        "padding",
        {"strategy": {"Fixed": 10**10}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
         "pad_type_id": 0, "pad_token": "<unk>"},
    ),
    "padding to a multiple of nothing": _set(
        "padding",
        {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": 0, "pad_id": 0, "pad_type_id": 0,
         "pad_token": "<unk>"},
    ),
    "truncation to nothing": _set(
        "truncation", {"max_length": 0, "strategy": "LongestFirst", "stride": 99, "direction": "Right"}
    ),
    "post-processor of unknown tokens": _set(
        "post_processor",
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<none>", "type_id": 0}}], "pair": [],
         "special_tokens": {}},
    ),
    "post-processor that repeats": edited(
        lambda data: data["post_processor"].update(single=data["post_processor"]["single"] * 10_000)
    ),
    "token with id 2^40": edited(lambda data: data["added_tokens"].append(_token(2**40, "far"))),
    "token with id 2^31": edited(lambda data: data["added_tokens"].append(_token(2**31, "far"))),
    "token with a negative id": edited(lambda data: data["added_tokens"].append(_token(-1, "below"))),
    "empty token": edited(lambda data: data["added_tokens"].append(_token(477, ""))),
    "100,000 added tokens": edited(
        lambda data: data["added_tokens"].extend(_token(600 + n, f"token{n}") for n in range(100_000))
    ),
    "no vocabulary": _set("model", "vocab", []),
    "vocabulary of NaN": edited(lambda data: data["model"]["vocab"][0].__setitem__(1, None)),
    "vocabulary of escapes": edited(lambda data: data["model"]["vocab"][5].__setitem__(0, ESCAPES)),
    "unknown token beyond the vocabulary": _set("model", "unk_id", 10**9),
    "model of another kind": _set("model", "type", "Wave"),
    "merges of unknown tokens": _set("model", {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b", "x"]}),
    "ids with holes": _set("model", {"type": "BPE", "vocab": {"a": 0, "b": 2**31}, "merges": []}),
    "word pieces of endless length": _set(
        "model",
        {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "none", "continuing_subword_prefix": "",
         "max_input_chars_per_word": 2**40},
    ),
    "decoder of another kind": _set("decoder", {"type": "CTC", "pad_token": 1}),
    "version 9": _set("version", "9.0"),
}  # fmt: skip

ADAPTER: dict[str, Spoil] = {
    "pattern without end": _set("target_modules", "(([a-z_.0-9])+)+X"),
    "pattern that is none": _set("target_modules", "("),
    "targets nothing": _set("target_modules", []),
    "targets everything": _set("target_modules", "all-linear"),
    "targets a number": _set("target_modules", 7),
    "targets escapes": _set("target_modules", [ESCAPES]),
    "100,000 targets": _set("target_modules", [f"layer{n}" for n in range(100_000)]),
    "rank 0": _set("r", 0),
    "rank 2^40": _set("r", 2**40),
    "rank of text": _set("r", "x"),
    "alpha of text": _set("lora_alpha", "x"),
    "alpha 1e400": _set("lora_alpha", 10**400),
    "rank pattern without end": _set("rank_pattern", {"(([a-z_.0-9])+)+X": 4}),
    "rank pattern of text": _set("rank_pattern", {"q_proj": "x"}),
    "rank pattern of a list": _set("rank_pattern", ["q_proj"]),
    "alpha pattern without end": _set("alpha_pattern", {"(([a-z_.0-9])+)+X": 4}),
    "layers pattern": _set("layers_pattern", "(([a-z_.0-9])+)+X"),
    "layers to transform": _set("layers_to_transform", [10**9]),
    "layer replication": _set("layer_replication", [[0, 10**6]]),
    "megatron": _set("megatron_config", {"a": 1}),
    "megatron of another module": _set("megatron_core", "os"),
    "arrow": _set("arrow_config", {"a": 1}),
    "token indices": _set("trainable_token_indices", [10**9]),
    "modules to save": _set("modules_to_save", ["(([a-z_.0-9])+)+X"]),
    "excluded modules": _set("exclude_modules", "(([a-z_.0-9])+)+X"),
    "another method": _set("peft_type", "IA3"),
    "method of no name": _set("peft_type", ESCAPES),
    "mapping to code": _set("auto_mapping", {"base_model_class": "x", "parent_library": "os"}),
    "initialization": _set("init_lora_weights", "pissa_niter_1000000"),
    "loftq": _set("loftq_config", {"loftq_bits": 0}),
    "eva": _set("eva_config", {"rho": 1e9}),
    "quantized group of nothing": edited(lambda data: data.update(use_qalora=True, qalora_group_size=0)),
    "dropout": _set("lora_dropout", 2.0),
    "unknown field": _set(ESCAPES, 1),
    "base elsewhere": _set("base_model_name_or_path", "../../../../etc"),
    "base with escapes": _set("base_model_name_or_path", ESCAPES),
    "base with NUL": _set("base_model_name_or_path", "a\0b"),
}

BASE: dict[str, Spoil] = {
    "itself": _set("base", "."),
    "root": _set("base", "/"),
    "escapes": _set("base", ESCAPES),
    "NUL": _set("base", "a\0b"),
    "an address": _set("base", "https://example.com/x"),
    "another adapter": _set("base", "../policy"),
    "number": _set("base", 7),
    "long": _set("base", "x" * 100_000),
}

INDEX: dict[str, Spoil] = {
    "shard elsewhere": edited(lambda data: _shard(data, "../../../../etc/passwd")),
    "absolute shard": edited(lambda data: _shard(data, "/etc/passwd")),
    "shard of zeros": edited(lambda data: _shard(data, "/dev/zero")),
    "shard of no name": edited(lambda data: _shard(data, "")),
    "shard that is the folder": edited(lambda data: _shard(data, ".")),
    "shard with escapes": edited(lambda data: _shard(data, ESCAPES)),
    "shard with NUL": edited(lambda data: _shard(data, "a\0b")),
    "shard that is a number": edited(lambda data: _shard(data, 7)),
    "shard that is a list": edited(lambda data: _shard(data, ["a"])),
    "no weights": _set("weight_map", {}),
    "weights as a list": _set("weight_map", ["a"]),
    "a weight more": edited(lambda data: data["weight_map"].update(more=next(iter(data["weight_map"].values())))),
}


def _deep(inner: Any, depth: int) -> Any:
    for _ in range(depth):
        inner = {"type": "Sequence", "normalizers": [inner]}
    return inner


def _token(number: int, content: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": number, "content": content, **flags}


def _shard(data: Any, name: Any) -> None:
    first = next(iter(data["weight_map"]))
    data["weight_map"][first] = name


def _make_sharded(path: Path, policy: Path) -> None:
    """The policy with its weights in two files and an index."""
    shutil.copytree(policy, path)
    header, tensors = read_header(path / "model.safetensors")
    header.pop("__metadata__", None)
    names = sorted(header)
    index = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        head, body = {}, b""
        for name in part:
            start, stop = header[name]["data_offsets"]
            head[name] = {**header[name], "data_offsets": [len(body), len(body) + stop - start]}
            body += tensors[start:stop]
            index[name] = file
        (path / file).write_bytes(safetensors(json.dumps(head).encode(), body))
    (path / "model.safetensors").unlink()
    document = {"metadata": {"total_size": len(tensors)}, "weight_map": index}
    (path / "model.safetensors.index.json").write_text(json.dumps(document))


SHARDED = PREDICT.replace("sft/policy", "sharded")
ADAPTED = PREDICT.replace("sft/policy", "lora/policy")
ADAPTER_READERS = [
    ADAPTED,
    "export merged --policy lora/policy --out OUT",
    "export adapter --policy lora/policy --out OUT",
]

CONFIGS = [
    *cases_of("sft/policy/config.json", PARTS, READERS, {**SPECIAL, **BAD}),
    *cases_of("sft/policy/config.json", PARTS, READERS, changed_json(80, 1)),
    *cases_of("sft/policy/config.json", PARTS, READERS, CONFIG, sampled=False),
    *cases_of("sft/policy/dataset_statistics.json", PARTS, READERS, {**SPECIAL, **BAD, **changed_json(30, 2)}),
    *cases_of("sft/policy/preprocessor_config.json", PARTS, READERS, {**SPECIAL, **BAD, **changed_json(30, 3)}),
    *cases_of("sft/policy/generation_config.json", PARTS, READERS, {**SPECIAL, **BAD}),
    *cases_of("sft/policy/provenance.json", PARTS, [EVALUATE, SFT, MERGE],
              {**SPECIAL, **BAD, **changed_json(12, 4)}),
]  # fmt: skip
TOKENIZERS = [
    *cases_of("sft/policy/tokenizer.json", PARTS, [PREDICT, MERGE], {**SPECIAL, **BAD}),
    *cases_of("sft/policy/tokenizer.json", PARTS, [PREDICT], changed_json(80, 5)),
    *cases_of("sft/policy/tokenizer.json", PARTS, [PREDICT], TOKENIZER, sampled=False),
    *cases_of("sft/policy/tokenizer_config.json", PARTS, [PREDICT, MERGE],
              {**SPECIAL, **BAD, **changed_json(15, 6)}),
    *cases_of("sft/policy/special_tokens_map.json", PARTS, [PREDICT, MERGE],
              {**SPECIAL, **BAD, **changed_json(10, 7)}),
]  # fmt: skip
WEIGHTS = [
    *cases_of("sft/policy/model.safetensors", PARTS, [PREDICT, MERGE, SFT], {**SPECIAL, **DAMAGED}),
    *cases_of("sft/policy/model.safetensors", PARTS, [PREDICT, MERGE, SFT], HOSTILE_SAFETENSORS, sampled=False),
    *cases_of("sharded/model.safetensors.index.json", ("sharded", "image.png"), [SHARDED],
              {**SPECIAL, **BAD}),
    *cases_of("sharded/model.safetensors.index.json", ("sharded", "image.png"), [SHARDED], INDEX, sampled=False),
    *cases_of("sharded/model-00002-of-00002.safetensors", ("sharded", "image.png"), [SHARDED], SPECIAL),
]  # fmt: skip
ADAPTERS = [
    *cases_of("lora/policy/adapter_config.json", ("lora", "sft", "image.png"), ADAPTER_READERS, ADAPTER, sampled=False),
    *cases_of("lora/policy/grape_adapter.json", ("lora", "sft", "image.png"), ADAPTER_READERS, BASE, sampled=False),
    *cases_of("lora/policy/adapter_config.json", ("lora", "sft", "image.png"), ADAPTER_READERS,
              {**SPECIAL, **BAD, **changed_json(60, 8)}),
    *cases_of("lora/policy/grape_adapter.json", ("lora", "sft", "image.png"), ADAPTER_READERS,
              {**SPECIAL, **BAD}),
    *cases_of("lora/policy/adapter_model.safetensors", ("lora", "sft", "image.png"), ADAPTER_READERS,
              {**SPECIAL, **DAMAGED, **HOSTILE_SAFETENSORS}),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _sharded(baseline):
    MAKERS["sharded"] = lambda path: _make_sharded(path, baseline.part("sft") / "policy")


@pytest.mark.parametrize("case", CONFIGS, ids=str)
def test_a_configuration(case, baseline, driver, place):
    check(case, baseline, driver, place)


@pytest.mark.parametrize("case", TOKENIZERS, ids=str)
def test_a_tokenizer(case, baseline, driver, place):
    check(case, baseline, driver, place)


@pytest.mark.parametrize("case", WEIGHTS, ids=str)
def test_weights(case, baseline, driver, place):
    check(case, baseline, driver, place)


@pytest.mark.parametrize("case", ADAPTERS, ids=str)
def test_an_adapter(case, baseline, driver, place):
    check(case, baseline, driver, place)
