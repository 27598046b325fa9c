"""``grape costs``: list, show and check cost specifications."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.costs.builtins import SuiteNames, builtin_names, builtin_specification, builtin_suites, suite_names_of
from grape.costs.checks import check_specification, find_problems
from grape.costs.parsing import load_specification
from grape.costs.schema import specification_schema
from grape.costs.specification import CostSpecification, specification_hash, specification_to_dict
from grape.costs.text import specification_text

__all__ = ["CostsSettings", "run_costs"]


@dataclass(frozen=True)
class CostsSettings:
    """List, show and check cost specifications: the stages and constraints that price a trajectory.

    Attributes:
        action: "list" names the built-in specifications; "show" prints the stages of one; "check" looks for mistakes;
            "schema" prints the language as a JSON Schema.
        target: For list: a suite, or nothing for all. For show and check: a YAML file, or a built-in as SUITE/TASK,
            e.g. metaworld/drawer-open.
        store: Episode store whose recorded keypoints and signals "check" compares names with.
        suite: Suite whose names "check" compares with where no store is given; by default the one the file names. For
            schema: the suite whose names alone may be spoken of.
        strict: For schema: the form that structured output of language models takes: every field is required, and
            optional ones may be null.
    """

    action: Literal["list", "show", "check", "schema"] = "list"
    target: str = ""
    store: Path | None = None
    suite: str = ""
    strict: bool = False


def run_costs(settings: CostsSettings, reporter: Reporter = SILENT) -> dict[str, Any]:
    """List, show or check specifications, or write down their schema.

    Returns:
        ``action``, ``text`` (for people) and what the action found: ``specifications`` by suite; ``specification``
        with ``hash``; ``schema``; or ``warnings`` with the ``compared`` names.

    Raises:
        SettingsError: The target is missing or unknown.
        DataError: The file is no valid specification, or the check found errors; all are listed.
        CompatibilityError: The store holds no episode of the specification's task.
    """
    if settings.action == "list":
        return _list(settings)
    if settings.action == "schema":
        return _schema(settings)
    specification = _find(settings.target)
    facts = {"source": specification.source, "hash": specification_hash(specification)}
    if settings.action == "show":
        text = specification_text(specification)
        return {"action": "show", "text": text, "specification": specification_to_dict(specification), **facts}
    names, compared = _names(settings, specification)
    if names is None:
        reporter.warn("Names were not compared with any recording: give --store or --suite.")
    else:
        check_specification(specification, names.keypoints, names.signals)
    findings = find_problems(specification)
    errors = [str(finding) for finding in findings if finding.error]
    if errors:
        raise DataError(f"{specification.source} has problems:\n  " + "\n  ".join(errors), "See docs/costs.md.")
    warnings = [str(finding) for finding in findings]
    stages = len(specification.stages)
    lines = [f"{specification.source}: {stages} stages, no errors{f', compared with {compared}' if compared else ''}."]
    lines += [f"  warning {warning}" for warning in warnings]
    return {"action": "check", "text": "\n".join(lines), "warnings": warnings, "compared": compared, **facts}


def _list(settings: CostsSettings) -> dict[str, Any]:
    suites = [settings.target or settings.suite] if settings.target or settings.suite else list(builtin_suites())
    table = {suite: list(builtin_names(suite)) for suite in suites}
    lines = [
        f"{suite}/{task}  ({', '.join(stage.name for stage in builtin_specification(suite, task).stages)})"
        for suite, tasks in table.items()
        for task in tasks
    ]
    return {"action": "list", "text": "\n".join(lines), "specifications": table}


def _schema(settings: CostsSettings) -> dict[str, Any]:
    names = suite_names_of(settings.suite) if settings.suite else None
    schema = specification_schema(
        None if names is None else names.keypoints, None if names is None else names.signals, strict=settings.strict
    )
    return {"action": "schema", "text": json.dumps(schema, indent=1), "schema": schema}


def _find(target: str) -> CostSpecification:
    """Specification named by ``target``: a file that exists or ends like one, else SUITE/TASK."""
    if not target:
        raise SettingsError(
            "No specification is named.",
            "Give a YAML file or a built-in, e.g. 'grape costs show metaworld/drawer-open'.",
        )
    path = Path(target)
    if path.suffix in (".yaml", ".yml", ".json") or path.is_file():
        return load_specification(path)
    suite, slash, task = target.partition("/")
    if not slash:
        raise SettingsError(
            f"{target!r} is neither a YAML file nor SUITE/TASK.", "List the built-in ones with 'grape costs list'."
        )
    return builtin_specification(suite, task)


def _names(settings: CostsSettings, specification: CostSpecification) -> tuple[SuiteNames | None, str]:
    """Recorded names to compare with, and where they are from."""
    if settings.store is not None:
        return _recorded_names(settings.store, specification.task), str(settings.store)
    suite = settings.suite or specification.suite
    if not suite or (not settings.suite and suite not in builtin_suites()):
        return None, ""
    return suite_names_of(suite), f"suite {suite}"


def _recorded_names(path: Path, task: str) -> SuiteNames:
    """Names in the first episode of the task (of any task where the specification names none)."""
    from grape.store import EpisodeStore

    store = EpisodeStore.open(path)
    for meta in store.metas():
        if task in ("", meta.task):
            trajectory = store.read(meta.episode_id, frames=False)
            return SuiteNames(dict.fromkeys(trajectory.keypoints, ""), dict.fromkeys(trajectory.signals, ""))
    raise CompatibilityError(f"{path} holds no episode of task '{task}'.", "Choose a store of that task.")
