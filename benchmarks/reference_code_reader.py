"""The other side of benchmarks/reference_code.py: OpenVLA's published code reads an export and says what it decodes.

Runs with the releases that this code asks for (transformers 4.40.1, tokenizers 0.19.1, timm 0.9.10, PEFT 0.11.1).
Started by benchmarks/reference_code.py, which writes the JSON it reads.

    reference_code_reader.py REQUEST.json
"""
# ruff: noqa: E402 - an operator's name must be known before timm is imported

import importlib
import json
import sys
from pathlib import Path

import torch

# A torchvision built for another build of torch cannot load its operators and stops at these names; none is needed.
OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import peft
import timm
import transformers
from PIL import Image
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from tokenizers import __version__ as tokenizers_version
from transformers import AutoTokenizer

REQUEST = json.loads(Path(sys.argv[1]).read_text())


def register_tower(name, tower):
    """Tell timm of a tower that it does not know: small checkpoints have small ones."""

    def build(pretrained=False, **settings):
        shape = {"patch_size": tower["patch"], "embed_dim": tower["width"], "depth": tower["depth"]}
        shape |= {"num_heads": tower["heads"], "mlp_ratio": tower["mlp_width"] / tower["width"]}
        if tower["class_token"]:
            shape |= {"init_values": 1e-5, "reg_tokens": tower["registers"], "no_embed_class": True}
        else:
            shape |= {"class_token": False, "global_pool": "map"}
        (
            settings.pop("pretrained_cfg", None),
            settings.pop("pretrained_cfg_overlay", None),
            settings.pop("cache_dir", None),
        )
        return VisionTransformer(**shape, **settings)

    build.__name__, build.__module__ = name, __name__
    register_model(build)


def read(folder, adapter):
    """The model, the processor, and which weights were missing or unexpected."""
    code = Path(REQUEST["code"])
    sys.path.insert(0, str(code.parent))
    modeling = importlib.import_module(f"{code.name}.modeling_prismatic")
    processing = importlib.import_module(f"{code.name}.processing_prismatic")
    model, loading_report = modeling.OpenVLAForActionPrediction.from_pretrained(
        folder, torch_dtype=torch.float32, output_loading_info=True
    )
    if adapter:
        model = peft.PeftModel.from_pretrained(model, adapter)
    images = processing.PrismaticImageProcessor.from_pretrained(folder)
    processor = processing.PrismaticProcessor(images, AutoTokenizer.from_pretrained(folder))
    return model.eval(), processor, {name: loading_report[f"{name}_keys"] for name in ("missing", "unexpected")}


def decode(model, processor, case):
    """Tokens, their log-probabilities, and the action that predict_action gives."""
    inputs = processor(case["prompt"], Image.open(case["image"]).convert("RGB"))
    plain = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    action = plain.predict_action(**inputs, unnorm_key=case["unnorm_key"], do_sample=False)
    ids = inputs["input_ids"]
    if ids[0, -1] != 29871:
        ids = torch.cat([ids, torch.tensor([[29871]])], dim=1)
    out = plain.generate(
        ids,
        pixel_values=inputs["pixel_values"],
        attention_mask=torch.ones_like(ids),
        max_new_tokens=len(action),
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    tokens = out.sequences[0, -len(action) :].tolist()
    logps = [float(score[0].log_softmax(-1)[token]) for score, token in zip(out.scores, tokens)]  # noqa: B905
    return {"tokens": tokens, "action": action.tolist(), "logps": logps}


for name, tower in REQUEST["towers"].items():
    if not timm.is_model(name):
        register_tower(name, tower)
answers = []
with torch.inference_mode():
    for export in REQUEST["exports"]:
        model, processor, keys = read(export["folder"], export["adapter"])
        cases = [decode(model, processor, case) for case in REQUEST["cases"]]
        answers.append({"keys": keys, "cases": cases})
versions = {"torch": torch.__version__, "transformers": transformers.__version__, "timm": timm.__version__}
versions |= {"tokenizers": tokenizers_version, "peft": peft.__version__}
Path(REQUEST["reply"]).write_text(json.dumps({"versions": versions, "answers": answers}))
