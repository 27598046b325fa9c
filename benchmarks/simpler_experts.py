"""How often SimplerEnv's scripted experts succeed: ``python benchmarks/simpler_experts.py --out runs/simpler-experts``.

Plays clean experts of the four WidowX tasks without images, one line an episode, so that it can be interrupted and
goes on; at the end ``summary.json`` holds the figures. The experts were developed on every third initial state (0, 3,
..., 21); the other 16 tell how good they are. About 2 s of one core an episode. ``--suites`` plays the
variations, e.g. ``simpler_widowx_physical``.
"""

import argparse
from pathlib import Path

from libero_experts import measure, rate

from grape.core.files import write_json
from grape.core.selections import format_numbers, parse_numbers
from grape.envs.registry import select_tasks
from grape.envs.simpler.suite import WidowXSuite

DEVELOPMENT = tuple(range(0, 24, 3))
OTHERS = tuple(state for state in range(24) if state not in DEVELOPMENT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--suites", default="simpler_widowx")
    parser.add_argument("--tasks", default="")
    parser.add_argument("--initial-states", default=format_numbers(OTHERS))
    parser.add_argument("--operator", default="clean")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    states = parse_numbers(chosen.initial_states, "initial states")
    summary = {"initial_states": format_numbers(states), "operator": chosen.operator, "versions": {}, "suites": {}}
    for name in chosen.suites.split(","):
        suite = WidowXSuite(name, images=False)
        rows = [measure(suite, task, states, chosen.operator, chosen.out) for task in select_tasks(suite, chosen.tasks)]
        total = rate(sum(row["successes"] for row in rows), sum(row["episodes"] for row in rows))
        summary["suites"][name] = total | {"tasks": rows}
        summary["versions"] = dict(suite.versions())
    write_json(chosen.out / "summary.json", summary)


if __name__ == "__main__":
    main()
