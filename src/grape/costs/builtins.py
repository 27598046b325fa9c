"""The specifications that come with the package, and the names that each suite records."""

import functools
import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from grape.core.errors import require_known
from grape.costs.parsing import parse_specification
from grape.costs.specification import Constraint, CostSpecification
from grape.costs.units import step_factor

__all__ = [
    "SuiteNames",
    "at_lower_rate",
    "builtin_names",
    "builtin_specification",
    "builtin_suites",
    "builtin_text",
    "suite_names_of",
]


@dataclass(frozen=True)
class SuiteNames:
    """What a suite records in every episode.

    Attributes:
        keypoints: Keypoint and what it marks.
        signals: Signal and what it says.
        camera: Whether the camera is noted, so that its frame can be referenced; None if unknown.
    """

    keypoints: dict[str, str]
    signals: dict[str, str]
    camera: bool | None = None


_TEMPLATES = "templates"
_TASKS = "tasks.yaml"


def _folder() -> Traversable:
    return resources.files("grape.costs") / "builtin"


@functools.cache
def _slower() -> Mapping[str, Mapping[str, Any]]:
    """Suites that are others with fewer decisions a second: ``suite`` and ``held`` of each."""
    table: Mapping[str, Mapping[str, Any]] = yaml.safe_load((_folder() / "slower.yaml").read_text(encoding="utf-8"))
    return table


@functools.cache
def _templated(suite: str) -> Mapping[str, tuple[str, Mapping[str, str]]]:
    """By task, for tasks that differ from others in nouns and sizes only: the template's name and its values."""
    path = _folder() / suite / _TASKS
    if not path.is_file():
        return {}
    table = {}
    for template, tasks in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        shared = tasks.pop("all", {})
        for task, values in tasks.items():
            values = {"suite": suite, "task": task, **shared, **values}
            table[task] = (template, {name: str(value) for name, value in values.items()})
    return table


def builtin_text(suite: str, task: str) -> str:
    """The built-in specification of a task in the language itself, to make another one of it.

    A task that is priced like another, or a variant of a suite, has that other task's text.

    Raises:
        SettingsError: Suite or task is unknown; the hint names close ones.
    """
    require_known(f"task of suite '{suite}'", task, builtin_names(suite))
    if suite in _variations():
        return builtin_text(*_variations()[suite][task].split("/"))
    suite = _original(suite)
    if task in _templated(suite):
        template, values = _templated(suite)[task]
        text = (_folder() / _TEMPLATES / f"{template}.yaml").read_text(encoding="utf-8")
        return string.Template(text).substitute(values)
    return (_folder() / suite / f"{task}.yaml").read_text(encoding="utf-8")


def _original(suite: str) -> str:
    """The suite whose files a suite's specifications and names stand in."""
    return str(_slower()[suite]["suite"]) if suite in _slower() else suite


def builtin_suites() -> tuple[str, ...]:
    """Suites that have built-in specifications."""
    folders = (entry.name for entry in _folder().iterdir() if entry.is_dir() and entry.name[0] not in "._")
    folders = (name for name in folders if name != _TEMPLATES)
    return tuple(sorted([*folders, *_slower(), *_variations()]))


@functools.cache
def _variations() -> Mapping[str, Mapping[str, str]]:
    """By suite and task: which task, as ``suite/task``, it is a variation of, where that one's specification serves."""
    table: Mapping[str, Mapping[str, str]] = yaml.safe_load((_folder() / "variations.yaml").read_text(encoding="utf-8"))
    return table


def builtin_names(suite: str) -> tuple[str, ...]:
    """Tasks of a suite that have a built-in specification.

    Raises:
        SettingsError: The suite has none; the hint names those that do.
    """
    require_known("suite with built-in costs", suite, builtin_suites())
    if suite in _variations():
        return tuple(sorted(_variations()[suite]))
    original = _original(suite)
    files = (entry.name for entry in (_folder() / original).iterdir() if entry.name.endswith(".yaml"))
    return tuple(sorted([name.removesuffix(".yaml") for name in files if name != _TASKS] + [*_templated(original)]))


@functools.cache
def builtin_specification(suite: str, task: str) -> CostSpecification:
    """The built-in specification of a task.

    Raises:
        SettingsError: Suite or task is unknown; the hint names close ones.
    """
    require_known(f"task of suite '{suite}'", task, builtin_names(suite))
    if suite in _variations():
        pattern = _variations()[suite][task]
        base = builtin_specification(*pattern.split("/"))
        return replace(base, suite=suite, task=task, source=f"{suite}/{task} (built-in, as {pattern})")
    original = _original(suite)
    specification = parse_specification(builtin_text(original, task), f"{original}/{task} (built-in)")
    if suite == original:
        return specification
    held = int(_slower()[suite]["held"])
    if held == 1:
        return replace(specification, suite=suite, source=f"{suite}/{task} (built-in, as {original}/{task})")
    return at_lower_rate(specification, suite, held)


@functools.cache
def suite_names_of(suite: str) -> SuiteNames:
    """Keypoints and signals that all tasks of a suite record.

    Raises:
        SettingsError: The suite is unknown.
    """
    tables = yaml.safe_load((_folder() / "names.yaml").read_text(encoding="utf-8"))
    require_known("suite with built-in costs", suite, [*tables, *_slower()])
    return SuiteNames(**tables[_original(suite)])


def at_lower_rate(specification: CostSpecification, suite: str, held: int) -> CostSpecification:
    """The specification for a suite whose decisions are each held for ``held`` steps of the original suite.

    Speeds and accelerations are counted by the step, so they are converted, also where they bound a relation within a
    formula, and so is for how many steps a condition must hold. Lengths, angles, parts of the limit and what a stage
    costs at most stay as they are.
    """

    def converted(constraint: Constraint) -> Constraint:
        factor = step_factor(constraint.unit, held)
        return replace(
            constraint,
            cost=constraint.cost.at_lower_rate(held),
            threshold=constraint.threshold * factor,
            worst=constraint.worst * factor,
            weight=constraint.weight / factor,
        )

    slower = specification.with_constraints(converted)
    stages = (
        replace(
            stage,
            done_when=stage.done_when.at_lower_rate(held),
            held_for=stage.held_for * step_factor("steps", held),
        )
        for stage in slower.stages
    )
    return replace(
        slower,
        stages=tuple(stages),
        suite=suite,
        limit=specification.limit // held,
        control_hz=None if specification.control_hz is None else specification.control_hz / held,
        source=f"{specification.source}, each decision held for {held} steps",
    )
