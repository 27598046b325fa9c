"""Records what the test of the WidowX cost specifications looks at: ``python -m tests.costs.record_simpler``.

Clean, noisy and sloppy episodes of every task of ``simpler_widowx`` from the same initial states; the format is that of
LIBERO's recordings. Needs ManiSkill's assets; tasks that are recorded already are left alone.
"""

from pathlib import Path

import numpy as np

from grape.core.tasks import Task
from grape.envs.simpler.suite import WidowXSuite
from tests.costs import record_libero
from tests.costs.expert_recordings import record

FOLDER = Path(__file__).parent / "simpler"
INITIAL_STATES = (1, 7, 10, 14, 20)  # none of them was used to choose thresholds or to write the experts
OPERATORS = (("clean", 1), ("noisy", 1), ("sloppy", 2))


def path_of(task: Task) -> Path:
    return FOLDER / f"{task.suite}-{task.index}.npz"


def main() -> None:
    suite = WidowXSuite("simpler_widowx", images=False)
    for task in suite.tasks:
        if path_of(task).exists():
            continue
        environment = suite.make_environment(task)
        episodes = [
            record(suite, task, environment, operator, state, sample)
            for state in INITIAL_STATES
            for operator, samples in OPERATORS
            for sample in range(samples)
        ]
        environment.close()
        record_libero.write(path_of(task), episodes)
        solved = {name: [one.meta.success for one in episodes if one.meta.operator == name] for name, _ in OPERATORS}
        print(
            task.id, {name: f"{np.sum(successes)}/{len(successes)}" for name, successes in solved.items()}, flush=True
        )


if __name__ == "__main__":
    main()
