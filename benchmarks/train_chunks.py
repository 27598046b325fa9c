"""Processor time of an update of preference optimization with chunks of 8 actions, beside one action a decision.

    python benchmarks/train_chunks.py --out docs/results/train-chunks.json      # 3 minutes on an idle core

Both policies are nano ones of the same towers and language model, float32, one thread, and train all parameters on the
same control steps by the product's own step (exact gradient in two passes, image preprocessing, AdamW). With one action
a decision every control step has an image; with chunks every eighth has one. The two take turns.
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
from measured_on import commit, processor

from grape.core.chunks import PLAIN
from grape.core.files import write_json
from grape.core.seeds import derive_rng
from grape.policies.base import ImitationPolicy
from grape.policies.openvla import compute_norm_stats, create_nano
from grape.policies.openvla_oft.conventions import Layout
from grape.policies.openvla_oft.nano import create_nano_oft
from grape.training.batches import ComparisonItem, collate
from grape.training.dataset import StepDataset
from grape.training.gradients import two_pass_gradient
from grape.training.logprobs import StepLogprobs, recorded_reference
from grape.training.losses import LossSettings, preference_loss

INSTRUCTION = "put the bowl on the stove"
NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
SIDE, CHUNK = 64, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=80, help="control steps of each side")
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    before = os.getloadavg()
    updates = {f"chunk_{chunk}": Update(chunk, options) for chunk in (1, CHUNK)}
    for update in updates.values():
        update.run()  # warm
    seconds: dict[str, list[float]] = {name: [] for name in updates}
    for _ in range(options.repetitions):
        for name, update in updates.items():
            start = time.process_time()
            update.run()
            seconds[name].append(time.process_time() - start)
    plain, chunked = (statistics.median(seconds[name]) for name in updates)
    result = {
        "ratio_chunk_8": plain / chunked,
        "cpu_seconds_an_update": {name: statistics.median(values) for name, values in seconds.items()},
        "decisions_an_update": {name: len(update.steps) for name, update in updates.items()},
        "tokens_an_update": {name: int(update.steps.executed_N.sum()) * len(NAMES) for name, update in updates.items()},
        "pairs": options.pairs,
        "control_steps_a_side": options.steps,
        "runs": seconds,
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


class Update:
    """One update of a nano policy that decides on so many actions, repeated on the same pairs.

    Args:
        chunk: Actions a decision.
        options: Sizes.
    """

    def __init__(self, chunk: int, options: argparse.Namespace) -> None:
        self.policy = make_policy(chunk)
        self.steps = make_steps(self.policy, 2 * options.pairs, options.steps)
        spans = self.steps.step_spans
        self._items = [
            ComparisonItem(f"pair {n}", spans[f"{2 * n}"], spans[f"{2 * n + 1}"]) for n in range(options.pairs)
        ]
        self._logps = StepLogprobs(self.policy, self.steps, options.micro_batch)
        self._micro_batch = options.micro_batch
        self._parameters = list(self.policy.module.parameters())
        self._optimizer = torch.optim.AdamW(self._parameters, lr=1e-6)

    def run(self) -> None:
        """Take one step."""
        segments, comparisons = collate(self._items, recorded_reference(self.steps), self.steps.axis)
        two_pass_gradient(
            lambda positions: self._logps.sums(segments[positions]),
            comparisons,
            lambda sums: preference_loss(sums, LossSettings()),
            self._micro_batch,
            self._parameters,
        )
        self._optimizer.step()


def make_policy(chunk: int) -> ImitationPolicy:
    """A nano policy: OpenVLA's for one action, OpenVLA-OFT's for more."""
    statistics_of_actions = compute_norm_stats(derive_rng(0, "actions").uniform(-1, 1, (256, len(NAMES))), NAMES)
    facts: dict[str, Any] = {
        "seed": 0,
        "norm_stats": {"libero": statistics_of_actions},
        "gripper": "+1 closes",
        "instructions": (INSTRUCTION,),
    }
    if chunk == PLAIN[0]:
        return create_nano(**facts)
    return create_nano_oft(layout=Layout(chunk=chunk, action_dim=len(NAMES)), **facts)


def make_steps(policy: ImitationPolicy, episodes: int, length: int) -> StepDataset:
    """Episodes of random images and tokens whose chunks are executed whole."""
    rng, chunk = derive_rng(0, "steps"), policy.spec.chunk
    count = episodes * length // chunk
    ids = cast(Any, policy).action_token_ids
    labels = np.zeros((episodes * length, len(NAMES)), dtype=np.float32)
    return StepDataset(
        images_NHWC=cast(Any, rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)),
        instructions=(INSTRUCTION,) * count,
        tokens_NKD=torch.from_numpy(rng.choice(ids, (count, chunk, len(NAMES))).astype(np.int64)),
        logps_NKD=rng.uniform(-4.0, -3.0, (count, chunk, len(NAMES))).astype(np.float32),
        executed_N=np.full(count, chunk, dtype=np.int64),
        starts_N=np.tile(np.arange(0, length, chunk), episodes),
        labels_TD=labels,
        labels_NKD=labels[:count, None],
        inside_NK=np.ones((count, 1), dtype=np.bool_),
        spans={str(n): (n * length // chunk, (n + 1) * length // chunk) for n in range(episodes)},
    )


if __name__ == "__main__":
    main()
