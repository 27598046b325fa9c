"""Suites by name, and tasks by selection.

Suites of other distributions register a class or factory without arguments under the entry-point group
``grape.suites``. A suite's module is imported when the suite is asked for, its simulator only when an environment is.
``gym:ID`` is any Gymnasium environment (:mod:`grape.envs.gymnasium_suite`).
"""

from __future__ import annotations

import importlib
import re
from importlib import metadata
from typing import Any

from grape.core.errors import SettingsError, did_you_mean, require_known
from grape.core.tasks import Task
from grape.envs.base import SuiteBase

__all__ = [
    "GYMNASIUM_PREFIX",
    "get_suite",
    "missing_state_hint",
    "select_tasks",
    "suite_names",
]

_GROUP = "grape.suites"
GYMNASIUM_PREFIX = "gym:"
"""How names begin that are not registered here, but Gymnasium environments."""

_BUILTIN: dict[str, tuple[str, ...]] = {
    **{
        f"libero_{name}{variant}": ("grape.envs.libero.suite", "LiberoSuite", f"libero_{name}{variant}")
        for name in ("spatial", "object", "goal", "10", "90")
        for variant in ("", "_2hz", "_nano", "_nano_wrist")
    },
    **{
        f"simpler_widowx{group}": ("grape.envs.simpler.suite", "WidowXSuite", f"simpler_widowx{group}")
        for group in ("", "_subject", "_physical", "_semantic", "_held3", "_nano")
    },
    "metaworld": ("grape.envs.metaworld.suite", "MetaWorldSuite"),
    "simpler_widowx-v0": ("grape.envs.simpler_original.suite", "OriginalSuite"),
    **{name: ("grape.envs.toy", "ToySuite", name) for name in ("toy", "toy_fine", "toy_wrist", "toy_fine_wrist")},
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


def get_suite(name: str) -> SuiteBase:
    """Suite registered under ``name``, or the Gymnasium environment that ``gym:...`` names.

    Raises:
        SettingsError: The name is unknown, or the plugin that registered it cannot be loaded.
        DataError: A file of options for a Gymnasium environment cannot be read.
    """
    if name.startswith(GYMNASIUM_PREFIX):
        from grape.envs.gymnasium_suite import open_gymnasium

        return open_gymnasium(name)
    if name in _BUILTIN:
        module, attribute, *arguments = _BUILTIN[name]
        suite: SuiteBase = getattr(importlib.import_module(module), attribute)(*arguments)
        return suite
    require_known("suite", name, suite_names())
    (point, *_) = (point for point in _plugins() if point.name == name)
    try:
        plugin = point.load()()
    except Exception as error:
        raise SettingsError(
            f"Suite {name!r} is registered as {point.value!r} but cannot be loaded: {type(error).__name__}: {error}.",
            "Fix or uninstall the package that registers it.",
        ) from error
    if not isinstance(plugin, SuiteBase):
        raise SettingsError(
            f"Suite {name!r} is registered as {point.value!r}, which makes no grape.envs.base.SuiteBase.",
            "Derive its class from SuiteBase; what it does not define has defaults there.",
        )
    return plugin


def missing_state_hint(suite: SuiteBase, task: Task) -> str:
    """What to do about an initial state that a task does not have."""
    available = suite.n_initial_states(task)
    return (
        f"Choose from its {available}: --initial-states 0-{available - 1}. {suite.about_initial_states(task)}".rstrip()
    )


def select_tasks(suite: SuiteBase, selection: str) -> tuple[Task, ...]:
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
