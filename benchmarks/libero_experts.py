"""How often LIBERO's scripted experts succeed: ``python benchmarks/libero_experts.py --out runs/libero-experts``.

Plays clean experts without pictures and writes one line an episode, so that it can be interrupted and goes on. The
experts were developed on initial states 0-9; 10-49 tell how good they are. About 2 s of one core an episode, and 10 s
for each task.
"""

import argparse
import json
from pathlib import Path

from grape.core.selections import parse_numbers
from grape.envs.libero.experts.scripts import UNSOLVED
from grape.envs.libero.suite import LiberoSuite
from grape.envs.registry import select_tasks
from grape.evaluation.statistics import wilson_interval

SUITES = "libero_spatial,libero_object,libero_goal,libero_10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--suites", default=SUITES)
    parser.add_argument("--tasks", default="")
    parser.add_argument("--initial-states", default="10-49")
    parser.add_argument("--operator", default="clean")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    states = parse_numbers(chosen.initial_states, "initial states")
    for name in chosen.suites.split(","):
        for task in select_tasks(LiberoSuite(name, pictures=False), chosen.tasks):
            if task.name not in UNSOLVED:
                measure(LiberoSuite(name, pictures=False), task, states, chosen.operator, chosen.out)


def measure(suite, task, states, operator, folder: Path) -> None:
    path = folder / f"{suite.name}-{task.index}-{operator}.jsonl"
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    environment = suite.make_environment(task)
    with path.open("a", encoding="utf-8") as file:
        for state in states:
            if all(row["initial_state"] != state for row in done):
                expert = suite.make_expert(task, operator, state)
                snapshot, steps = environment.reset(state), 0
                while not snapshot.success and steps < task.max_steps:
                    snapshot = environment.step(expert.act(snapshot)[0])
                    steps += 1
                done.append({"initial_state": state, "success": bool(snapshot.success), "steps": steps})
                file.write(json.dumps(done[-1]) + "\n")
                file.flush()
    rows = [row for row in done if row["initial_state"] in states]
    successes = sum(row["success"] for row in rows)
    low, high = wilson_interval(successes, len(rows))
    solved = [row["steps"] for row in rows if row["success"]]
    mean = sum(solved) / len(solved) if solved else float("nan")
    failed = [row["initial_state"] for row in rows if not row["success"]]
    rate = f"{successes}/{len(rows)} | {100 * low:.0f}-{100 * high:.0f} | {mean:.0f}"
    print(f"| {suite.name}/{task.index} | {task.instruction} | {rate} |  failed: {failed or 'none'}", flush=True)


if __name__ == "__main__":
    main()
