"""The five LIBERO suites: names of the tasks, instructions, limits (Liu et al. 2023, arXiv 2306.03310).

Names and their order are LIBERO's, so that ``libero_spatial/3`` is the same task here and in published results. They
are listed here, not asked of the package, because constructing a suite must not import a simulator.
"""

import functools
import re
from importlib import resources

import yaml

from grape.core.tasks import Task

__all__ = ["LIMITS", "SUITES", "instruction_of", "suite_tasks"]

LIMITS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
"""Most decisions a task, from OpenVLA's evaluation (arXiv 2406.09246): the longest demonstration and a margin."""

SUITES = tuple(LIMITS)
"""Names of the suites."""

_SCENE = re.compile(r"^[A-Z_]+SCENE\d+_")


def instruction_of(name: str) -> str:
    """What the policy is told: LIBERO reads it off the file's name, after the scene's."""
    return _SCENE.sub("", name).replace("_", " ")


@functools.cache
def suite_tasks(suite: str) -> tuple[Task, ...]:
    """Tasks of a suite by index.

    Args:
        suite: One of :data:`SUITES`.
    """
    names = yaml.safe_load((resources.files(__package__) / "tasks.yaml").read_text(encoding="utf-8"))[suite]
    return tuple(
        Task(suite, index, name, instruction_of(name), LIMITS[suite], "protocol libero-openvla-v1")
        for index, name in enumerate(names)
    )
