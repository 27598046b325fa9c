"""``grape costs``: list, show, check and try cost specifications, and write the language down as a schema."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import CompatibilityError, DataError, SettingsError, require_known
from grape.core.events import SILENT, Reporter
from grape.core.reading import read_file
from grape.core.settings import check_ranges, setting
from grape.core.trajectories import Trajectory
from grape.costs.builtins import (
    SuiteNames,
    builtin_suites,
    suite_names_of,
)
from grape.costs.checks import check_specification, find_problems
from grape.costs.parsing import load_specification
from grape.costs.report_card import card_text
from grape.costs.schema import specification_schema
from grape.costs.specification import CostSpecification, specification_hash, specification_text, specification_to_dict
from grape.costs.suite_specifications import (
    known_specification,
    specification_names,
    specification_source,
    specification_suites,
)
from grape.costs.validation import CRITERIA, ValidationCriteria, validate_specification
from grape.store import EpisodeStore

__all__ = [
    "CostsCheckSettings",
    "CostsListSettings",
    "CostsSchemaSettings",
    "CostsValidateSettings",
    "episodes_of_task",
    "find_episodes",
    "find_specification",
    "run_costs_check",
    "run_costs_list",
    "run_costs_schema",
    "run_costs_validate",
    "show_specification",
]


@dataclass(frozen=True)
class CostsListSettings:
    """Name the cost specifications, built in or of installed suites, with their stages.

    Attributes:
        suite: Only those of this suite; by default of all.
    """

    suite: str = ""


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
        suite: The suite whose keypoints and signals alone may be referenced; by default any names.
        strict: The form that structured output takes: every field is required, and optional ones may be null.
    """

    suite: str = ""
    strict: bool = False


@dataclass(frozen=True)
class CostsValidateSettings(ValidationCriteria):
    """Try a cost specification on recorded episodes of its task before it is used.

    Good recordings hold experts, failures and perturbed episodes from the same initial states, e.g. 'grape collect'
    with the operators clean, noisy and sloppy. Leaves with exit code 0 if the specification is accepted, else 1.

    Attributes:
        target: A YAML file, or a built-in as SUITE/TASK, e.g. metaworld/drawer-open.
        store: Episode stores, or folders that grape collect wrote; episodes of other tasks are left out.
        task: Task whose episodes are looked at, for a specification that names none.
        seed: Of the displacements.
    """

    target: str = setting("", common=True)
    store: tuple[Path, ...] = setting((), common=True)
    task: str = setting("", common=True)
    seed: int = setting(0, group=CRITERIA)


def run_costs_list(settings: CostsListSettings, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Names of the specifications, built in or of installed suites.

    Returns:
        ``text`` for people and ``specifications``: names by suite.

    Raises:
        SettingsError: The suite is unknown.
        DataError: A file that a suite ships is no valid specification.
    """
    suites = [settings.suite] if settings.suite else list(specification_suites(reporter.warn))
    table = {suite: list(specification_names(suite)) for suite in suites}
    lines = [
        f"{suite}/{task}  ({', '.join(stage.name for stage in _named_specification(suite, task).stages)})"
        for suite, tasks in table.items()
        for task in tasks
    ]
    return {"text": "\n".join(lines), "specifications": table}


def show_specification(target: str, *, as_yaml: bool = False) -> dict[str, Any]:
    """One specification, as text and as JSON values.

    Args:
        target: A YAML file, or a built-in as SUITE/TASK.
        as_yaml: Whether the text is in the language itself.

    Returns:
        ``text`` for people, ``specification``, ``source`` and ``hash``.

    Raises:
        SettingsError: The target is missing or unknown.
        DataError: The file is no valid specification; all problems are listed.
    """
    specification = find_specification(target)
    return {
        "text": _source_text(target) if as_yaml else specification_text(specification),
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


def run_costs_validate(settings: CostsValidateSettings, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Try a specification.

    Returns:
        ``text`` for people and the card, see :meth:`grape.costs.report_card.ReportCard.to_dict`.

    Raises:
        SettingsError: The target or the stores are missing or unknown, or a limit is out of range.
        DataError: The file is no valid specification, or speaks of what was not recorded.
        CompatibilityError: The stores hold no episode of the specification's task.
    """
    check_ranges(settings)
    if not all(math.isfinite(rms) and rms > 0.0 for rms in settings.noise):
        raise SettingsError(f"--noise is {settings.noise}.", "Give lengths in meters above 0, e.g. 0.01 0.02.")
    specification = find_specification(settings.target)
    recorded = find_episodes(settings.store, specification, settings.task)
    episodes = [(store, name) for store, name in recorded if store.meta(name).success is not None]
    if not episodes:
        raise CompatibilityError(
            f"The outcome of all {len(recorded)} episodes is unknown, and a trial compares successes with failures.",
            "Give a store whose outcomes are known.",
        )
    if len(episodes) < len(recorded):
        reporter.warn(f"{len(recorded) - len(episodes)} of {len(recorded)} episodes have no known outcome: left out.")
    store, name = episodes[0]
    first = store.read(name, frames=False)
    check_specification(specification, first.keypoints, first.signals, "camera" in first.meta.extra)
    with reporter.progress("trying", len(episodes)) as progress:
        read = (store.read(name, frames=False) for store, name in episodes)
        card = validate_specification(specification, read, settings, seed=settings.seed, advance=progress.advance)
    return {"text": card_text(card), "stores": list(map(str, settings.store)), **card.to_dict()}


def find_episodes(
    stores: Sequence[Path], specification: CostSpecification, task: str = ""
) -> list[tuple[EpisodeStore, str]]:
    """Where the episodes of a specification's task are: store and id of each.

    Args:
        stores: Where they are.
        specification: Whose task is looked for.
        task: The task, where the specification names none.

    Raises:
        SettingsError: No store is named, or the task is not known.
        CompatibilityError: The stores hold no episode of it.
    """
    if not stores:
        raise SettingsError("No episodes are named.", "Give one or more stores, e.g. --store runs/rollouts/store.")
    opened = [EpisodeStore.open(path) for path in stores]
    recorded = sorted({meta.task for store in opened for meta in store.metas()})
    task_name = specification.task or task or (recorded[0] if len(recorded) == 1 else "")
    if not task_name:
        raise SettingsError(
            f"{specification.source} names no task, and the stores hold several.",
            f"Give --task, one of {', '.join(recorded)}.",
        )
    episodes = [(store, meta.episode_id) for store in opened for meta in store.metas() if meta.task == task_name]
    if not episodes:
        places = ", ".join(map(str, stores))
        raise CompatibilityError(
            f"{places}: no episode of task '{task_name}'.",
            f"Tasks that were recorded: {', '.join(recorded) or 'none'}.",
        )
    return episodes


def episodes_of_task(stores: Sequence[Path], specification: CostSpecification, task: str = "") -> list[Trajectory]:
    """All recorded episodes of a specification's task, without images; see :func:`find_episodes`."""
    return [store.read(name, frames=False) for store, name in find_episodes(stores, specification, task)]


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
    return _named_specification(suite, task)


def _named_specification(suite: str, task: str) -> CostSpecification:
    """The specification of a task.

    Raises:
        SettingsError: There is none; the hint names close ones.
    """
    require_known(f"task of suite '{suite}'", task, specification_names(suite))
    specification = known_specification(suite, task)
    assert specification is not None  # its name is known
    return specification


def _is_file(target: str) -> bool:
    path = Path(target)
    return path.suffix in (".yaml", ".yml", ".json") or path.is_file()


def _source_text(target: str) -> str:
    """What a target that was found is written as, without the last line's end."""
    text = read_file(Path(target)).decode() if _is_file(target) else specification_source(*target.split("/", 1))
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
