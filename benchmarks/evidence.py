"""Does trajectory-wise preference optimization help? Five seeds, five ways of using the same rollouts.

For each seed, demonstrations and supervised fine-tuning give one starting policy. From it every arm runs the same loop
(same initial states, same number of rollouts, same gate) and uses the rollouts in its own way:

    tpo            the recipe of `grape demo`: pairs ranked by GCPG, trajectory-wise preference optimization
    filtered_bc    filtered behavior cloning (filtered BC): the successes among the best four of every initial
                   state, also where all succeeded
    random_pairs   the same training as tpo on random pairs
    success_pairs  the same training on random success-against-failure pairs (no R_self, no R_ext); there are fewer,
                   since a state gives no more of them than it has successes or failures
    step_dpo       step-wise DPO on tpo's pairs

How many pairs and updates that came to is in the result.

The success rates are greedy, on test states that neither training nor the gate ever saw. Resumable: every arm is a
`grape loop` in a folder of its own; the first collection of a seed is the same for all arms and is shared.

    python -m benchmarks.evidence --work runs/evidence --out docs/results/metaworld-nano.json
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.seed_study import seed_study
from grape.core.files import read_json, write_json
from grape.core.runs import open_run
from grape.core.settings import read_yaml, save_settings, settings_from_dict
from grape.evaluation import EvaluationResults, pair_results, read_results
from grape.loop import LoopSettings

RECIPE = Path("src/grape/loop/recipes/metaworld-nano.yaml")
SIMULATOR_STEPS_A_DECISION = 8
# What each arm changes in the recipe.
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "tpo": {},
    "filtered_bc": {"train": {"method": "filtered-bc"}},
    "random_pairs": {"pair": {"mode": "random"}},
    "success_pairs": {"pair": {"mode": "success-only"}},
    "step_dpo": {"train": {"method": "step-dpo"}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/metaworld-nano.json"))
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="loops at a time, one core each")
    options = parser.parse_args()
    with ThreadPoolExecutor(options.jobs) as pool:
        first = {seed: pool.submit(run_arm, options, seed, "tpo") for seed in options.seeds}
        others = [(seed, arm) for arm in options.arms if arm != "tpo" for seed in options.seeds]
        list(pool.map(lambda job: run_arm(options, *job, after=first[job[0]]), others))
    result = gather(options)
    write_json(options.out, result)
    print(json.dumps(result, indent=1))


def run_arm(options: argparse.Namespace, seed: int, arm: str, after: Future[None] | None = None) -> None:
    """One loop in a process of its own; its output goes to a file beside its folder.

    An arm waits for the job ``after``, whose first policy and first collection it shares.
    """
    if after is not None:
        after.result()
    base = options.work / f"seed-{seed}" / "tpo"
    folder = options.work / f"seed-{seed}" / arm
    if (folder / "done.json").exists():
        return
    settings = settings_of(options, seed, arm, folder)
    config = folder.with_suffix(".yaml")
    save_settings(config, settings)
    if arm != "tpo":
        open_run(folder, "loop", settings)
        share(base, folder)
    began = time.perf_counter()
    with folder.with_suffix(".log").open("a") as output:
        command = [sys.executable, "-m", "grape", "loop", "--config", str(config)]
        subprocess.run(command, stdout=output, stderr=output, check=True)
    print(f"seed {seed}, {arm}: {time.perf_counter() - began:.0f} s", flush=True)


def settings_of(options: argparse.Namespace, seed: int, arm: str, folder: Path) -> LoopSettings:
    """The recipe with what the arm changes; one worker, because loops run side by side."""
    data = read_yaml(options.recipe) | {"out": str(folder), "seed": seed, "compare_cloning": False}
    for group, changes in ARMS[arm].items():
        data[group] = data.get(group, {}) | changes
    for group in ("demonstrations", "collect"):
        data[group] = data.get(group, {}) | {"workers": 1}
    if arm != "tpo":
        data |= {"policy": str(options.work / f"seed-{seed}" / "tpo" / "sft" / "policy"), "report": False}
    return settings_from_dict(LoopSettings, data, LoopSettings(out=folder))


def share(base: Path, folder: Path) -> None:
    """Give an arm what is the same for all arms of a seed: first collection, evaluations of the first policy."""
    for source, target in (
        ("iteration-1/collect", "iteration-1/collect"),
        ("evaluate/sft", "evaluate/sft"),
        ("test/sft", "test/starting-policy"),
    ):
        if not (folder / target).exists():
            temporary = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(base / source, temporary, copy_function=os.link)
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            temporary.rename(folder / target)


def gather(options: argparse.Namespace) -> dict[str, Any]:
    """Success rates a seed and arm, the paired tests, and what it all cost."""
    root: Path = options.work
    outcomes: dict[str, list[Any]] = {"sft": []}
    sampled: dict[str, list[list[float]]] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    episodes = decisions = 0
    seen: set[int] = set()
    for seed in options.seeds:
        outcomes["sft"].append(read_results(root / f"seed-{seed}" / "tpo" / "test" / "sft"))
        for arm in options.arms:
            folder = root / f"seed-{seed}" / arm
            loop = read_json(folder / "loop.json")
            outcomes.setdefault(arm, []).append(read_results(folder / loop["test"]["after"]))
            trained = [read_json(path) for path in sorted(folder.glob("iteration-*/train/done.json"))]
            rows.setdefault(arm, []).append(
                {
                    "validation": [
                        {name: entry[name] for name in ("label", "success_rate", "interval", "accepted", "verdict")}
                        for entry in loop["policies"]
                    ],
                    "test": loop["comparison"]["headline"],
                    "pairs": [done["pairs"] for done in trained],
                    "updates": [done["updates"] for done in trained],
                }
            )
            collected = sorted(folder.glob("iteration-*/collect/done.json"))
            sampled.setdefault(arm, []).append([read_json(path)["success_rate"] for path in collected])
            for path in sorted(folder.glob("**/done.json")):
                if not (path.parent / "store").exists() or (inode := path.stat().st_ino) in seen:
                    continue  # no collection, or one that an arm shares by hard links: simulated once
                seen.add(inode)
                done = read_json(path)
                if done["episodes"]:
                    episodes += done["episodes"]
                    decisions += round(done["episodes"] * done["mean_steps"])
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        **{arm: [results.success_rate for results in runs] for arm, runs in outcomes.items()},
        "p_value": compare(options.seeds, outcomes["sft"], outcomes["tpo"])["p_states"],
        "against_sft": {
            arm: compare(options.seeds, outcomes["sft"], runs) for arm, runs in outcomes.items() if arm != "sft"
        },
        "tpo_against": {
            arm: compare(options.seeds, runs, outcomes["tpo"]) for arm, runs in outcomes.items() if arm != "tpo"
        },
        "sampled_success_of_collections": sampled,
        "loops": rows,
        "seeds": options.seeds,
        "test_episodes_a_seed": outcomes["sft"][0].episodes,
        "episodes": episodes,
        "env_steps": decisions * SIMULATOR_STEPS_A_DECISION,
        "commit": commit,
    }


def compare(seeds: list[int], a: list[EvaluationResults], b: list[EvaluationResults]) -> dict[str, Any]:
    """B against A: over the initial states (the headline) and over the seeds."""
    study = seed_study({seed: pair_results(x, y).pairs for seed, x, y in zip(seeds, a, b, strict=True)})
    return asdict(study)


if __name__ == "__main__":
    main()
