"""Do exports work in other software? OpenVLA's published code opens what `grape export` wrote, with equal actions.

A checkpoint in the published layout gets a random adapter (rank 8, on all layers of language model, projector and
towers), which is exported merged and as an adapter. Both are read by the published code in an environment of its own,
with the releases that it asks for, and here; every image meets several instructions and statistics.

    python benchmarks/reference_code.py --checkpoint CKPT --images FOLDER --code prismatic/extern/hf \\
        --python OLD_ENVIRONMENT/bin/python --out docs/results/reference-code.json

CODE is the folder `prismatic/extern/hf` of OpenVLA's repository; nothing of it is part of this project.
"""

import argparse
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured_on import commit
from PIL import Image

from grape.checkpoints import ExportAdapterSettings, ExportMergedSettings, run_export_adapter, run_export_merged
from grape.core.files import write_json
from grape.core.trajectories import Observation
from grape.policies.openvla import OpenVLAPolicy, load_policy
from grape.policies.presets import TOWERS
from grape.training.lora import add_adapters, save_result

INSTRUCTIONS = (
    "put the carrot on the plate",
    "pick up the black bowl between the plate and the ramekin and place it on the plate",
    'open the robot\'s "top" drawer',
    "Move the Red Block left",
    "fold the towel",
)
READER = Path(__file__).with_name("reference_code_reader.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("checkpoint", "images", "code", "python"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/results/reference-code.json"))
    options = parser.parse_args()
    keys = sorted(json.loads((options.checkpoint / "config.json").read_text())["norm_stats"])
    with tempfile.TemporaryDirectory() as work:
        run = Path(work)
        write_random_adapter(options.checkpoint, keys[0], run)
        run_export_merged(ExportMergedSettings(str(run / "policy"), run / "merged"))
        base = str(options.checkpoint.absolute())
        run_export_adapter(ExportAdapterSettings(str(run / "policy"), run / "adapter", base=base))
        chosen = zip(itertools.product(sorted(options.images.iterdir()), INSTRUCTIONS), itertools.cycle(keys))
        cases = [(image, instruction, key) for (image, instruction), key in chosen]
        theirs = ask_reference(options, run, base, cases)
        roads = {
            "merged": answers(run / "merged", cases),
            "adapter": answers(run / "adapter", cases),
            "base": answers(options.checkpoint, cases),
        }
    merged, adapter = theirs["answers"]
    result = {
        "command": "python benchmarks/reference_code.py --checkpoint ckpt --images images --code hf --python python",
        "commit": commit(),
        "reference": theirs["versions"],
        "here": {"torch": torch.__version__},
        "cases": len(cases),
        "cases_where_the_adapter_changes_tokens": changed(roads["base"], roads["adapter"]),
        "merged": compare(merged, roads["merged"]),
        "adapter": compare(adapter, roads["adapter"]),
    }
    write_json(options.out, result)
    print(json.dumps(result, indent=1))


def write_random_adapter(checkpoint: Path, key: str, run: Path) -> None:
    """An adapter that nobody trained, at ``run/policy``."""
    policy = load_policy(checkpoint, unnorm_key=key)
    add_random_adapter(policy)
    save_result(policy, run, checkpoint)


def add_random_adapter(policy: Any) -> None:
    """Put an adapter beside all layers that can have one; it changes what the policy does."""
    add_adapters(policy, 8, 16.0, 0, "all")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(0.0, 0.05, generator=generator)


def ask_reference(options: argparse.Namespace, run: Path, base: str, cases: list[tuple[Path, str, str]]) -> Any:
    request = {
        "code": str(options.code.absolute()),
        "towers": {name: dataclasses.asdict(tower) for name, tower in TOWERS.items()},
        "exports": [
            {"folder": str(run / "merged"), "adapter": ""},
            {"folder": base, "adapter": str(run / "adapter")},
        ],
        "cases": [
            {
                "image": str(image.absolute()),
                "prompt": f"In: What action should the robot take to {instruction.lower()}?\nOut:",
                "unnorm_key": key,
            }
            for image, instruction, key in cases
        ],
    }
    return ask(options.python, READER, request, run)


def ask(python: Path, reader: Path, request: dict[str, Any], folder: Path, *words: str) -> Any:
    """What the published code answers to a request, in the environment of ``python``; files go to ``folder``."""
    write_json(folder / "request.json", {**request, "reply": str(folder / "reply.json")})
    quiet = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    reply = subprocess.run(
        [str(python), str(reader), str(folder / "request.json"), *words],
        env=quiet,
        capture_output=True,
        text=True,
        check=False,
    )
    if reply.returncode:
        sys.exit(f"The published code failed:\n{reply.stderr[-3000:]}")
    return json.loads((folder / "reply.json").read_text())


def answers(folder: Path, cases: list[tuple[Path, str, str]]) -> list[dict[str, Any]]:
    """What our implementation decodes, one by one."""
    policies: dict[str, OpenVLAPolicy] = {}
    decoded = []
    for image, instruction, key in cases:
        if key not in policies:
            policies[key] = load_policy(folder, unnorm_key=key)
        policy = policies[key]
        pixels = np.asarray(Image.open(image).convert("RGB"))
        batch = policy.act([Observation(pixels, np.zeros(0, np.float32), instruction)])
        decided = {"tokens": batch.tokens, "action": batch.actions, "logps": batch.logps}
        decoded.append({name: value[0, 0].tolist() for name, value in decided.items()})
    return decoded


def compare(theirs: Any, ours: list[dict[str, Any]]) -> dict[str, Any]:
    pairs = list(zip(theirs["cases"], ours, strict=True))

    def largest(name: str) -> float:
        return max(float(np.abs(np.subtract(first[name], second[name])).max()) for first, second in pairs)

    return {
        "missing_weights": theirs["keys"]["missing"],
        "unexpected_weights": theirs["keys"]["unexpected"],
        "equal_tokens": sum(first["tokens"] == second["tokens"] for first, second in pairs),
        "largest_difference_of_an_action": largest("action"),
        "largest_difference_of_a_log_probability": largest("logps"),
    }


def changed(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> int:
    return sum(first["tokens"] != second["tokens"] for first, second in zip(before, after, strict=True))


if __name__ == "__main__":
    main()
