"""How often LIBERO's scripted experts succeed: ``python benchmarks/libero_experts.py --out runs/libero-experts``.

Plays clean experts without images and writes one line an episode, so that it can be interrupted and goes on; at the
end ``summary.json`` holds the figures of all tasks that were asked for. The experts were developed on initial states
0-9; 10-49 tell how good they are. About 2 s of one core an episode, and 10 s for each task.
"""

import argparse
import json
from pathlib import Path

from grape.core.files import write_json
from grape.core.selections import format_numbers, parse_numbers
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
    suites = [LiberoSuite(name, images=False) for name in chosen.suites.split(",")]
    summary = {
        "initial_states": format_numbers(states),
        "operator": chosen.operator,
        "versions": dict(suites[0].versions()),
        "suites": {},
    }
    for suite in suites:
        tasks = [task for task in select_tasks(suite, chosen.tasks) if task.name not in UNSOLVED]
        rows = [measure(suite, task, states, chosen.operator, chosen.out) for task in tasks]
        total = rate(sum(row["successes"] for row in rows), sum(row["episodes"] for row in rows))
        summary["suites"][suite.name] = total | {"tasks": rows}
    write_json(chosen.out / "summary.json", summary)


def measure(suite, task, states, operator, folder: Path) -> dict:
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
    solved = [row["steps"] for row in rows if row["success"]]
    result = {"index": task.index, "instruction": task.instruction} | rate(len(solved), len(rows))
    result["mean_decisions"] = round(sum(solved) / len(solved), 1) if solved else None
    result["failed"] = [row["initial_state"] for row in rows if not row["success"]]
    low, high = (100 * bound for bound in result["interval"])
    print(
        f"| {suite.name}/{task.index} | {task.instruction} | {len(solved)}/{len(rows)} | {low:.0f}-{high:.0f} | "
        f"{result['mean_decisions']} | failed: {result['failed'] or 'none'}",
        flush=True,
    )
    return result


def rate(successes: int, episodes: int) -> dict:
    interval = [round(bound, 4) for bound in wilson_interval(successes, episodes)]
    return {"successes": successes, "episodes": episodes, "interval": interval}


if __name__ == "__main__":
    main()
