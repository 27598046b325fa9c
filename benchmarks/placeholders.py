"""What the rows are where a chunk's actions come out: one of zeros a token as published, or a learned one an action.

Trains nano policies that decide in chunks on the same demonstrations, the same updates and seed, and prints CPU time
and the loss on episodes kept out:

    grape collect --suite toy_fine_wrist --policy expert --initial-states 0-63 --out demos
    python benchmarks/placeholders.py demos/store --chunk 8 --updates 400
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from grape.core.events import SILENT
from grape.policies.openvla_oft.conventions import Layout
from grape.policies.openvla_oft.nano import create_nano_oft
from grape.policies.openvla_oft.policy import OFTPolicy
from grape.policies.presets import NANO
from grape.policies.statistics import compute_norm_stats
from grape.store import EpisodeStore
from grape.training.dataset import StepDataset, load_steps

NOISE, BATCH, WIDTH = 0.05, 32, 0.5


def make(arm: str, steps: StepDataset, chunk: int, seed: int, layers: int) -> OFTPolicy:
    """A policy with random weights whose placeholders are those of an arm."""
    dim = steps.labels_TD.shape[1]
    names = [*map(str, range(dim - 1)), "gripper"]
    assert steps.proprio_NP is not None
    layout = Layout(
        chunk=chunk,
        action_dim=dim,
        cameras=("agentview", *steps.cameras),
        proprio_dim=steps.proprio_NP.shape[1],
        placeholders=arm,
    )
    return create_nano_oft(
        seed=seed,
        norm_stats={"data": compute_norm_stats(steps.labels_TD[:], names, proprio=steps.proprio_NP[:])},
        gripper="",
        layout=layout,
        instructions=sorted(set(steps.instructions)),
        shape=replace(NANO, layers=layers),
    )


def losses(policy: OFTPolicy, steps: StepDataset, rows: np.ndarray, noise: np.ndarray | None = None) -> Tensor:
    observations = steps.observations(rows)
    if noise is not None:
        observations = [
            replace(seen, proprio=(seen.proprio + more).astype(np.float32))
            for seen, more in zip(observations, noise, strict=True)
        ]
    inputs = policy.encode(observations)
    return policy.imitation_losses(inputs, *steps.chunk_labels(rows), WIDTH)[0]


def train(arm: str, steps: StepDataset, options: argparse.Namespace) -> dict[str, float | str]:
    """Loss on the last fifth of the episodes, and CPU time."""
    policy = make(arm, steps, options.chunk, options.seed, options.layers)
    spans = list(steps.spans.values())
    held_out = np.arange(spans[len(spans) * 4 // 5][0], len(steps))
    rng = np.random.default_rng(options.seed)
    assert steps.proprio_NP is not None
    deviation = NOISE * steps.proprio_NP[:].std(axis=0)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=options.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, options.updates, pct_start=0.05)
    curve, spent = [], 0.0
    for update in range(options.updates):
        rows = rng.integers(0, held_out[0], BATCH)
        noise = rng.normal(size=(BATCH, len(deviation))) * deviation
        began = time.process_time()
        loss = losses(policy, steps, rows, noise).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        spent += time.process_time() - began
        curve.append(float(loss.detach()))
        if options.verbose and update % 50 == 49:
            print(arm, update + 1, round(float(np.mean(curve[-50:])), 3), flush=True)
    with torch.no_grad():
        measured = [losses(policy, steps, rows) for rows in np.array_split(held_out, -(-len(held_out) // 64))]
        first = steps.observations(held_out[:1])
        began = time.process_time()
        for _ in range(20):
            inputs = policy.encode(first)
            policy.model.chunk_logits(inputs)
        decision = (time.process_time() - began) / 20
    return {
        "arm": arm,
        "parameters": sum(p.numel() for p in policy.model.parameters()),
        "update_ms": round(1000 * spent / options.updates, 1),
        "decision_ms": round(1000 * decision, 2),
        "train_loss": round(float(np.mean(curve[-50:])), 4),
        "held_out_loss": round(float(torch.cat(measured).mean()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--arms", nargs="+", default=["zeros", "per-action"])
    parser.add_argument("--cameras", nargs="*", default=[], help="further cameras")
    parser.add_argument("--chunk", type=int, default=8)
    parser.add_argument("--layers", type=int, default=NANO.layers)
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = EpisodeStore.open(options.store)
    steps = load_steps([store], [store.ids()], SILENT, proprio=True, cameras=options.cameras, chunk=options.chunk)
    for arm in options.arms:
        print(json.dumps(train(arm, steps, options)), flush=True)


if __name__ == "__main__":
    main()
