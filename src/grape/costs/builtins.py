"""The specifications that come with the package, and the names that each suite records."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from grape.core.errors import require_known
from grape.costs.parsing import parse_specification
from grape.costs.rates import at_lower_rate
from grape.costs.specification import CostSpecification

__all__ = ["SuiteNames", "builtin_names", "builtin_specification", "builtin_suites", "suite_names_of"]


@dataclass(frozen=True)
class SuiteNames:
    """What a suite records in every episode.

    Attributes:
        keypoints: Keypoint and what it marks.
        signals: Signal and what it says.
        camera: Whether the camera is noted, so that its frame can be spoken of; None if unknown.
    """

    keypoints: dict[str, str]
    signals: dict[str, str]
    camera: bool | None = None


def _folder() -> Traversable:
    return resources.files("grape.costs") / "builtin"


@functools.cache
def _slower() -> Mapping[str, Mapping[str, Any]]:
    """Suites that are others with fewer decisions a second: ``suite`` and ``held`` of each."""
    table: Mapping[str, Mapping[str, Any]] = yaml.safe_load((_folder() / "slower.yaml").read_text(encoding="utf-8"))
    return table


def _original(suite: str) -> str:
    """The suite whose files a suite's specifications and names stand in."""
    return str(_slower()[suite]["suite"]) if suite in _slower() else suite


def builtin_suites() -> tuple[str, ...]:
    """Suites that have built-in specifications."""
    folders = (entry.name for entry in _folder().iterdir() if entry.is_dir() and entry.name[0] not in "._")
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
    entries = (_folder() / _original(suite)).iterdir()
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml")))


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
    text = (_folder() / original / f"{task}.yaml").read_text(encoding="utf-8")
    specification = parse_specification(text, f"{original}/{task} (built-in)")
    return specification if suite == original else at_lower_rate(specification, suite, int(_slower()[suite]["held"]))


@functools.cache
def suite_names_of(suite: str) -> SuiteNames:
    """Keypoints and signals that all tasks of a suite record.

    Raises:
        SettingsError: The suite is unknown.
    """
    tables = yaml.safe_load((_folder() / "names.yaml").read_text(encoding="utf-8"))
    require_known("suite with built-in costs", suite, [*tables, *_slower()])
    return SuiteNames(**tables[_original(suite)])
