"""The probe that renders frames: ``python -m grape.doctor.frame SUITE`` prints one JSON object about them.

Run by :mod:`grape.doctor.graphics` in a separate process, which a broken graphics driver may crash.
"""

import json
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np

from grape.core.errors import GrapeError, SimulatorError
from grape.core.tasks import Task
from grape.envs.base import SuiteBase

__all__ = ["describe_frame", "main"]


def describe_frame(suite: SuiteBase) -> Mapping[str, Any]:
    """Create the suite's first task, render, act once, and describe the image; the same for further tasks.

    Returns:
        ``task``, ``shape`` of the image, ``mean`` and ``spread`` (standard deviation) of its values in [0, 255],
        ``create_seconds`` until the first image, ``step_seconds`` for one decision with its image, ``versions`` of
        what simulates, and ``cautions``: what makes results differ from published ones. ``further`` lists the same of
        the suite's other tasks to look at, without the last two.
    """
    versions = dict(suite.versions())  # first: where a package is missing, this names it and says what to do
    first, *further = [_describe(suite, task) for task in suite.tasks_to_look_at()]
    return {
        **first,
        "further": further,
        "versions": versions,
        "cautions": list(suite.cautions()),
    }


def _describe(suite: SuiteBase, task: Task) -> dict[str, Any]:
    start_time = time.perf_counter()
    environment = suite.make_environment(task)
    try:
        environment.reset(0)
        created = time.perf_counter()
        snapshot = environment.step(np.zeros(suite.action_space.dim, dtype=np.float32))
        stepped = time.perf_counter()
    finally:
        environment.close()
    return {
        "task": task.name,
        "shape": list(snapshot.image.shape),
        "mean": float(snapshot.image.mean()),
        "spread": float(snapshot.image.std()),
        "create_seconds": created - start_time,
        "step_seconds": stepped - created,
    }


def main(arguments: list[str]) -> int:
    """Print the description, or why there is none, as the last line of standard output."""
    from grape.envs.registry import get_suite

    try:
        answer = describe_frame(get_suite(arguments[0]))
    except GrapeError as error:
        answer = {"failure": error.message, "hint": error.hint, "graphics": isinstance(error, SimulatorError)}
    except Exception as error:  # a graphics library may raise anything; each of it is an answer, not a crash
        traceback.print_exc()
        hint = f"See where it happens: python -m grape.doctor.frame {arguments[0]}"
        answer = {"failure": f"{type(error).__name__}: {error}", "hint": hint, "graphics": True}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
