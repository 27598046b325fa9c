"""The nano preset: OpenVLA's architecture small enough to train on one CPU thread in minutes.

What differs from 7 B is size alone: one small tower with a convolution stem, a narrow Llama, 32 action bins, and a
tokenizer made here. Its vocabulary holds the prompt template, the instructions it is made for and common instruction
words as single tokens, so that a prompt is four to eight tokens long. Anything else is spelled in letters and bytes.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from torch import nn

from grape.core.errors import DataError
from grape.core.seeds import derive_seed
from grape.policies.openvla.checkpoint import CheckpointFiles, empty_model, materialize_buffers
from grape.policies.openvla.config import OpenVLAConfig, towers_to_json
from grape.policies.openvla.model import OpenVLA
from grape.policies.openvla.policy import OpenVLAPolicy
from grape.policies.openvla.processor import PROMPT_TEMPLATE, check_instruction
from grape.policies.presets import NANO, NanoShape

__all__ = ["create_nano"]

_WORDS = (
    "a above all an and apple arm at away back banana basket behind below beside between block blue book bottle "
    "bottom bowl box bread brown butter button cabinet can carrot cheese close coffee compartment corner counter "
    "cream cup cupboard cutlery dial door down drawer drop each egg eggplant faucet first fork from front fruit "
    "fully gently glass grasp green grey gripper hammer handle hang head hole in insert inside into it juice "
    "kettle key knife knob ladle left lever lid lift light lock machine microwave middle milk moka move mug near "
    "next no object of off on onto open orange other out oven over pan pick place plate point pot pour press puck "
    "pull push put rack ramekin reach red release robot rotate round sauce second shelf slide small soda soup "
    "spatula spoon square stack stick stove sugar sweep switch table take tape target tea the them then third tip "
    "to top towards towel tray turn twist under unlock unplug up wall window wine wipe with wooden yellow yoghurt "
)
"""Words of robot instructions (Meta-World, LIBERO, BridgeData) that are one token each."""

_BRANCH_ENDS = ("self_attn.o_proj", "mlp.down_proj", "attn.proj", "mlp.fc2")
"""Layers that end a residual branch, in the language model and in the tower."""

_PAD_TO = 64
_DEFAULT_KEY = "grape"


def create_nano(
    *,
    seed: int,
    norm_stats: Mapping[str, Any],
    gripper: str,
    instructions: Sequence[str] = (),
    shape: NanoShape = NANO,
    proprio_dim: int = 0,
) -> OpenVLAPolicy:
    """A fresh nano policy with random weights.

    Args:
        seed: Decides the weights.
        norm_stats: Statistics of the actions it will learn: one entry of :func:`compute_norm_stats`, or several by
            dataset name (then the first one is used until saved and loaded with another ``unnorm_key``).
        gripper: What the last action dimension means, e.g. ``"+1 closes"``.
        instructions: Instructions that become tokens of their own, and so do their words.
        shape: Sizes.
        proprio_dim: Dimensions of the robot's state that it reads; needs statistics of ``proprio``. 0 reads none.

    Raises:
        DataError: The statistics are not usable.
    """
    if not norm_stats:
        raise DataError("A policy needs normalization statistics of its actions.", "Use compute_norm_stats.")
    by_dataset = {_DEFAULT_KEY: dict(norm_stats)} if "action" in norm_stats else dict(norm_stats)
    tokenizer, text_vocab = _tokenizer(instructions, shape.action_bins)
    config = OpenVLAConfig.from_json(_config(shape, text_vocab, by_dataset, gripper, proprio_dim))
    model = empty_model(config)
    model.to_empty(device="cpu")
    materialize_buffers(model)
    initialize(model, seed)
    side = {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": _json(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "clean_up_tokenization_spaces": False,
                "padding_side": "right",
            }
        ),
        "special_tokens_map.json": _json({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
        "preprocessor_config.json": _json(_preprocessor(shape.tower.image_size)),
        "generation_config.json": _json({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": text_vocab}),
    }
    return OpenVLAPolicy(model, CheckpointFiles(config, side), next(iter(by_dataset)))


def initialize(model: OpenVLA, seed: int) -> None:
    """Draw all weights anew.

    Matrices are normal with deviation ``fan_in ** -0.5`` (twice the variance in the stem, since ReLU halves it). Those
    that end a residual branch get a tenth of it, so that every block starts near the identity: on a task of finding one
    of two colored squares, the loss after 350 updates was 1.05 with this and 1.46 without. Positions of patches get
    0.3, in the range of what the stem gives, embeddings of tokens 0.02; norms are ones and biases zeros.

    Args:
        model: The network, on the CPU.
        seed: Decides everything; the global generator is neither read nor moved.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "nano weights"))
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                gain = 2.0**0.5 if isinstance(module, nn.Conv2d) else 0.1 if name.endswith(_BRANCH_ENDS) else 1.0
                module.weight.normal_(0.0, gain * module.weight[0].numel() ** -0.5, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.Embedding):
                module.weight.normal_(0.0, 0.02, generator=generator)
            elif "Norm" in type(module).__name__:
                for part, parameter in module.named_parameters(recurse=False):
                    parameter.fill_(1.0 if part == "weight" else 0.0)
        model.vision_backbone.featurizer.pos_embed.normal_(0.0, 0.3, generator=generator)


def _config(
    shape: NanoShape, text_vocab: int, norm_stats: Mapping[str, Any], gripper: str, proprio_dim: int
) -> dict[str, Any]:
    side = shape.tower.image_size
    return {
        "architectures": ["OpenVLAForActionPrediction"],
        "model_type": "openvla",
        "arch_specifier": "no-align+gelu-mlp",
        "image_resize_strategy": "resize-naive",
        "image_sizes": [side],
        "vision_backbone_id": "grape-nano",
        "timm_model_ids": ["grape_nano_vit"],
        "timm_override_act_layers": [None],
        "use_fused_vision_backbone": False,
        "llm_backbone_id": "grape-nano",
        "n_action_bins": shape.action_bins,
        "norm_stats": dict(norm_stats),
        "pad_to_multiple_of": _PAD_TO,
        "pad_token_id": text_vocab,
        "text_config": {
            "model_type": "llama",
            "hidden_size": shape.hidden,
            "intermediate_size": shape.mlp,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.heads,
            "num_hidden_layers": shape.layers,
            "vocab_size": text_vocab + _PAD_TO,
        },
        "torch_dtype": "float32",
        "grape": {
            "preset": "nano",
            "gripper": gripper,
            "towers": towers_to_json((shape.tower,)),
            **({"proprio_dim": proprio_dim} if proprio_dim else {}),
        },
    }


def _preprocessor(side: int) -> dict[str, Any]:
    half = [0.5, 0.5, 0.5]
    return {
        "image_processor_type": "PrismaticImageProcessor",
        "image_resize_strategy": "resize-naive",
        "input_sizes": [[3, side, side]],
        "interpolations": ["bicubic"],
        "means": [half],
        "stds": [half],
        "tvf_do_letterbox": False,
        "tvf_normalize_params": [{"inplace": False, "mean": half, "std": half}],
        "use_fused_vision_backbone": False,
    }


def _tokenizer(instructions: Sequence[str], action_bins: int) -> tuple[Tokenizer, int]:
    """A unigram tokenizer, and the size of the vocabulary that action tokens are counted down from.

    All pieces weigh the same, so the segmentation with the fewest pieces wins; a character without a piece falls back
    to its bytes, so no two texts ever become the same ids.
    """
    for text in instructions:
        check_instruction(text)
    before, after = PROMPT_TEMPLATE.replace(" ", "▁").split("▁{instruction}")
    whole = [text.lower().replace(" ", "▁") for text in instructions if text.strip()]
    words = sorted(
        {*_WORDS.split(), *(word for text in instructions for word in re.findall(r"[a-z0-9]+", text.lower()))}
    )
    letters = "▁abcdefghijklmnopqrstuvwxyz0123456789.,'-?"
    pieces = [f"▁{before}", after, *sorted(f"▁{piece}" for piece in {*whole, *words}), *letters]
    vocabulary = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    vocabulary += [(f"<0x{byte:02X}>", -50.0) for byte in range(256)]
    vocabulary += [(piece, -1.0) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    used = len(vocabulary) + action_bins
    return tokenizer, -(-used // _PAD_TO) * _PAD_TO


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
