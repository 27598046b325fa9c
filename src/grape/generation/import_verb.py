"""``grape costs import``: constraint functions that a model wrote in Python become a specification."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.settings import Range, check_ranges, setting
from grape.core.tasks import Task
from grape.costs import find_problems, parse_specification, specification_hash
from grape.costs.units import Clock, parse_quantity
from grape.envs.registry import get_suite, select_tasks
from grape.generation.documents import document_text, write_new
from grape.generation.python_import.program import Header, translate
from grape.generation.python_import.relations import Tolerance
from grape.generation.python_import.source import parse_source, read_source

__all__ = ["ImportCostsSettings", "run_import_costs"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}", re.ASCII)


_TASK, _READING = "Task", "Names and tolerances"


@dataclass(frozen=True)
class ImportCostsSettings:
    """Translate constraint functions in Python, as ReKep and GRAPE let models write them, into a specification.

    The file is read as text and matched against known patterns; nothing in it is executed. What could not be translated
    is listed with its line and reason. Look at the result with "grape costs show" before you use it.

    Attributes:
        file: Python file with functions stage1_subgoal_constraint1(end_effector, keypoints) and the like, also inside a
            fenced block; or a folder as ReKep writes it (stage1_subgoal_constraints.txt ... and metadata.json).
        out: YAML file to write.
        suite: Suite of the task; with --task it gives the limit, the control rate and the names to compare with.
        task: The task's name within the suite.
        keypoints: Names of keypoints[0], keypoints[1], ..., separated by commas; by default they are called after their
            number on the image (point_0, point_1, ...).
        gripper: Keypoint that end_effector stands for.
        limit: Decisions after which an episode ends; 0 takes the task's, or 300.
        near: How close counts as reached where a function only measures a distance.
        aligned: How close counts as reached where a function only measures an angle.
    """

    file: Path = setting(identity=False, common=True)
    out: Path = setting(identity=False, common=True)
    suite: str = setting("", group=_TASK, common=True)
    task: str = setting("", group=_TASK, common=True)
    keypoints: str = setting("", group=_READING, common=True)
    gripper: str = setting("gripper", group=_READING, common=True)
    limit: int = setting(0, group=_TASK, range=Range(0, 1_000_000), common=True)
    near: str = setting("3 cm", group=_READING, common=True)
    aligned: str = setting("15 deg", group=_READING, common=True)


def run_import_costs(settings: ImportCostsSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Translate a file.

    Returns:
        ``specification`` (path), ``hash``, ``stages``, ``translated`` (functions), ``left_out``, ``notes`` and
        ``findings`` of the static checks.

    Raises:
        SettingsError: A name, quantity, suite or task cannot be used, or ``out`` holds something else.
        DataError: The file is refused, or nothing of it could be translated.
    """
    header = _header(settings)
    translation = translate(parse_source(read_source(settings.file), str(settings.file)), header, str(settings.file))
    text = document_text(translation.document, ["Translated from constraint functions in Python; not executed."])
    specification = parse_specification(text, str(settings.out))
    findings = [str(finding) for finding in find_problems(specification)]
    write_new(settings.out, text)
    for item in translation.left_out:
        reporter.warn(f"Not translated: {item}")
    for finding in findings:
        reporter.warn(f"Found by the static checks: {finding}")
    return {
        "specification": str(settings.out),
        "hash": specification_hash(specification),
        "stages": len(specification.stages),
        "translated": translation.translated,
        "left_out": [dataclasses.asdict(item) for item in translation.left_out],
        "notes": translation.notes,
        "findings": findings,
    }


def _header(settings: ImportCostsSettings) -> Header:
    check_ranges(settings)
    names = tuple(name.strip() for name in settings.keypoints.split(",")) if settings.keypoints else ()
    for name in (*names, settings.gripper):
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f"{name!r} is no name of a keypoint.", "Letters, digits, '_', '-', '.', starting with a letter."
            )
    try:
        tolerance = Tolerance(
            meters=parse_quantity(settings.near, "m", Clock(1)),
            degrees=parse_quantity(settings.aligned, "deg", Clock(1)),
        )
    except ValueError as error:
        raise SettingsError(f"A tolerance cannot be read: {error}.", "For example --near '3 cm'.") from error
    if tolerance.meters <= 0.0 or not 0.0 < tolerance.degrees < 180.0:
        raise SettingsError("Tolerances must be greater than zero, and angles below 180 deg.")
    header = Header(gripper=settings.gripper, keypoints=names, tolerance=tolerance, limit=settings.limit or 300)
    if settings.task and not settings.suite:
        raise SettingsError("--task needs --suite.")
    if not settings.suite:
        return header
    suite = get_suite(settings.suite)
    header = dataclasses.replace(header, suite=suite.name, control_hz=suite.action_space.control_hz)
    if not settings.task:
        return header
    task = _only(select_tasks(suite, settings.task), settings.task)
    return dataclasses.replace(header, task=task.name, limit=settings.limit or task.max_steps)


def _only(tasks: tuple[Task, ...], selection: str) -> Task:
    if len(tasks) != 1:
        raise SettingsError(f"--task {selection!r} names {len(tasks)} tasks.", "A specification is for one.")
    return tasks[0]
