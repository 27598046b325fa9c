"""Do exports of OpenVLA-OFT work in other software? Its published code opens them, with equal decisions.

A checkpoint in the published layout, with and without its separate parts, gets a random adapter (rank 8, on all
layers), which is exported merged and as an adapter. Both are read by the published code in an environment of its own,
with the releases that it asks for, and here.

    python benchmarks/reference_oft.py --checkpoint CKPT --parts FOLDER --unnorm-key KEY --images FOLDER \\
        --code OPENVLA_OFT --python OLD_ENVIRONMENT/bin/python --out docs/results/reference-oft.json

CKPT holds weights and tokenizer, FOLDER `action_head--*.pt` and `proprio_projector--*.pt`, OPENVLA_OFT OpenVLA-OFT's
repository; nothing of it is part of this project.
"""

import argparse
import dataclasses
import itertools
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured_on import commit
from PIL import Image
from reference_code import INSTRUCTIONS, add_random_adapter, ask

from grape.checkpoints import ExportAdapterSettings, ExportMergedSettings, run_export_adapter, run_export_merged
from grape.core.files import write_json
from grape.policies.openvla_oft.loading import OFTChoices, load_oft_policy
from grape.policies.openvla_oft.policy import OFTPolicy
from grape.policies.presets import TOWERS
from grape.training.lora import save_result

READER = Path(__file__).with_name("reference_oft_reader.py")
PARTS = {"proprio_projector": "proprio_projector--*.pt", "action_head": "action_head--*.pt"}
VARIANTS: Mapping[str, tuple[str, int, tuple[str, ...]]] = {
    "tokens": ("simplevla-rl", 1, ()),
    "tokens, two cameras": ("openvla-oft", 2, ()),
    "tokens, robot state": ("openvla-oft", 1, ("proprio_projector",)),
    "L1 head, robot state": ("", 1, ("proprio_projector", "action_head")),
}
"""Preset, number of cameras and separate parts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("checkpoint", "parts", "images", "code", "python"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--unnorm-key", required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/results/reference-oft.json"))
    options = parser.parse_args()
    images = sorted(options.images.iterdir())
    cases = list(itertools.product(range(len(images)), INSTRUCTIONS))
    exports, ours = [], []
    with tempfile.TemporaryDirectory() as work:
        for number, variant in enumerate(VARIANTS):
            folder = Path(work) / str(number)
            for policy, export in export_variant(options, variant, folder):
                decided = decide(policy, images, cases)
                ours.append(decided)
                facts = {"support": policy.conventions.support, "temperature": policy.conventions.temperature}
                given = {
                    "tokens": decided["tokens"],
                    "states": decided["states"],
                    "cameras": len(policy.layout.cameras),
                }
                exports.append({**export, **facts, **given, "head": not policy.has_logps})
        request = {
            "code": str(options.code.absolute()),
            "towers": {name: dataclasses.asdict(tower) for name, tower in TOWERS.items()},
            "unnorm_key": options.unnorm_key,
            "exports": exports,
            "cases": [
                {
                    "images": [str(images[(image + camera) % len(images)].absolute()) for camera in range(2)],
                    "prompt": f"In: What action should the robot take to {instruction.lower()}?\nOut:",
                }
                for image, instruction in cases
            ],
        }
        theirs = ask(options.python, READER, request, Path(work), "libero")
    compared = [compare(their, our) for their, our in zip(theirs["answers"], ours, strict=True)]
    result = {
        "command": "python benchmarks/reference_oft.py --checkpoint ckpt --parts heads --images images --code oft ...",
        "commit": commit(),
        "reference": theirs["versions"],
        "here": {"torch": torch.__version__},
        "cases": len(cases),
        "variants": {
            variant: {"merged": compared[3 * number], "adapter": compared[3 * number + 1]}
            | {"tokens_that_the_adapter_leaves": equal_tokens(ours[3 * number + 2], ours[3 * number + 1])}
            for number, variant in enumerate(VARIANTS)
        },
    }
    write_json(options.out, result)
    print(json.dumps(result, indent=1))


def export_variant(options: argparse.Namespace, variant: str, folder: Path) -> list[tuple[OFTPolicy, dict[str, Any]]]:
    """Export a random adapter on one variant: policies here, and what the reader shall load for each.

    The adapter changes the projector of the robot's state, which published code loads apart: the merged one is given to
    it. Last comes the base.
    """
    preset, cameras, parts = VARIANTS[variant]
    base, run = folder / "base", folder / "run"
    shutil.copytree(options.checkpoint, base)
    for part in parts:
        (path,) = options.parts.glob(PARTS[part])
        shutil.copyfile(path, base / path.name)
    choices = OFTChoices(preset, cameras=cameras, unnorm_key=options.unnorm_key, center_crop=False)
    policy = load_oft_policy(base, choices)
    add_random_adapter(policy)
    save_result(policy, run, base)
    run_export_merged(ExportMergedSettings(str(run / "policy"), run / "merged"))
    run_export_adapter(ExportAdapterSettings(str(run / "policy"), run / "adapter"))
    return [
        (load_oft_policy(run / "merged"), {"folder": str(run / "merged"), "adapter": "", "parts": str(run / "merged")}),
        (
            load_oft_policy(run / "adapter"),
            {"folder": str(base), "adapter": str(run / "adapter"), "parts": str(run / "merged")},
        ),
        (load_oft_policy(base, choices), {"folder": str(base), "adapter": "", "parts": str(base)}),
    ]


def decide(policy: OFTPolicy, images: list[Path], cases: list[tuple[int, str]]) -> dict[str, Any]:
    """What our implementation decides, all cases at once, and the normalized states that it read."""
    pixels = [np.asarray(Image.open(image).convert("RGB")) for image in images]
    cameras = len(policy.layout.cameras)
    seen = [[pixels[(image + camera) % len(pixels)] for camera in range(cameras)] for image, _ in cases]
    state_dim = policy.layout.proprio_dim
    states = np.random.default_rng(0).uniform(-1, 1, (len(cases), state_dim)) if state_dim else None
    inputs = policy.encode_images(seen, [instruction for _, instruction in cases], states)
    batch = policy.decide(inputs)
    return {
        "actions": batch.actions,
        "tokens": None if batch.tokens is None else batch.tokens.tolist(),
        "logps": batch.logps,
        "states": None if inputs.proprio_BP is None else inputs.proprio_BP.tolist(),
    }


def compare(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    decisions = theirs["decisions"]
    result: dict[str, Any] = {f"{name}_weights": theirs[name] for name in ("missing", "unexpected")}
    if ours["tokens"] is None:
        actions = np.array([decision["actions"] for decision in decisions])
        return result | {"largest_difference_of_an_action": float(np.abs(actions - ours["actions"]).max())}
    logps = np.array([decision["logps"] for decision in decisions])
    return result | {
        "equal_tokens": equal_tokens({"tokens": [decision["tokens"] for decision in decisions]}, ours),
        "largest_difference_of_a_log_probability": float(np.abs(logps - ours["logps"].reshape(logps.shape)).max()),
    }


def equal_tokens(first: dict[str, Any], second: dict[str, Any]) -> float | None:
    """Share of equal tokens; None without tokens."""
    if first["tokens"] is None:
        return None
    return float(np.mean(np.ravel(first["tokens"]) == np.ravel(second["tokens"])))


if __name__ == "__main__":
    main()
