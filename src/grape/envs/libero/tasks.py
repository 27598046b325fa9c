"""The five LIBERO suites: names of the tasks, instructions, limits (Liu et al. 2023, arXiv 2306.03310).

Names and their order are LIBERO's, so that ``libero_spatial/3`` is the same task here and in published results. They
are listed here, not read from the package, because constructing a suite must not import a simulator.
"""

import functools
import re
from importlib import resources

import yaml

from grape.core.tasks import Task

__all__ = [
    "LIMITS",
    "NANO_CAMERAS",
    "SUITES",
    "base_suite",
    "instruction_of",
    "nano_cameras",
    "steps_per_decision",
    "suite_tasks",
]

LIMITS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
"""Most decisions a task, from OpenVLA's evaluation (arXiv 2406.09246): the longest demonstration and a margin."""

_SLOWER = {"_2hz": 10}
"""Ends of the names of suites whose decisions are held for several steps of 50 ms, and for how many."""

NANO_CAMERAS: dict[str, tuple[str, ...]] = {"_nano": (), "_nano_wrist": ("wrist",)}
"""Ends of the names of suites with small images that are drawn fast, and their cameras beside the main one."""

SUITES = (*LIMITS, *(f"{suite}{end}" for end in (*_SLOWER, *NANO_CAMERAS) for suite in LIMITS))
"""Names of the suites: LIBERO's, and the same tasks with fewer decisions a second or with small images."""

_SCENE = re.compile(r"^[A-Z_]+SCENE\d+_")


def instruction_of(name: str) -> str:
    """The instruction: as in LIBERO, the task file's name without the scene's."""
    return _SCENE.sub("", name).replace("_", " ")


def base_suite(suite: str) -> str:
    """LIBERO's suite that a suite's tasks are of: itself, but for the variants."""
    ends = (*_SLOWER, *NANO_CAMERAS)
    return next((suite.removesuffix(end) for end in ends if suite.endswith(end)), suite)


def nano_cameras(suite: str) -> tuple[str, ...] | None:
    """Cameras beside the main one of a suite with small images; None for a suite with LIBERO's."""
    return next((cameras for end, cameras in NANO_CAMERAS.items() if suite.endswith(end)), None)


def steps_per_decision(suite: str) -> int:
    """For how many of LIBERO's steps of 50 ms a decision is held (action repeat): 1, but for the slower suites."""
    return next((steps for end, steps in _SLOWER.items() if suite.endswith(end)), 1)


@functools.cache
def suite_tasks(suite: str) -> tuple[Task, ...]:
    """Tasks of a suite by index.

    Args:
        suite: One of :data:`SUITES`.
    """
    base, n_steps = base_suite(suite), steps_per_decision(suite)
    names = yaml.safe_load((resources.files(__package__) / "tasks.yaml").read_text(encoding="utf-8"))[base]
    limit = LIMITS[base] // n_steps  # as in protocol libero-openvla-v1
    return tuple(Task(suite, index, name, instruction_of(name), limit) for index, name in enumerate(names))
