"""Two small networks of OpenVLA's architecture, and a preference pair to train them on; all random, all seeded.

Kept from the 7 B model: images of 224 pixels and 256 patches, the vocabulary of 32064 ids, the ratios of MLPs and
projector, the towers' heads of 64 and 72 channels. What shrinks is width and depth, so the vocabulary weighs more than
it does at 7 B: a third of the parameters is its output layer at 23 M, a quarter at 71 M.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from grape.core.seeds import derive_rng, derive_seed
from grape.policies.openvla import OpenVLAPolicy, compute_norm_stats
from grape.policies.openvla.checkpoint import CheckpointFiles, empty_model, materialize_buffers
from grape.policies.openvla.config import OpenVLAConfig, towers_to_json
from grape.policies.presets import TowerConfig
from grape.training.dataset import StepDataset
from grape.training.decision_axis import DecisionAxis
from grape.training.lora import add_adapters

INSTRUCTION = "put the carrot on the plate next to the blue bowl"
ACTION_TOKENS = 7
LORA_RANK = 32
"""Rank of the adapters on both sides, as published."""


@dataclass(frozen=True)
class TrainingShape:
    """Widths and depths of one network.

    Attributes:
        hidden: Width of the language model.
        layers: Its depth.
        heads: Its attention heads.
        tower_widths: Widths of the DINOv2-style and of the SigLIP-style tower.
        tower_depths: Their depths; the last block of each is never run, as published.
        tower_heads: Attention heads of each tower.
    """

    hidden: int
    layers: int
    heads: int
    tower_widths: tuple[int, int]
    tower_depths: tuple[int, int]
    tower_heads: int


SHAPES = {
    "tiny": TrainingShape(32, 2, 2, tower_widths=(32, 36), tower_depths=(3, 3), tower_heads=1),
    "23m": TrainingShape(256, 4, 4, tower_widths=(128, 144), tower_depths=(5, 6), tower_heads=2),
    "71m": TrainingShape(512, 8, 8, tower_widths=(256, 288), tower_depths=(5, 5), tower_heads=4),
}


def make_policy(shape: str, *, seed: int = 0, adapters: bool = True) -> OpenVLAPolicy:
    """A policy with random weights, in float32.

    Args:
        shape: Name in :data:`SHAPES`.
        seed: Decides the weights.
        adapters: Freeze them and add adapters as ``grape train --lora-rank 32`` does. Their second factor, zero at
            first, gets small values, so that no product and no gradient is trivially zero.
    """
    config = OpenVLAConfig.from_json(_config(SHAPES[shape]))
    model = empty_model(config)
    model.to_empty(device="cpu")
    materialize_buffers(model)
    _draw(model, seed)
    policy = OpenVLAPolicy(model, CheckpointFiles(config, {"tokenizer.json": _tokenizer().to_str().encode(), **_SIDE}))
    if adapters:
        add_adapters(policy, LORA_RANK, 0.0, seed)
        generator = torch.Generator().manual_seed(derive_seed(seed, "second factors"))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0.0, 0.01, generator=generator)
    return policy


def make_pair(policy: OpenVLAPolicy, steps: int, seed: int = 0) -> StepDataset:
    """Chosen and rejected trajectory of ``steps`` steps each, with random images and tokens.

    Rows ``[0, steps)`` are the chosen side. The recorded log-probabilities are plausible numbers, not the policy's.
    """
    rng = derive_rng(seed, "pair")
    count = 2 * steps
    side = policy.config.image_size
    tokens_ND = rng.choice(policy.action_token_ids, (count, ACTION_TOKENS))
    return StepDataset(
        images_NHWC=rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
        instructions=(INSTRUCTION,) * 2,
        tokens_NKD=tokens_ND.astype(np.int64)[:, None],
        logps_NKD=rng.uniform(-12.0, -9.0, (count, 1, ACTION_TOKENS)).astype(np.float32),
        labels_TD=np.zeros((count, ACTION_TOKENS), dtype=np.float32),
        axis=DecisionAxis.plain(count),
        spans={"chosen": (0, steps), "rejected": (steps, count)},
    )


_SIDE = {
    "preprocessor_config.json": b"""{
 "image_resize_strategy": "resize-naive",
 "input_sizes": [[3, 224, 224], [3, 224, 224]],
 "interpolations": ["bicubic", "bicubic"],
 "tvf_normalize_params": [
  {"mean": [0.484375, 0.455078125, 0.40625], "std": [0.228515625, 0.2236328125, 0.224609375]},
  {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
 ]
}
""",
}


def _config(shape: TrainingShape) -> dict[str, Any]:
    rng = derive_rng(0, "actions")
    towers = (
        TowerConfig(
            width=shape.tower_widths[0],
            depth=shape.tower_depths[0],
            heads=shape.tower_heads,
            mlp_width=4 * shape.tower_widths[0],
            patch=14,
            image_size=224,
            feature_block=shape.tower_depths[0] - 2,
            class_token=True,
            registers=4,
            layer_scale=True,
        ),
        TowerConfig(
            width=shape.tower_widths[1],
            depth=shape.tower_depths[1],
            heads=shape.tower_heads,
            mlp_width=int(3.7362 * shape.tower_widths[1]),
            patch=14,
            image_size=224,
            feature_block=shape.tower_depths[1] - 2,
            attention_pool=True,
        ),
    )
    return {
        "model_type": "openvla",
        "image_resize_strategy": "resize-naive",
        "image_sizes": [224, 224],
        "use_fused_vision_backbone": True,
        "n_action_bins": 256,
        "norm_stats": {"random": compute_norm_stats(rng.uniform(-1, 1, (64, ACTION_TOKENS)), _NAMES)},
        "pad_to_multiple_of": 64,
        "pad_token_id": 32000,
        "text_config": {
            "model_type": "llama",
            "hidden_size": shape.hidden,
            "intermediate_size": 16 * -(-shape.hidden * 11008 // 4096 // 16),
            "num_attention_heads": shape.heads,
            "num_hidden_layers": shape.layers,
            "vocab_size": 32064,
        },
        "torch_dtype": "float32",
        "grape": {"towers": towers_to_json(towers)},
    }


_NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")


def _draw(model: torch.nn.Module, seed: int) -> None:
    """Matrices normal with deviation ``fan_in ** -0.5``, embeddings 0.02; scales one, biases zero."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "benchmark weights"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            elif "embed_tokens" in name or name.endswith(("_token", "pos_embed", "latent")):
                parameter.normal_(0.0, 0.02, generator=generator)
            else:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)


def _tokenizer() -> Tokenizer:
    """Words as tokens: a prompt becomes about as long as with Llama-2's tokenizer."""
    words = ["<unk>", "<s>", "</s>", *f"In : What action should the robot take to ? Out {INSTRUCTION}".split()]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(dict.fromkeys(words))}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer
