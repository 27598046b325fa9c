"""Processor time of an update of preference optimization with chunks of 8 actions, beside one action a decision.

    python benchmarks/train_chunks.py --out docs/results/train-chunks.json      # 3 minutes on an idle core

The two policies have the same towers and language model, float32, one thread, and train all parameters on the same
control steps by the product's own step (exact gradient in two passes, image preprocessing, AdamW). With one action a
decision every control step has an image; with chunks every eighth has one. The two take turns.

Measured are the nano shape and a network of OpenVLA's proportions (images of 224 pixels, 256 patches; 23 M parameters).
How much chunks save depends on what a decision reads beside its placeholders: 16 patches beside 8 at nano, 256 beside
56 at OpenVLA's shape. For OpenVLA-7B itself operations are counted, not measured (`operations_7b`).
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import training_shapes
from measured_on import commit, processor
from openvla_7b_shape import OPENVLA_7B
from training_shapes import SHAPES

from grape.core.chunks import PLAIN
from grape.core.files import write_json
from grape.core.seeds import derive_rng
from grape.policies.base import ImitationPolicy
from grape.policies.openvla import OpenVLAConfig, compute_norm_stats, create_nano
from grape.policies.openvla.checkpoint import materialize_buffers
from grape.policies.openvla.weightless import weightless_openvla
from grape.policies.openvla_oft.conventions import PRESETS, Layout
from grape.policies.openvla_oft.loading import state_oft
from grape.policies.openvla_oft.model import empty_oft_model
from grape.policies.openvla_oft.nano import NANO_CONVENTIONS, create_nano_oft
from grape.policies.openvla_oft.policy import OFTPolicy
from grape.policies.openvla_oft.weightless import weightless_oft
from grape.training.batches import collate
from grape.training.dataset import StepDataset
from grape.training.decision_axis import DecisionAxis
from grape.training.gradients import two_pass_gradient
from grape.training.items import ComparisonItem
from grape.training.logprobs import StepLogprobs, recorded_reference
from grape.training.losses import LossSettings, preference_loss
from grape.training.meta_profile import prepare_network, profile_micro_batch
from grape.training.plan import choose_micro_batch

INSTRUCTION = "put the bowl on the stove"
NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
CHUNK = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=80, help="control steps of each side")
    parser.add_argument("--shapes", nargs="+", default=["nano", "23m"], choices=["nano", *SHAPES])
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    before = os.getloadavg()
    shapes = {shape: compare(shape, options) for shape in options.shapes}
    result = {
        **{f"ratio_{shape}": values["ratio"] for shape, values in shapes.items()},
        "operations_7b": count_operations(),
        "control_steps_a_side": options.steps,
        "shapes": shapes,
        "commit": commit(),
        "command": f"python benchmarks/train_chunks.py {' '.join(sys.argv[1:])}".strip(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": 1,
        "processor": processor(),
        "load_average": {"before": list(before), "after": list(os.getloadavg())},
    }
    if options.out:
        write_json(options.out, result)
    print(json.dumps(result, indent=1))


def compare(shape: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of an update of one shape with and without chunks, taking turns."""
    pairs = options.pairs if shape == "nano" else 1
    updates = {f"chunk_{chunk}": Update(shape, chunk, pairs, options.steps) for chunk in (1, CHUNK)}
    for update in updates.values():
        update.run()  # warm
    seconds: dict[str, list[float]] = {name: [] for name in updates}
    for _ in range(options.repetitions):
        for name, update in updates.items():
            start = time.process_time()
            update.run()
            seconds[name].append(time.process_time() - start)
    plain, chunked = (statistics.median(values) for values in seconds.values())
    return {
        "ratio": plain / chunked,
        "cpu_seconds_an_update": {name: statistics.median(values) for name, values in seconds.items()},
        "decisions_an_update": {name: len(update.steps) for name, update in updates.items()},
        "tokens_an_update": {name: update.steps.axis.steps * len(NAMES) for name, update in updates.items()},
        "pairs": pairs,
        "micro_batch": updates["chunk_1"].micro_batch,
        "runs": seconds,
    }


def count_operations() -> dict[str, float]:
    """Operations of OpenVLA-7B's forward pass for 8 control steps, TFLOP, with and without chunks."""
    config = OpenVLAConfig.from_json(OPENVLA_7B)
    layout = Layout(chunk=CHUNK, action_dim=len(NAMES))
    networks = {
        "chunk_1": weightless_openvla(config, torch.bfloat16),
        "chunk_8": weightless_oft(config, PRESETS["openvla-oft"], layout, torch.bfloat16),
    }
    counts = {name: profile_micro_batch(prepare_network(net), 1, 34).forward_flops for name, net in networks.items()}
    return {"chunk_1": CHUNK * counts["chunk_1"] / 1e12, "chunk_8": counts["chunk_8"] / 1e12} | {
        "ratio": CHUNK * counts["chunk_1"] / counts["chunk_8"]
    }


class Update:
    """One update of a policy that decides on so many actions, repeated on the same pairs.

    Args:
        shape: Name of the network's shape.
        chunk: Actions a decision.
        pairs: Pairs of the update.
        length: Control steps of each side.
    """

    def __init__(self, shape: str, chunk: int, pairs: int, length: int) -> None:
        self.policy = make_policy(shape, chunk)
        self.steps = make_steps(self.policy, 2 * pairs, length)
        spans = self.steps.step_spans
        self._items = [ComparisonItem(f"pair {n}", spans[f"{2 * n}"], spans[f"{2 * n + 1}"]) for n in range(pairs)]
        self._parameters = list(self.policy.module.parameters())
        self.micro_batch = choose_micro_batch(0, sum(parameter.numel() for parameter in self._parameters))
        self._logps = StepLogprobs(self.policy, self.steps, self.micro_batch)
        self._optimizer = torch.optim.AdamW(self._parameters, lr=1e-6)

    def run(self) -> None:
        """Take one step."""
        segments, comparisons = collate(self._items, recorded_reference(self.steps), self.steps.axis)
        two_pass_gradient(
            lambda positions: self._logps.sums(segments[positions]),
            comparisons,
            lambda sums: preference_loss(sums, LossSettings()),
            self.micro_batch,
            self._parameters,
        )
        self._optimizer.step()


def make_policy(shape: str, chunk: int) -> ImitationPolicy:
    """A policy with random weights: OpenVLA's for one action, OpenVLA-OFT's for more."""
    layout = Layout(chunk=chunk, action_dim=len(NAMES), placeholders="per-action" if shape == "nano" else "zeros")
    if shape != "nano":
        plain = training_shapes.make_policy(shape, adapters=False)
        if chunk == PLAIN[0]:
            return plain
        config = state_oft(plain.config, NANO_CONVENTIONS, layout, plain.unnorm_key)
        model = empty_oft_model(config, NANO_CONVENTIONS, layout)
        model.load_state_dict(plain.model.state_dict(), assign=True)
        materialize_buffers(model)
        return OFTPolicy(model, plain.files.with_config(config), plain.unnorm_key)
    statistics_of_actions = compute_norm_stats(derive_rng(0, "actions").uniform(-1, 1, (256, len(NAMES))), NAMES)
    facts: dict[str, Any] = {
        "seed": 0,
        "norm_stats": {"libero": statistics_of_actions},
        "gripper": "+1 closes",
        "instructions": (INSTRUCTION,),
    }
    if chunk == PLAIN[0]:
        return create_nano(**facts)
    return create_nano_oft(layout=layout, **facts)


def make_steps(policy: ImitationPolicy, episodes: int, length: int) -> StepDataset:
    """Episodes of random images and tokens whose chunks are executed whole."""
    rng, chunk = derive_rng(0, "steps"), policy.spec.chunk
    count = episodes * length // chunk
    ids, side = cast(Any, policy).action_token_ids, policy.spec.image_size
    return StepDataset(
        images_NHWC=rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
        instructions=(INSTRUCTION,) * episodes,
        tokens_NKD=rng.choice(ids, (count, chunk, len(NAMES))).astype(np.int64),
        logps_NKD=rng.uniform(-4.0, -3.0, (count, chunk, len(NAMES))).astype(np.float32),
        labels_TD=np.zeros((episodes * length, len(NAMES)), dtype=np.float32),
        axis=DecisionAxis.of(np.full(count, chunk)),
        spans={str(n): (n * length // chunk, (n + 1) * length // chunk) for n in range(episodes)},
    )


if __name__ == "__main__":
    main()
