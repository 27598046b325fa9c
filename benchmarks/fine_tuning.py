"""What a nano policy profits from in fine-tuning: ``python benchmarks/fine_tuning.py RECIPE --out FOLDER``.

The recipe's demonstrations, fine-tuned with and without the robot's state and with and without chunks (same
demonstrations, optimizer steps and seeds), each policy evaluated greedily on the same initial states, none of them a
demonstration's. Every stage is a verb's folder, so the study can be interrupted and goes on; every block of
``--states`` is an evaluation, and blocks that were measured count. Prints one JSON object with successes, intervals and
the paired comparisons (exact McNemar) of the first arm with every other.
"""

import argparse
import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from measured_on import commit, processor

from grape.collect import run_collect
from grape.core.files import read_json, write_json
from grape.core.settings import load_settings
from grape.evaluation import EvaluateSettings, run_evaluate
from grape.evaluation.statistics import mcnemar_exact, tango_interval, wilson_interval
from grape.loop.settings import RECIPES, LoopSettings
from grape.training import run_sft

ARMS: dict[str, dict[str, Any]] = {
    "with": {"proprio": True},
    "without": {"proprio": False},
    "chunks-with": {"proprio": True, "chunk": 8},
    "chunks-without": {"proprio": False, "chunk": 8},
    "single-with": {"proprio": True, "chunk": 0},
    "single-without": {"proprio": False, "chunk": 0},
}
"""Settings of the fine-tunings; ``with`` and ``without`` keep the recipe's chunk."""


def _figures(outcomes: dict[tuple[int, str, int], bool]) -> dict[str, Any]:
    """Successes over all episodes, and by task and seed."""
    return {
        **_rate(outcomes.values()),
        "tasks": {
            task: _rate(v for k, v in outcomes.items() if k[1] == task) for task in sorted({k[1] for k in outcomes})
        },
        "seeds": {
            seed: _rate(v for k, v in outcomes.items() if k[0] == seed) for seed in sorted({k[0] for k in outcomes})
        },
    }


def _rate(successes: Iterable[bool]) -> dict[str, Any]:
    values = list(successes)
    interval = wilson_interval(sum(values), len(values)) if values else None
    return {"episodes": len(values), "successes": sum(values), "interval": interval}


def paired(pairs: list[tuple[bool, bool]]) -> dict[str, Any]:
    """The first arm against another one, episode by episode."""
    only_first, only_other = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    return {
        "pairs": len(pairs),
        "only_first": only_first,
        "only_other": only_other,
        "difference": (only_first - only_other) / len(pairs) if pairs else None,
        "interval": tango_interval(only_other, only_first, len(pairs)) if pairs else None,
        "p_value": mcnemar_exact(only_first, only_other) if pairs else None,
    }


def _chosen(options: argparse.Namespace) -> list[str]:
    """The arguments that decide the figures."""
    chosen = [options.recipe, "--arms", *options.arms, "--seeds", *map(str, options.seeds), "--states", *options.states]
    for flag in ("demonstrations", "updates", "batch-size"):
        value = getattr(options, flag.replace("-", "_"))
        chosen += [] if value is None else [f"--{flag}", str(value)]
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", help="libero-nano, metaworld-nano, simpler-nano")
    parser.add_argument("--states", nargs="+", required=True, help="blocks of initial states, e.g. 24-26 40-45")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the fine-tunings")
    parser.add_argument("--arms", nargs="+", default=["with", "without"], choices=list(ARMS))
    parser.add_argument("--demonstrations", help="their initial states, e.g. 0-5, instead of the recipe's")
    parser.add_argument("--updates", type=int, help="of a fine-tuning, instead of the recipe's")
    parser.add_argument("--batch-size", type=int, help="of a fine-tuning, instead of the recipe's")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only-finished", action="store_true", help="summarize what is there; start nothing")
    parser.add_argument("--commit", default=commit(), help="commit that the policies were trained with")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    recipe = load_settings(LoopSettings, RECIPES / f"{options.recipe}.yaml", LoopSettings(out=options.out))
    demonstrations = replace(
        recipe.demonstrations,
        out=options.out / "demonstrations",
        suite=recipe.suite,
        tasks=recipe.tasks,
        policy="expert",
        workers=options.workers,
        seed=0,
        initial_states=options.demonstrations or recipe.demonstrations.initial_states,
    )
    run_collect(demonstrations)
    size = {"max_updates": options.updates, "batch_size": options.batch_size}
    changes = {name: value for name, value in size.items() if value is not None}
    outcomes: dict[str, dict[tuple[int, str, int], bool]] = {arm: {} for arm in options.arms}
    losses: dict[str, list[float]] = {arm: [] for arm in options.arms}
    for seed in options.seeds:
        for arm in options.arms:
            data = (demonstrations.out / "store",)
            out = options.out / f"sft-{arm}-{seed}"
            sft = replace(recipe.sft, data=data, out=out, seed=seed, **changes, **ARMS[arm])
            if options.only_finished and not (sft.out / "done.json").exists():
                continue
            trained = run_sft(sft)
            losses[arm].append(trained["loss"])
            for block in options.states:
                evaluation = EvaluateSettings(
                    policy=trained["policy"],
                    out=options.out / f"evaluation-{arm}-{seed}-{block}",
                    suite=recipe.suite,
                    tasks=recipe.tasks,
                    initial_states=block,
                    max_steps=recipe.collect.max_steps,
                    lanes=recipe.collect.lanes,
                    timeout=recipe.collect.timeout,
                    workers=options.workers,
                )
                if options.only_finished and not (evaluation.out / "done.json").exists():
                    continue
                run_evaluate(evaluation)
                for row in read_json(evaluation.out / "results.json")["per_episode"]:
                    outcomes[arm][seed, row["task"], row["initial_state"]] = row["success"]
    first, *others = options.arms
    shared = sorted(set.intersection(*(set(rows) for rows in outcomes.values())))  # or it is no comparison
    record: dict[str, Any] = {
        "command": f"python {shlex.join(['benchmarks/fine_tuning.py', *_chosen(options)])}",
        "commit": options.commit,
        "processor": processor(),
        "suite": recipe.suite,
        "tasks": recipe.tasks,
        "demonstrations": read_json(demonstrations.out / "done.json")["episodes"],
        "loss": losses,
        "arms": {arm: _figures({key: rows[key] for key in shared}) for arm, rows in outcomes.items()},
        "paired": {
            f"{first} against {arm}": paired([(outcomes[first][key], outcomes[arm][key]) for key in shared])
            for arm in others
        },
    }
    write_json(options.out / "record.json", record)
    print((options.out / "record.json").read_text())


if __name__ == "__main__":
    main()
