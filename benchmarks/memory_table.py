"""How much memory training OpenVLA-7B takes by setting: the tables of docs/memory.md, from the estimate alone.

python benchmarks/memory_table.py            # Markdown; a minute or two, no weights, no GPU
python benchmarks/memory_table.py --json     # the same figures with all parts
"""

import argparse
import functools
import json
from typing import Any

from openvla_7b_shape import OPENVLA_7B

from grape.policies.openvla import OpenVLAConfig
from grape.policies.openvla.weightless import weightless_openvla
from grape.training.estimate import Estimate, estimate_training

PROMPT_TOKENS = 34
"""The longest instruction of LIBERO-Spatial, with begin-of-sequence and template."""
MEMORIES = (24, 48, 80)
SETTINGS: dict[str, dict[str, Any]] = {
    "LoRA 32": {"lora_rank": 32},
    "LoRA 32, activation checkpointing": {"lora_rank": 32, "activation_checkpointing": True},
    "all parameters": {"gradient": "two-pass"},
    "all parameters, activation checkpointing": {"gradient": "two-pass", "activation_checkpointing": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    options = parser.parse_args()
    config = OpenVLAConfig.from_json(OPENVLA_7B)
    rows = {name: _row(config, settings) for name, settings in SETTINGS.items()}
    if options.json:
        print(
            json.dumps({name: {size: e.to_json() for size, e in row.items()} for name, row in rows.items()}, indent=1)
        )
        return
    print("| setting | micro-batch 1 | micro-batch 8 | a frame more | TFLOP a frame |")
    print("|---|---|---|---|---|")
    for name, row in rows.items():
        one, eight = row[1].memory.peak / 1e9, row[8].memory.peak / 1e9
        each = (row[8].memory.passes - row[1].memory.passes) / 7e9
        print(f"| {name} | {one:.1f} GB | {eight:.1f} GB | {each:.2f} GB | {row[8].step_flops / 1e12:.1f} |")
    print(f"\n| setting | {' | '.join(f'{size} GB' for size in MEMORIES)} |")
    print(f"|---|{'---|' * len(MEMORIES)}")
    for name, settings in SETTINGS.items():
        largest = [_estimate(config, 1, settings, memory).largest_micro_batch for memory in MEMORIES]
        print(f"| {name} | {' | '.join(str(count or '–') for count in largest)} |")
    print("\n| part | LoRA 32 | all parameters |\n|---|---|---|")
    adapted, full = rows["LoRA 32"][1].memory, rows["all parameters"][1].memory
    for part in ("weights", "adapters", "gradients", "buffers", "moments", "passes", "step"):
        print(f"| {part} | {getattr(adapted, part) / 1e9:.2f} GB | {getattr(full, part) / 1e9:.2f} GB |")


def _row(config: OpenVLAConfig, settings: dict[str, Any]) -> dict[int, Estimate]:
    return {size: _estimate(config, size, settings) for size in (1, 8)}


def _estimate(
    config: OpenVLAConfig, micro_batch: int, settings: dict[str, Any], memory: float | None = None
) -> Estimate:
    return estimate_training(
        functools.partial(weightless_openvla, config),
        instruction_tokens=PROMPT_TOKENS,
        micro_batch=micro_batch,
        memory_gb=memory,
        **settings,
    )


if __name__ == "__main__":
    main()
