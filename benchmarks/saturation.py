"""Do long failures saturate the preference loss? ``python benchmarks/saturation.py --run RUN``.

RUN is a folder that ``grape demo`` or ``grape loop`` finished one iteration of: the benchmark takes its first policy,
and the rollouts and scores of its first iteration. It pairs them best against worst, whole, with every ``--cut`` and
stage-wise, and trains each set for a few updates from the same policy with the published loss; whole pairs with length
normalization as well, and two sets with the anchor, which works against displacement. All pairs are in every update,
so each row of metrics speaks of all pairs, before that update:

* ``saturation``: mean of sigmoid(-d), the share of its full strength at which the loss still pulls; 0.5 at the start;
* ``margin``: mean of d, beta times the difference of the sides' log-ratios;
* ``displacement``: mean log-ratio of the chosen side, nats a token; below 0 the preferred actions became less likely.

After the last update the same decisions are measured for all arms, as changes in nats a token: of whole chosen sides,
of rejected sides before the point where ``--cut stage`` ends them (``rejected``), and from there on (``tail``). A loss
that saturates through the tail moves the tail and leaves ``rejected`` where it was. Minutes on two cores; finished arms
are kept.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from measured_on import commit, processor

from grape.core.events import SILENT
from grape.core.files import read_jsonl, write_json
from grape.core.preferences import PreferencePair
from grape.policies.openvla import load_policy
from grape.preferences import PairSettings, read_pairs, recorded_stores, run_pair
from grape.store import open_stores
from grape.training import TrainSettings, run_train
from grape.training.dataset import StepDataset, load_steps
from grape.training.logprobs import StepLogprobs

ARMS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "whole": ({}, {}),
    "whole, length-normalized": ({}, {"length_normalised": True}),
    "cut by stage": ({"cut": "stage"}, {}),
    "cut by distance": ({"cut": "distance"}, {}),
    "cut by length": ({"cut": "length"}, {}),
    "stage-wise": ({"stage_wise": True}, {}),
    "stage-wise, cut by length": ({"stage_wise": True, "cut": "length"}, {}),
    "whole, anchored": ({}, {"anchor": 1.0}),
    "cut by stage, anchored": ({"cut": "stage"}, {"anchor": 1.0}),
}
"""How pairs are made, and how they are trained on, beyond what all arms share."""

METRICS = {"loss": "loss", "saturation": "saturation", "margin": "rewards/margins", "displacement": "displacement"}
MICRO_BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="finished folder of grape demo or grape loop")
    parser.add_argument("--work", type=Path, default=Path("runs/saturation"), help="folder for pairs and policies")
    parser.add_argument("--pairs", type=int, default=48, help="pairs of whole episodes; stage-wise ones are as many")
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--record", type=Path, default=Path("docs/results/saturation.json"))
    options = parser.parse_args()
    iteration = options.run / "iteration-1"
    shared = {"lr": options.lr, "beta": options.beta}
    arms = measure(
        iteration / "score", options.run / "sft" / "policy", options.work, options.pairs, options.updates, shared
    )
    record = {
        "command": f"python benchmarks/saturation.py --run RUN --pairs {options.pairs} --updates {options.updates} "
        f"--lr {options.lr:g} --beta {options.beta:g}",
        "commit": commit(),
        "processor": processor(),
        "episodes": len(open_stores(recorded_stores(iteration / "score", "score"))),
        "arms": arms,
    }
    write_json(options.record, record)
    print(table(arms))


def measure(
    scores: Path, policy: Path, work: Path, count: int, updates: int, shared: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Every arm: its pairs, a row of metrics an update, and what training changed on the same decisions.

    Args:
        scores: Folder of ``grape score``.
        policy: Checkpoint folder of the policy that collected the episodes.
        work: Folder for pairs and policies.
        count: Most pairs.
        updates: Updates an arm.
        shared: Settings of training that all arms share.
    """
    folders = {name: work / name.replace(", ", "-").replace(" ", "-") for name in ARMS}
    for name, (pairing, _) in ARMS.items():
        run_pair(PairSettings(scores=scores, out=folders[name] / "pairs", max_pairs=count, **pairing))
    whole, cut = (read_pairs(folders[name] / "pairs") for name in ("whole", "cut by stage"))
    store = open_stores(recorded_stores(folders["whole"] / "pairs"))
    steps = load_steps([store], [sorted({side for pair in whole for side in (pair.chosen, pair.rejected)})], SILENT)
    arms = {}
    for name, (_, training) in ARMS.items():
        pairs = read_pairs(folders[name] / "pairs")
        run_train(
            TrainSettings(
                pairs=folders[name] / "pairs",
                policy=policy,
                out=folders[name] / "train",
                epochs=updates,
                pairs_per_update=len(pairs),
                **{"anchor": 0.0, **shared, **training},
            )
        )
        rows = read_jsonl(folders[name] / "train" / "metrics.jsonl")
        arms[name] = {
            "pairs": len(pairs),
            "decisions": decisions(pairs, steps),
            "updates": [{ours: row[theirs] for ours, theirs in METRICS.items()} for row in rows],
            "trained": changes(whole, cut, steps, folders[name] / "train" / "policy"),
        }
    return arms


def decisions(pairs: Sequence[PreferencePair], steps: StepDataset) -> dict[str, float]:
    """Mean number of compared decisions of both sides."""
    ranges = {
        "chosen": [pair.chosen_steps or spanned(steps, pair.chosen) for pair in pairs],
        "rejected": [pair.rejected_steps or spanned(steps, pair.rejected) for pair in pairs],
    }
    return {side: float(np.mean([stop - start for start, stop in spans])) for side, spans in ranges.items()}


def spanned(steps: StepDataset, episode: str) -> tuple[int, int]:
    """All decisions of an episode."""
    start, stop = steps.spans[episode]
    return 0, stop - start


def changes(
    whole: Sequence[PreferencePair], cut: Sequence[PreferencePair], steps: StepDataset, policy: Path
) -> dict[str, float | None]:
    """Mean change of log-probabilities under training, nats a token, each pair counting equally.

    Args:
        whole: Pairs of whole episodes.
        cut: The same pairs, cut by stage.
        steps: The decisions, with what the policy that collected them recorded.
        policy: Checkpoint folder of the trained policy.
    """
    logps = StepLogprobs(load_policy(policy), steps, MICRO_BATCH)
    with torch.no_grad():
        parts = [logps(rows)[:, 0] for rows in torch.arange(len(steps)).split(MICRO_BATCH)]
    change_N: npt.NDArray[np.float64] = (torch.cat(parts).double().numpy() - steps.logps_NKD[:][:, 0]).mean(axis=1)
    means: dict[str, list[float]] = {"chosen": [], "rejected": [], "tail": []}
    for pair, shorter in zip(whole, cut, strict=True):
        start, stop = steps.spans[pair.rejected]
        end = start + shorter.rejected_steps[1] if shorter.rejected_steps else stop
        means["chosen"].append(float(change_N[slice(*steps.spans[pair.chosen])].mean()))
        means["rejected"].append(float(change_N[start:end].mean()))
        if end < stop:
            means["tail"].append(float(change_N[end:stop].mean()))
    return {name: float(np.mean(values)) if values else None for name, values in means.items()}


def table(arms: Mapping[str, Mapping[str, Any]]) -> str:
    """The record as a table in Markdown."""
    lines = [
        "| pairs | decisions, chosen/rejected | saturation by update | margin, last | displacement, last | chosen "
        "| rejected | tail |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, arm in arms.items():
        last, after = arm["updates"][-1], arm["trained"]
        cells = [
            name,
            f"{arm['decisions']['chosen']:.1f}/{arm['decisions']['rejected']:.1f}",
            ", ".join(f"{row['saturation']:.2f}" for row in arm["updates"]),
            f"{last['margin']:.2f}",
            f"{last['displacement']:+.3f}",
            *("–" if after[part] is None else f"{after[part]:+.3f}" for part in ("chosen", "rejected", "tail")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
