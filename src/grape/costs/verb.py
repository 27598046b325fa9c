"""``grape costs``: list, show and check cost specifications, and write the language down as a schema."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.reading import read_file
from grape.costs.builtins import (
    SuiteNames,
    builtin_names,
    builtin_specification,
    builtin_suites,
    builtin_text,
    suite_names_of,
)
from grape.costs.checks import check_specification, find_problems
from grape.costs.parsing import load_specification
from grape.costs.schema import specification_schema
from grape.costs.specification import CostSpecification, specification_hash, specification_to_dict
from grape.costs.text import specification_text
from grape.store import EpisodeStore

__all__ = [
    "CostsCheckSettings",
    "CostsListSettings",
    "CostsSchemaSettings",
    "CostsShowSettings",
    "find_specification",
    "run_costs_check",
    "run_costs_list",
    "run_costs_schema",
    "run_costs_show",
]


@dataclass(frozen=True)
class CostsListSettings:
    """Name the built-in cost specifications, with their stages.

    Attributes:
        suite: Only those of this suite; by default of all.
    """

    suite: str = ""


@dataclass(frozen=True)
class CostsShowSettings:
    """Print the stages and constraints of a cost specification.

    Attributes:
        target: A YAML file, or a built-in as SUITE/TASK, e.g. metaworld/drawer-open.
        as_yaml: Print it in the language itself, to make another specification of it.
    """

    target: str = ""
    as_yaml: bool = False


@dataclass(frozen=True)
class CostsCheckSettings:
    """Look for mistakes in a cost specification, before any trajectory is scored.

    Attributes:
        target: A YAML file, or a built-in as SUITE/TASK, e.g. metaworld/drawer-open.
        store: Episode store whose recorded keypoints and signals names are compared with.
        suite: Suite whose names are compared with where no store is given; by default the one the file names.
    """

    target: str = ""
    store: Path | None = None
    suite: str = ""


@dataclass(frozen=True)
class CostsSchemaSettings:
    """Print the language as a JSON Schema, for editors and for the structured output of models.

    Attributes:
        suite: The suite whose keypoints and signals alone may be spoken of; by default any names.
        strict: The form that structured output takes: every field is required, and optional ones may be null.
    """

    suite: str = ""
    strict: bool = False


def run_costs_list(settings: CostsListSettings, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Names of the built-in specifications.

    Returns:
        ``text`` for people and ``specifications``: names by suite.

    Raises:
        SettingsError: The suite is unknown.
    """
    suites = [settings.suite] if settings.suite else list(builtin_suites())
    table = {suite: list(builtin_names(suite)) for suite in suites}
    lines = [
        f"{suite}/{task}  ({', '.join(stage.name for stage in builtin_specification(suite, task).stages)})"
        for suite, tasks in table.items()
        for task in tasks
    ]
    return {"text": "\n".join(lines), "specifications": table}


def run_costs_show(settings: CostsShowSettings, reporter: Reporter = SILENT) -> dict[str, Any]:
    """One specification, as text and as JSON values.

    Returns:
        ``text`` for people, ``specification``, ``source`` and ``hash``.

    Raises:
        SettingsError: The target is missing or unknown.
        DataError: The file is no valid specification; all problems are listed.
    """
    specification = find_specification(settings.target)
    return {
        "text": _source_text(settings.target) if settings.as_yaml else specification_text(specification),
        "specification": specification_to_dict(specification),
        **_facts(specification),
    }


def run_costs_check(settings: CostsCheckSettings, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Check a specification.

    Returns:
        ``text`` for people, ``warnings``, with what names were ``compared``, ``source`` and ``hash``.

    Raises:
        SettingsError: The target is missing or unknown.
        DataError: The file is no valid specification, or the check found errors; all are listed.
        CompatibilityError: The store holds no episode of the specification's task.
    """
    specification = find_specification(settings.target)
    names, compared = _names(settings, specification)
    if names is None:
        reporter.warn("Names were not compared with any recording: give --store or --suite.")
    else:
        check_specification(specification, names.keypoints, names.signals, names.camera)
    findings = find_problems(specification)
    errors = [str(finding) for finding in findings if finding.error]
    if errors:
        raise DataError(f"{specification.source} has problems:\n  " + "\n  ".join(errors), "See docs/costs.md.")
    warnings = [str(finding) for finding in findings]
    stages = len(specification.stages)
    lines = [f"{specification.source}: {stages} stages, no errors{f', compared with {compared}' if compared else ''}."]
    lines += [f"  warning {warning}" for warning in warnings]
    return {"text": "\n".join(lines), "warnings": warnings, "compared": compared, **_facts(specification)}


def run_costs_schema(settings: CostsSchemaSettings, reporter: Reporter = SILENT) -> dict[str, Any]:
    """The language as a JSON Schema.

    Returns:
        ``text`` and ``schema``, the same as JSON value.

    Raises:
        SettingsError: The suite is unknown.
    """
    names = suite_names_of(settings.suite) if settings.suite else None
    if names is None:
        schema = specification_schema(strict=settings.strict)
    else:
        schema = specification_schema(names.keypoints, names.signals, camera=names.camera, strict=settings.strict)
    return {"text": json.dumps(schema, indent=1), "schema": schema}


def find_specification(target: str) -> CostSpecification:
    """Specification named by ``target``: a file that exists or ends like one, else SUITE/TASK.

    Raises:
        SettingsError: The target is missing or unknown.
        DataError: The file is no valid specification; all problems are listed.
    """
    if not target:
        raise SettingsError(
            "No specification is named.",
            "Give a YAML file or a built-in, e.g. 'grape costs show metaworld/drawer-open'.",
        )
    if _is_file(target):
        return load_specification(Path(target))
    suite, slash, task = target.partition("/")
    if not slash:
        raise SettingsError(
            f"{target!r} is neither a YAML file nor SUITE/TASK.", "List the built-in ones with 'grape costs list'."
        )
    return builtin_specification(suite, task)


def _is_file(target: str) -> bool:
    path = Path(target)
    return path.suffix in (".yaml", ".yml", ".json") or path.is_file()


def _source_text(target: str) -> str:
    """What a target that was found is written as, without the last line's end."""
    text = read_file(Path(target)).decode() if _is_file(target) else builtin_text(*target.split("/", 1))
    return text.removesuffix("\n")


def _facts(specification: CostSpecification) -> dict[str, str]:
    return {"source": specification.source, "hash": specification_hash(specification)}


def _names(settings: CostsCheckSettings, specification: CostSpecification) -> tuple[SuiteNames | None, str]:
    """Recorded names to compare with, and where they are from."""
    if settings.store is not None:
        return _recorded_names(settings.store, specification.task), str(settings.store)
    suite = settings.suite or specification.suite
    if not suite or (not settings.suite and suite not in builtin_suites()):
        return None, ""
    return suite_names_of(suite), f"suite {suite}"


def _recorded_names(path: Path, task: str) -> SuiteNames:
    """Names in the first episode of the task (of any task where the specification names none)."""
    store = EpisodeStore.open(path)
    for meta in store.metas():
        if task in ("", meta.task):
            trajectory = store.read(meta.episode_id, frames=False)
            points, signals = (dict.fromkeys(names, "") for names in (trajectory.keypoints, trajectory.signals))
            return SuiteNames(points, signals, "camera" in meta.extra)
    raise CompatibilityError(f"{path} holds no episode of task '{task}'.", "Choose a store of that task.")
