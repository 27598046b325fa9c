"""Do LIBERO's cost specifications judge rightly? ``python -m benchmarks.libero_costs --out runs/libero-costs``.

For every task with a scripted expert, from each of two initial states: a clean episode, a noisy one, two sloppy ones,
and one whose operator lets go halfway and stands still. They are kept, a file a task, so that the benchmark can be
interrupted and goes on. ``summary.json`` then says for each task which pairs of a success and a failure from the same
initial state are ranked rightly, also where the simulator's verdict is hidden, and whether on the clean expert's way
every stage is finite, is reached, and makes the episode cheaper. Half a minute of one core a task; no images.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measured_on import commit
from grape.core.files import write_json
from grape.core.selections import format_numbers, parse_numbers
from grape.core.tasks import Task
from grape.core.trajectories import Trajectory
from grape.costs import builtin_specification, evaluate, unavailable_constraints
from grape.envs.base import Environment, Expert, Snapshot
from grape.envs.libero.experts.scripts import UNSOLVED
from grape.envs.libero.suite import LiberoSuite
from grape.envs.registry import select_tasks
from tests.costs.expert_recordings import record
from tests.costs.record_libero import read, write
from tests.costs.test_builtins import beginning, same_start, success_over_failure, total, without_verdict

SUITES = "libero_spatial,libero_object,libero_goal,libero_10"
OPERATORS = (("clean", 1), ("noisy", 1), ("sloppy", 2))
LETTING_GO = "letting go"
"""A failure for tasks that even the sloppy operator solves."""


class LettingGo:
    """The clean expert, until it opens the hand and stands still.

    Args:
        expert: The clean expert.
        after: Decisions after which it lets go.
    """

    def __init__(self, expert: Expert, after: int) -> None:
        self._expert = expert
        self._left = after

    def act(self, snapshot: Snapshot) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Executed action and label, float32 ``(7,)`` each."""
        self._left -= 1
        if self._left >= 0:
            return self._expert.act(snapshot)
        still = np.array([0, 0, 0, 0, 0, 0, 1], dtype=np.float32)
        return still, still


class SuiteLettingGo(LiberoSuite):
    """A suite whose one operator lets go.

    Args:
        name: The suite.
        after: Decisions after which it does.
    """

    def __init__(self, name: str, after: int) -> None:
        super().__init__(name, images=False)
        self._after = after

    def make_expert(self, task: Task, operator: str, seed: int) -> Expert:
        """The operator that lets go."""
        return LettingGo(super().make_expert(task, "clean", seed), self._after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--suites", default=SUITES)
    parser.add_argument("--tasks", default="", help="by index or name, as for grape collect")
    parser.add_argument("--initial-states", default="20,21")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    states = parse_numbers(chosen.initial_states, "initial states")
    suites = [LiberoSuite(name, images=False) for name in chosen.suites.split(",")]
    summary: dict[str, Any] = {
        "commit": commit(),
        "initial_states": format_numbers(states),
        "versions": dict(suites[0].versions()),
        "suites": {},
    }
    for suite in suites:
        rows = []
        for task in select_tasks(suite, chosen.tasks):
            if task.name not in UNSOLVED:
                rows.append(judge(task, recordings(suite, task, states, chosen.out)))
                print(task.id, rows[-1], flush=True)
        summary["suites"][suite.name] = totals(rows) | {
            "tasks_without_an_expert": [task.index for task in suite.tasks if task.name in UNSOLVED],
            "tasks": rows,
        }
    write_json(chosen.out / "summary.json", summary)


def recordings(suite: LiberoSuite, task: Task, states: Sequence[int], folder: Path) -> list[Trajectory]:
    path = folder / f"{suite.name}-{task.index}-{format_numbers(states)}.npz"
    if not path.exists():
        environment = suite.make_environment(task)
        episodes = [episode for state in states for episode in play(suite, task, environment, state)]
        unfinished = path.with_suffix(".part.npz")
        write(unfinished, episodes)
        unfinished.replace(path)
    return read(task, path)


def play(suite: LiberoSuite, task: Task, environment: Environment, state: int) -> list[Trajectory]:
    episodes = [
        record(suite, task, environment, operator, state, sample)
        for operator, samples in OPERATORS
        for sample in range(samples)
    ]
    letting_go = SuiteLettingGo(suite.name, episodes[0].steps // 2)
    return [*episodes, record(letting_go, task, environment, LETTING_GO, state, 0)]


def judge(task: Task, episodes: Sequence[Trajectory]) -> dict[str, Any]:
    """What the specification makes of a task's episodes."""
    specification = builtin_specification(task.suite, task.name)
    shown = [(episode, total(specification, episode)) for episode in episodes]
    hidden = [(episode, total(specification, without_verdict(episode))) for episode in episodes]
    ranked, ranked_hidden = (list(same_start(scored, success_over_failure)) for scored in (shown, hidden))
    solved = [episode for episode in episodes if episode.meta.operator == "clean" and episode.meta.success]
    reached: dict[str, int] = {}
    falling = 0
    for episode in solved:
        stages = evaluate(specification, episode)
        for stage, _ in zip(stages, specification.stages, strict=False):
            reached[stage.name] = reached.get(stage.name, 0) + stage.done
        ends = sorted({0, *(stage.end for stage in stages)})
        costs = [total(specification, beginning(episode, end)) for end in ends]
        falling += all(later < earlier for earlier, later in itertools.pairwise(costs))
    every = [(episode, evaluate(specification, episode)) for episode in episodes]
    return {
        "index": task.index,
        "task": task.name,
        "successes": {
            name: f"{sum(bool(one.meta.success) for one in some)} of {len(some)}"
            for name in dict.fromkeys(one.meta.operator for one in episodes)
            if (some := [one for one in episodes if one.meta.operator == name])
        },
        "pairs": len(ranked),
        "ranked_rightly": sum(ranked),
        "ranked_rightly_without_verdict": sum(ranked_hidden),
        "clean_successes": len(solved),
        "stages_reached": reached,
        "cost_falls_with_every_stage": falling,
        "every_cost_is_finite": all(np.isfinite(stage.cost) for _, stages in every for stage in stages),
        "unavailable_constraints": sorted({name for _, stages in every for name in unavailable_constraints(stages)}),
    }


def totals(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums over tasks."""
    names = ("pairs", "ranked_rightly", "ranked_rightly_without_verdict", "clean_successes")
    unreached = [row["index"] for row in rows if not row["clean_successes"] or 0 in row["stages_reached"].values()]
    return {name: sum(row[name] for row in rows) for name in names} | {
        "cost_falls_with_every_stage": sum(row["cost_falls_with_every_stage"] for row in rows),
        "tasks_with_a_stage_that_no_clean_expert_reached": unreached,
    }


if __name__ == "__main__":
    main()
