"""Trajectory-wise preference optimization (TPO, arXiv 2411.19309) in one file: loss, exact gradient, update.

    python examples/tpo_in_one_file.py PAIRS POLICY OUT

PAIRS is a folder of ``grape pair``, POLICY the checkpoint that collected the episodes. A test holds this equal to two
updates of ``grape train``. What the trainer has beside: checkpoints, several processes, adapters, windows and weights
of pairs, warm-up, the check of recorded log-probabilities, and memory for features of frozen towers.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

import grape
from grape.core.trajectories import Observation
from grape.preferences import read_pairs, recorded_stores
from grape.store import open_stores

BETA, ANCHOR, LR, EPOCHS, MAX_NORM = 0.1, 5.0, 3e-4, 2, 1.0
MICRO_BATCH = 8  # decisions that go through the network at once: memory does not grow with the trajectory


def decision_logps(policy, trajectory, rows):
    """Log-probability of what was executed in some decisions of a trajectory, float64 ``(B,)``, with graph."""
    starts, chunks = trajectory.decision_starts, trajectory.chunks
    observations = [
        Observation(
            trajectory.frames[row],
            trajectory.proprio[starts[row]],
            trajectory.meta.instruction,
            {name: images[row] for name, images in trajectory.cameras.items()},
        )
        for row in rows
    ]
    tokens = trajectory.action_tokens[:, None] if chunks is None else chunks.tokens
    executed = torch.ones(len(rows)) if chunks is None else torch.from_numpy(chunks.executed)[rows]
    tokens = torch.from_numpy(tokens)[rows].long()  # (B, K, D)
    return policy.decision_logps(policy.encode(observations), tokens, executed.long()).double().cpu()


def batches(trajectory):
    """The decisions of a trajectory, some at a time."""
    return torch.arange(trajectory.decisions).split(MICRO_BATCH)


def tpo_loss(sums, references, pairs, anchored):
    """Mean over pairs of ``-log sigmoid(beta h)``, ``h = (S_w - R_w) - (S_l - R_l)``, and the anchor.

    S and R are a trajectory's summed log-probabilities under the policy and under the reference, w the chosen and l the
    rejected side. The anchor imitates chosen sides that succeeded (RPO, arXiv 2404.19733), at the start ANCHOR times as
    hard as the preference pulls on them; ANCHOR = 0 is the published loss.
    """
    ratio = {name: sums[name] - references[name] for name in sums}
    losses = [-F.logsigmoid(BETA * (ratio[pair.chosen] - ratio[pair.rejected])) for pair in pairs]
    anchors = [-ANCHOR * BETA / 2 * sums[pair.chosen] for pair in pairs if pair.chosen in anchored]
    return (sum(losses) + sum(anchors)) / len(pairs)


def update(policy, optimizer, pairs, trajectories):
    """One optimizer step; returns the loss before it.

    The loss sees a trajectory only through its sum S, so its gradient is ``sum dL/dS grad S``: first the sums without a
    graph, then dL/dS, one number a trajectory, then the decisions again with it as their weight. That is exact.
    """
    names = sorted({name for pair in pairs for name in (pair.chosen, pair.rejected)})
    episodes = {name: trajectories[name] for name in names}
    with torch.no_grad():
        sums = {
            name: sum(decision_logps(policy, item, rows).sum() for rows in batches(item))
            for name, item in episodes.items()
        }
    for value in sums.values():
        value.requires_grad_()
    references = {name: item.logp for name, item in episodes.items()}  # recorded: the policy that collected them
    anchored = {name for name, item in episodes.items() if item.meta.success}
    loss = tpo_loss(sums, references, pairs, anchored)
    loss.backward()
    optimizer.zero_grad()
    for name, item in episodes.items():
        for rows in batches(item):
            (sums[name].grad * decision_logps(policy, item, rows).sum()).backward()
    torch.nn.utils.clip_grad_norm_(policy.module.parameters(), MAX_NORM)
    optimizer.step()
    return loss.item()


def main(pairs_folder, policy_folder, out):
    """Train on all pairs at once, EPOCHS times, and save the policy."""
    policy = grape.load_policy(policy_folder, trainable=True)
    pairs, store = read_pairs(pairs_folder), open_stores(recorded_stores(pairs_folder))
    trajectories = {name: store.read(name) for pair in pairs for name in (pair.chosen, pair.rejected)}
    optimizer = torch.optim.AdamW(policy.module.parameters(), lr=LR, weight_decay=0.0)
    losses = [update(policy, optimizer, pairs, trajectories) for _ in range(EPOCHS)]
    out.mkdir(parents=True)
    policy.save(out)
    return losses


if __name__ == "__main__":
    print(main(*map(Path, sys.argv[1:])))
