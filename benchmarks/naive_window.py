"""Processor time per preference pair: a rendering of the first public training loop beside the exact one-pass step.

Same network, same frames, same adapters, float32, one thread. Each measurement is a process of its own; the two sides
take turns. Processor time (user and system) of the measured part is what counts: waiting for other programs does not.

    python benchmarks/naive_window.py                                       # 40 minutes on an idle core
    python benchmarks/naive_window.py --shapes tiny --steps 9 --repetitions 1   # a try: 1 minute

What each side does stands in the output (`sides`) and, for the loop, in window_loop.py.
"""

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from one_pass_step import LEARNING_RATE, PairStep
from training_shapes import LORA_RANK, SHAPES, make_pair, make_policy
from window_loop import train_pair_by_windows, window_starts

SIDES = {
    "naive": (
        "every window of 8 steps at stride 1: per pair of frames 4 forward passes of batch 1 (policy and a second "
        "model as reference without graph, chosen and rejected), logits and log-softmax over 32064 ids at every "
        "position, backward pass over the graph of all 8 pairs, AdamW step per window"
    ),
    "ours": (
        "whole trajectories: every frame once, in micro-batches with a backward pass each (exact one-pass gradient), "
        "recorded log-probabilities as reference, frozen towers without graph, logits at the 7 action positions, "
        "one AdamW step per pair; towers are computed in every repetition, as in the first epoch"
    ),
    "ours, later epochs": "the same with the frozen towers' features kept from before",
    "both": f"LoRA rank {LORA_RANK} on the language model's linear layers and the projector, float32, one thread",
}
BETA = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["23m", "71m"], choices=list(SHAPES))
    parser.add_argument("--steps", type=int, default=16, help="steps of each trajectory")
    parser.add_argument("--long", type=int, default=48, help="steps of the trajectories that only ours trains")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--one", nargs=3, metavar=("SIDE", "SHAPE", "STEPS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        side, shape, steps = options.one
        print(json.dumps(measure(side, shape, int(steps), options.micro_batch)))
    else:
        print(json.dumps(compare(options), indent=1))


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """All measurements, the two sides in turns, and what follows from them."""
    runs: list[dict[str, Any]] = []
    for shape in options.shapes:
        for _ in range(options.repetitions):
            for side in ("naive", "ours", "ours-later"):
                runs.append(in_process(side, shape, options.steps, options.micro_batch))
            runs.append(in_process("ours", shape, options.long, options.micro_batch))
    result: dict[str, Any] = {}
    for shape in options.shapes:

        def median(field: str, side: str, steps: int, shape: str = shape) -> float:
            return statistics.median(
                run[field] for run in runs if (run["side"], run["shape"], run["steps"]) == (side, shape, steps)
            )

        naive, ours = (median("cpu_seconds", side, options.steps) for side in ("naive", "ours"))
        result |= {
            f"ratio_{shape}_t{options.steps}": naive / ours,
            f"ratio_{shape}_t{options.steps}_later_epochs": naive / median("cpu_seconds", "ours-later", options.steps),
            f"naive_seconds_{shape}_t{options.steps}": naive,
            f"ours_seconds_{shape}_t{options.steps}": ours,
            f"ours_seconds_{shape}_t{options.long}": median("cpu_seconds", "ours", options.long),
            f"peak_memory_gb_{shape}_t{options.steps}": median("peak_bytes", "ours", options.steps) / 1e9,
            f"peak_memory_gb_{shape}_t{options.long}": median("peak_bytes", "ours", options.long) / 1e9,
        }
        result[f"peak_memory_{shape}_t{options.long}_over_t{options.steps}"] = median(
            "peak_bytes", "ours", options.long
        ) / median("peak_bytes", "ours", options.steps)
    ratios = [value for name, value in result.items() if name.startswith("peak_memory") and "_over_" in name]
    return {
        **{name: round(value, 4) for name, value in result.items()},
        f"peak_memory_t{options.long}_over_t{options.steps}": round(max(ratios), 4),
        "sides": SIDES,
        "not_measured": f"naive at T = {options.long}: {len(window_starts(options.long))} windows instead of "
        f"{len(window_starts(options.steps))}",
        "runs": runs,
    }


def in_process(side: str, shape: str, steps: int, micro_batch: int) -> dict[str, Any]:
    """One measurement in a fresh process with one thread."""
    print(f"{side} {shape} T={steps}", file=sys.stderr, flush=True)
    measurement: dict[str, Any] = json.loads(
        subprocess.run(
            [sys.executable, __file__, "--one", side, shape, str(steps), "--micro-batch", str(micro_batch)],
            check=True,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            text=True,
        ).stdout
    )
    return measurement


def measure(side: str, shape: str, steps: int, micro_batch: int) -> dict[str, Any]:
    """Processor time of one pair in this process, and the process's peak memory.

    Both sides warm up first: the loop with one window, ours with one step (of the shortest trajectories possible, so
    that memory is that of the measured step).
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy = make_policy(shape)
    pair = make_pair(policy, steps)
    if side == "naive":
        reference = make_policy(shape, adapters=False)
        naive(policy, reference, make_pair(policy, 8))
        began = _usage()
        losses = naive(policy, reference, pair)
    else:
        PairStep(policy, make_pair(policy, micro_batch), BETA, micro_batch).take()
        step = PairStep(policy, pair, BETA, micro_batch, keep_features=side == "ours-later")
        if side == "ours-later":
            step.take()
        gc.collect()
        began = _usage()
        losses = [step.take()]
    user, system = (after - before for after, before in zip(_usage(), began, strict=True))
    return {
        "side": side,
        "shape": shape,
        "parameters": sum(p.numel() for p in policy.model.parameters() if not p.requires_grad),
        "trainable_parameters": sum(p.numel() for p in policy.model.parameters() if p.requires_grad),
        "steps": steps,
        **({} if side == "naive" else {"micro_batch": micro_batch}),
        "cpu_seconds": round(user + system, 3),
        "user_seconds": round(user, 3),
        "system_seconds": round(system, 3),
        "peak_bytes": _peak_memory(),
        "mean_loss": sum(losses) / len(losses),
    }


def naive(policy: Any, reference: Any, pair: Any) -> list[float]:
    """The loop over one pair, with its optimizer; returns the windows' losses."""
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    losses: list[float] = []

    def after_backward(start: int, loss: float) -> None:
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)

    train_pair_by_windows(policy, reference, pair, BETA, after_backward)
    return losses


def _usage() -> tuple[float, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime


def _peak_memory() -> int:
    """Bytes: the peak of this process's resident memory, ``VmHWM``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


if __name__ == "__main__":
    main()
