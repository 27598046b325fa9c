"""Peak resident memory of one update, measured in a process that did nothing before.

Called as ``python -m tests.training.peak_memory MODE``; prints a JSON list: bytes above the level before the update for
trajectories of 16 and of 48 steps by the gradient of that mode, and of 48 steps by autograd over the full graph.
"""

import itertools
import json
import sys
from pathlib import Path

import torch

from grape.training.losses import LossSettings, preference_loss
from tests.training.standin import TOKENS, TinyActionModel, random_update
from tests.training.test_gradients import MODES, full_graph

ANCHORED = LossSettings(beta=0.02, nll_weight=10.0, tokens_per_step=TOKENS)


def peak_growth(mode, steps, width=10240, micro_batch=4):
    """Peak resident memory above the level before the update, in bytes."""
    torch.manual_seed(0)
    model = TinyActionModel(32)
    wide = torch.nn.Linear(32, width)
    model.head = torch.nn.Sequential(wide, torch.nn.Tanh(), torch.nn.Linear(width, 16))
    pixels, tokens, comparisons = random_update([(steps, steps)] * 2)
    logps = lambda index: model.action_logps(pixels[index], tokens[index]).sum(1)  # noqa: E731
    loss = lambda sums: preference_loss(sums, ANCHORED)  # noqa: E731
    status = Path("/proc/self/status")
    for _ in itertools.repeat(None, 2):  # the first round warms the allocator up
        Path("/proc/self/clear_refs").write_text("5")
        before = read_kilobytes(status, "VmRSS")
        if mode == "full graph":
            full_graph(model, logps, comparisons, loss)
        else:
            MODES[mode](logps, comparisons, loss, micro_batch, list(model.parameters()))
        model.zero_grad(set_to_none=True)
    return (read_kilobytes(status, "VmHWM") - before) * 1024


def read_kilobytes(status, field):
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field))


if __name__ == "__main__":
    print(json.dumps([peak_growth(sys.argv[1], 16), peak_growth(sys.argv[1], 48), peak_growth("full graph", 48)]))
