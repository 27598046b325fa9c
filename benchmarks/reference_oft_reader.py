"""The other side of benchmarks/reference_oft.py: OpenVLA-OFT's published code reads an export and says what it decides.

Runs with the releases that this code asks for: transformers of its fork (4.40.1 with bidirectional attention),
tokenizers 0.19.1, timm 0.9.10, PEFT 0.11.1. Started by benchmarks/reference_oft.py, which writes the JSON it reads.

    reference_oft_reader.py REQUEST.json libero
"""
# ruff: noqa: E402 - an operator's name must be known before timm is imported; packages before their modules

import inspect
import json
import sys
import types
from pathlib import Path

import torch

# A torchvision built for another build of torch cannot load its operators and stops at these names; none is needed.
OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import numpy as np
import peft
import timm
import transformers
from PIL import Image
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from tokenizers import __version__ as tokenizers_version
from transformers import AutoTokenizer
from transformers.models.llama.modeling_llama import LlamaSdpaAttention

REQUEST = json.loads(Path(sys.argv[1]).read_text())
if "is_causal=False" not in inspect.getsource(LlamaSdpaAttention.forward):
    sys.exit("transformers here is not the fork of OpenVLA-OFT: its attention is causal")

# The packages' own __init__ files import TensorFlow and a simulator; what is read here needs neither.
for name in ("prismatic", *(f"prismatic.{part}" for part in ("extern", "extern.hf", "training", "vla", "models"))):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(Path(REQUEST["code"]) / name.replace(".", "/"))]
for name in ("diffusers", "diffusers.schedulers", "diffusers.schedulers.scheduling_ddim"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["diffusers.schedulers.scheduling_ddim"].DDIMScheduler = object

from prismatic.extern.hf.modeling_prismatic import OpenVLAForActionPrediction
from prismatic.extern.hf.processing_prismatic import PrismaticImageProcessor, PrismaticProcessor
from prismatic.models.action_heads import L1RegressionActionHead
from prismatic.models.projectors import ProprioProjector

WINDOW = slice(-256 - 64, -64)


def register_tower(name, tower):
    """Tell timm of a tower that it does not know: small checkpoints have small ones."""

    def build(pretrained=False, **settings):
        shape = {"patch_size": tower["patch"], "embed_dim": tower["width"], "depth": tower["depth"]}
        shape |= {"num_heads": tower["heads"], "mlp_ratio": tower["mlp_width"] / tower["width"]}
        if tower["class_token"]:
            shape |= {"init_values": 1e-5, "reg_tokens": tower["registers"], "no_embed_class": True}
        else:
            shape |= {"class_token": False, "global_pool": "map"}
        unused = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
        return VisionTransformer(**shape, **{key: value for key, value in settings.items() if key not in unused})

    build.__name__, build.__module__ = name, __name__
    register_model(build)


def read_part(folder, name, module):
    """A part of the network from a file of its own, as the published code loads it."""
    (path,) = Path(folder).glob(f"{name}--*.pt")
    weights = torch.load(path, weights_only=True)
    module.load_state_dict({key.removeprefix("module."): value for key, value in weights.items()})
    return module.float().eval()


def answer(export):
    """What an export decides in all its cases, and which of its weights were missing or unexpected."""
    folder = export["folder"]
    model, report = OpenVLAForActionPrediction.from_pretrained(
        folder, torch_dtype=torch.float32, attn_implementation="sdpa", output_loading_info=True
    )
    model.norm_stats = json.loads((Path(folder) / "dataset_statistics.json").read_text())
    if export["adapter"]:
        model = peft.PeftModel.from_pretrained(model, export["adapter"]).merge_and_unload()
    model.eval().vision_backbone.set_num_images_in_input(export["cameras"])
    hidden = model.config.text_config.hidden_size
    states = export["states"]
    projector = (
        read_part(export["parts"], "proprio_projector", ProprioProjector(hidden, len(states[0]))) if states else None
    )
    head = read_part(export["parts"], "action_head", L1RegressionActionHead(hidden, hidden)) if export["head"] else None
    processor = PrismaticProcessor(
        PrismaticImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    )
    seen = {}
    model.language_model.register_forward_hook(lambda _module, _args, output: seen.update(logits=output.logits))
    decisions = []
    for row, case in enumerate(REQUEST["cases"]):
        encoded = [
            processor(case["prompt"], Image.open(image).convert("RGB")) for image in case["images"][: export["cameras"]]
        ]
        actions, _ = model.predict_action(
            input_ids=encoded[0]["input_ids"],
            attention_mask=encoded[0]["attention_mask"],
            pixel_values=torch.cat([one["pixel_values"] for one in encoded], dim=1),
            unnorm_key=REQUEST["unnorm_key"],
            proprio=np.array(states[row]) if states else None,
            proprio_projector=projector,
            action_head=head,
        )
        decision = {"actions": actions.tolist()}
        if not export["head"]:
            tokens = torch.tensor(export["tokens"][row]).flatten()
            logits = seen["logits"][0, -2 - len(tokens) : -2]  # the stop token's row is last
            window = export["support"] == "window"
            first = model.vocab_size - 256 if window else 0
            logits = (logits[:, WINDOW] if window else logits) / export["temperature"]
            decision["tokens"] = (logits.argmax(-1) + first).tolist()
            decision["logps"] = logits.log_softmax(-1).gather(-1, (tokens - first)[:, None])[:, 0].tolist()
        decisions.append(decision)
    return {"decisions": decisions} | {name: report[f"{name}_keys"] for name in ("missing", "unexpected")}


for name, tower in REQUEST["towers"].items():
    if not timm.is_model(name):
        register_tower(name, tower)
with torch.inference_mode():
    answers = [answer(export) for export in REQUEST["exports"]]
versions = {"torch": torch.__version__, "transformers": f"{transformers.__version__}, OpenVLA-OFT's fork"}
versions |= {"timm": timm.__version__, "tokenizers": tokenizers_version, "peft": peft.__version__}
Path(REQUEST["reply"]).write_text(json.dumps({"versions": versions, "answers": answers}))
