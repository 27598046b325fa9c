"""What the rows are where a chunk's actions come out: zeros as published, learned vectors, or one row a step.

Trains nano policies that decide in chunks on the same demonstrations, the same updates and seed, and prints CPU time
and the loss on episodes kept out:

    grape collect --suite toy_fine_wrist --policy expert --initial-states 0-63 --out demos
    python benchmarks/placeholders.py demos/store --chunk 8 --updates 400

``one-a-step`` reads all dimensions of an action from one row through an output matrix of its own (``D`` times as
many columns); it is no OpenVLA-OFT and stands here alone.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from grape.core.events import SILENT
from grape.policies.openvla.model import PolicyInputs
from grape.policies.openvla_oft.conventions import Layout
from grape.policies.openvla_oft.model import OpenVLAOFT
from grape.policies.openvla_oft.nano import create_nano_oft
from grape.policies.openvla_oft.policy import OFTPolicy
from grape.policies.presets import NANO
from grape.policies.statistics import compute_norm_stats
from grape.store import EpisodeStore
from grape.training.dataset import StepDataset, load_steps

NOISE, BATCH, WIDTH = 0.05, 32, 0.5


class OneAStep(OpenVLAOFT):
    """One learned row an action, from which all its dimensions are read."""

    rows: nn.Parameter
    head: nn.Linear

    def chunk_logits(self, inputs: PolicyInputs) -> Tensor:
        prefix = self.embed_prompts(inputs)
        batch, length, _ = prefix.embeds_BSH.shape
        whole = prefix.extend(self.rows.expand(batch, -1, -1))
        hidden_BSH = self.language_model.model(
            inputs_embeds=whole.embeds_BSH,
            attention_mask=whole.mask(self.attention, causal=False),
            position_ids=whole.positions(),
            use_cache=False,
        ).last_hidden_state
        return cast(Tensor, self.head(hidden_BSH[:, length:]).reshape(batch, self.layout.tokens, len(self.support)))


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
        placeholders="learned" if arm == "learned" else "zeros",
    )
    policy = create_nano_oft(
        seed=seed,
        norm_stats={"data": compute_norm_stats(steps.labels_TD, names, proprio=steps.proprio_NP)},
        gripper="",
        layout=layout,
        instructions=sorted(set(steps.instructions)),
        shape=replace(NANO, layers=layers),
    )
    model, generator = policy.model, torch.Generator().manual_seed(seed)
    hidden = policy.config.hidden
    if arm == "one-a-step":
        model.__class__ = OneAStep
        model.rows = nn.Parameter(torch.empty(chunk, hidden).normal_(0.0, 0.02, generator=generator))
        model.head = nn.Linear(hidden, dim * len(model.support), bias=False)
        model.head.weight.data.normal_(0.0, hidden**-0.5, generator=generator)
    return policy


def losses(policy: OFTPolicy, steps: StepDataset, rows: np.ndarray, noise: np.ndarray | None = None) -> Tensor:
    observations = steps.observations(rows)
    if noise is not None:
        observations = [
            replace(seen, proprio=(seen.proprio + more).astype(np.float32))
            for seen, more in zip(observations, noise, strict=True)
        ]
    inputs = policy.encode(observations)
    return policy.imitation_losses(inputs, steps.labels_NKD[rows], steps.inside_NK[rows], WIDTH)[0]


def train(arm: str, steps: StepDataset, options: argparse.Namespace) -> dict[str, float | str]:
    """Loss on the last fifth of the episodes, and CPU time."""
    policy = make(arm, steps, options.chunk, options.seed, options.layers)
    spans = list(steps.spans.values())
    held_out = np.arange(spans[len(spans) * 4 // 5][0], len(steps))
    rng = np.random.default_rng(options.seed)
    assert steps.proprio_NP is not None
    deviation = NOISE * steps.proprio_NP.std(axis=0)
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
    parser.add_argument("--arms", nargs="+", default=["zeros", "learned", "one-a-step"])
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
