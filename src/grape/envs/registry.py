"""Suites by name, and tasks by selection.

Suites of other distributions register a class or factory without arguments under the entry-point group
``grape.suites``. A suite's module is imported when the suite is asked for, its simulator only when an environment is.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from grape.core.errors import SettingsError, did_you_mean, require_known
from grape.core.tasks import Task
from grape.envs.base import Suite

__all__ = [
    "cautions_of",
    "check_experts",
    "check_suite",
    "get_suite",
    "load_suite",
    "missing_state_hint",
    "select_tasks",
    "suite_names",
    "tasks_to_look_at",
]

_GROUP = "grape.suites"
_BUILTIN: dict[str, tuple[str, ...]] = {
    **{
        f"libero_{name}{rate}": ("grape.envs.libero.suite", "LiberoSuite", f"libero_{name}{rate}")
        for name in ("spatial", "object", "goal", "10", "90")
        for rate in ("", "_2hz")
    },
    **{
        f"simpler_widowx{group}": ("grape.envs.simpler.suite", "WidowXSuite", f"simpler_widowx{group}")
        for group in ("", "_subject", "_physical", "_semantic", "_held3")
    },
    "metaworld": ("grape.envs.metaworld.suite", "MetaWorldSuite"),
    "simpler_widowx-v0": ("grape.envs.simpler_original.suite", "OriginalSuite"),
    "toy": ("grape.envs.toy", "ToySuite"),
}
"""Module, class, and what it is made with."""


def suite_names() -> tuple[str, ...]:
    """Names of all suites, built in or from entry points, sorted."""
    return tuple(sorted({*_BUILTIN, *(point.name for point in _plugins())}))


def _plugins() -> tuple[metadata.EntryPoint, ...]:
    """Suites of other distributions."""
    points: Any = metadata.entry_points()
    # A mapping by group before Python 3.10, where workers may run.
    return tuple(points.select(group=_GROUP) if hasattr(points, "select") else points.get(_GROUP, ()))


def get_suite(name: str) -> Suite:
    """Suite registered under ``name``.

    Raises:
        SettingsError: The name is unknown, or the plugin that registered it cannot be loaded.
    """
    if name in _BUILTIN:
        module, attribute, *arguments = _BUILTIN[name]
        suite: Suite = getattr(importlib.import_module(module), attribute)(*arguments)
        return suite
    require_known("suite", name, suite_names())
    (point, *_) = (point for point in _plugins() if point.name == name)
    try:
        plugin: Suite = point.load()()
    except Exception as error:
        raise SettingsError(
            f"Suite {name!r} is registered as {point.value!r} but cannot be loaded: {type(error).__name__}: {error}.",
            "Mend or uninstall the package that registers it.",
        ) from error
    return plugin


def cautions_of(suite: Suite) -> tuple[str, ...]:
    """What makes results of a suite differ from published ones on this machine, in sentences.

    A suite that knows of such things has a method ``cautions`` without arguments, e.g. to name another release of a
    simulator.
    """
    return tuple(getattr(suite, "cautions", tuple)())


def check_suite(suite: Suite) -> None:
    """Look for what a suite's simulator needs before the first episode, where the suite offers that (method ``check``).

    Raises:
        GrapeError: Something is missing.
    """
    getattr(suite, "check", lambda: None)()


def load_suite(suite: Suite) -> None:
    """Import a suite's simulator, where the suite offers that (a method ``load``); what is missing raises."""
    getattr(suite, "load", lambda: None)()


def check_experts(suite: Suite, tasks: Iterable[Task]) -> None:
    """Make sure that a suite's scripted experts know some tasks.

    A suite whose experts do not know all of its tasks has a method ``check_expert`` that takes a task.

    Raises:
        SettingsError: There is no expert for one of them.
    """
    check = getattr(suite, "check_expert", None)
    if check is not None:
        for task in tasks:
            check(task)


def missing_state_hint(suite: Suite, task: Task) -> str:
    """What to do about an initial state that a task does not have.

    A suite that uses fewer than its simulator has says so with a method ``about_initial_states`` that takes a task.
    """
    available = suite.n_initial_states(task)
    hint = f"Choose from its {available}: --initial-states 0-{available - 1}."
    about: str = getattr(suite, "about_initial_states", lambda _: "")(task)
    return f"{hint} {about}" if about else hint


def tasks_to_look_at(suite: Suite) -> tuple[Task, ...]:
    """Tasks of which a check of the machine draws a frame: the first one.

    A suite whose tasks stand in scenes of different kinds has a method ``tasks_to_look_at`` without arguments.
    """
    return tuple(getattr(suite, "tasks_to_look_at", lambda: suite.tasks[:1])())


def select_tasks(suite: Suite, selection: str) -> tuple[Task, ...]:
    """Tasks named by a selection, ordered by index and without duplicates.

    Args:
        suite: The suite to choose from.
        selection: Empty for all tasks; otherwise indices, ranges (both ends included) and names separated by commas,
            e.g. ``"0,2"``, ``"0-3"`` or ``"drawer-open,faucet-open"``.

    Raises:
        SettingsError: A name is unknown, an index is out of range, or a part is empty.
    """
    tasks = suite.tasks
    if not selection.strip():
        return tasks
    by_name = {task.name: task for task in tasks}
    chosen: set[int] = set()
    for part in (part.strip() for part in selection.split(",")):
        span = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if part in by_name:
            chosen.add(by_name[part].index)
        elif span:
            first, last = int(span[1]), int(span[2] or span[1])
            if last < first or last >= len(tasks):
                raise SettingsError(
                    f"Task selection {part!r} does not fit suite {suite.name!r}.",
                    f"Its tasks are numbered 0 to {len(tasks) - 1}; a range goes upwards.",
                )
            chosen.update(range(first, last + 1))
        else:
            raise SettingsError(f"Unknown task {part!r} in suite {suite.name!r}.", did_you_mean(part, by_name))
    return tuple(task for task in tasks if task.index in chosen)
