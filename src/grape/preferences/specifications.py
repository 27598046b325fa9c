"""Which cost specification prices which task of a store: built-in ones or the suite's, and the user's over them."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from grape.core.errors import CompatibilityError, DataError, GrapeError, SettingsError, did_you_mean
from grape.core.trajectories import EpisodeMeta
from grape.costs import (
    CostSpecification,
    builtin_names,
    builtin_suites,
    check_specification,
    known_specification,
    load_specification,
    suite_is_known,
)
from grape.store.source import Episodes

__all__ = ["about_success_alone", "check_recorded_names", "check_success_counts", "choose_specifications"]


def choose_specifications(suite: str, tasks: Sequence[str], costs: Path | None) -> dict[str, CostSpecification]:
    """Specification of each task that has one; tasks without one are left out, and scored by success alone.

    Args:
        suite: Suite of the episodes.
        tasks: Tasks to be priced.
        costs: A YAML file (for the task it names, or for all tasks if it names none), a folder of such files (those
            for other tasks are ignored; a file that names no task is for the task it is called after), or None.

    Raises:
        SettingsError: ``costs`` does not exist, or the suite's tasks have built-in ones and this is none of them.
        DataError: A file is no valid specification, or two are for the same task.
        CompatibilityError: A file is for another suite, or the only one is for a task that is not in the store.
    """
    own = {} if costs is None else _load(suite, tasks, costs)
    known = {task: own[task] if task in own else known_specification(suite, task) for task in tasks}
    unknown = next((task for task, specification in known.items() if specification is None), None)
    if unknown is not None and suite in builtin_suites():
        raise SettingsError(
            f"There is no cost specification for task '{unknown}' of suite '{suite}'.",
            f"Write one (see docs/costs.md) and give it with --costs. {did_you_mean(unknown, builtin_names(suite))}",
        )
    return {task: specification for task, specification in known.items() if specification is not None}


def check_success_counts(weights: Sequence[float], tasks: Sequence[str]) -> None:
    """Refuse weights under which tasks without a specification have no reward at all.

    Args:
        weights: lambda_1, lambda_2, lambda_3.
        tasks: Tasks that are scored by success alone.

    Raises:
        SettingsError: There are some, and success has no weight.
    """
    if tasks and not weights[2]:
        raise SettingsError(
            f"--weights {' '.join(f'{weight:g}' for weight in weights)}: success counts for nothing, and "
            f"{', '.join(tasks)} can be scored by nothing else.",
            "Give --costs with a specification (see docs/costs.md), or a third weight above 0.",
        )


def about_success_alone(suite: str, tasks: Sequence[str], costs: Path | None) -> list[str]:
    """What a reader of scores must know where tasks have no specification; nothing where all have one.

    Args:
        suite: Suite of the episodes.
        tasks: Tasks that are scored by success alone.
        costs: What was given as ``--costs``; a file in it of nearly a task's name is pointed out.
    """
    if not tasks:
        return []
    files = [path.stem for path in costs.iterdir()] if costs is not None and costs.is_dir() else []
    close = [f"{name}.yaml for {task}" for task in tasks for name in difflib.get_close_matches(task, files, 1, 0.8)]
    misspelled = f" Is a file's name misspelled: {', '.join(close)}?" if close else ""
    unread = "" if suite_is_known(suite) else f" Suite {suite} is not installed here: what it ships is not known."
    return [
        f"There is no cost specification for {', '.join(tasks)}: scored by success alone, R_self and costs do not "
        f"count there. --costs takes one, 'grape costs generate' writes one (docs/costs.md).{misspelled}{unread}"
    ]


def check_recorded_names(
    episodes: Episodes, metas: Sequence[EpisodeMeta], specifications: Mapping[str, CostSpecification]
) -> None:
    """Compare every specification with the names that the first episode of its task recorded.

    Raises:
        DataError: A specification is unusable on the recordings; the problems of all of them are listed.
    """
    problems: list[GrapeError] = []
    for task, specification in specifications.items():
        first = next(meta for meta in metas if meta.task == task)
        trajectory = episodes.read(first.episode_id, frames=False)
        try:
            check_specification(specification, trajectory.keypoints, trajectory.signals, "camera" in first.extra)
        except DataError as error:
            problems.append(error)
    if problems:
        raise DataError("\n".join(problem.message for problem in problems), problems[0].hint)


def _load(suite: str, tasks: Sequence[str], costs: Path) -> dict[str, CostSpecification]:
    if not costs.exists():
        raise SettingsError(f"--costs {costs} does not exist.", "Give a YAML file or a folder of them.")
    if costs.is_file():
        specification = _of_suite(suite, load_specification(costs))
        if not specification.task:
            return dict.fromkeys(tasks, specification)
        if specification.task not in tasks:
            raise CompatibilityError(
                f"{costs} is for task '{specification.task}', of which the store holds no episode.",
                f"The store's tasks: {', '.join(tasks)}.",
            )
        return {specification.task: specification}
    files = sorted(path for path in costs.iterdir() if path.suffix in (".yaml", ".yml"))
    if not files:
        raise SettingsError(f"--costs {costs} holds no YAML file.", "Give a YAML file or a folder of them.")
    by_task: dict[str, CostSpecification] = {}
    for path in files:
        specification = _of_suite(suite, load_specification(path))
        task = specification.task or path.stem
        if task in by_task:
            raise DataError(f"{path} and {by_task[task].source} are both for task '{task}'.", "Keep one of them.")
        by_task[task] = specification
    if not by_task.keys() & set(tasks):
        raise CompatibilityError(
            f"No specification in {costs} is for a task of the store; they are for {', '.join(sorted(by_task))}.",
            f"The store's tasks: {', '.join(tasks)}.",
        )
    return by_task


def _of_suite(suite: str, specification: CostSpecification) -> CostSpecification:
    if specification.suite and specification.suite != suite:
        raise CompatibilityError(
            f"{specification.source} is for suite '{specification.suite}', the store's suite is '{suite}'.",
            "Choose a specification of that suite.",
        )
    return specification
