"""Which cost specification prices which task of a store: built-in ones, and the user's over them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from grape.core.errors import CompatibilityError, DataError, GrapeError, SettingsError
from grape.costs import (
    CostSpecification,
    builtin_specification,
    builtin_suites,
    check_specification,
    load_specification,
)
from grape.store.source import Episodes

__all__ = ["check_recorded_names", "choose_specifications"]


def choose_specifications(suite: str, tasks: Sequence[str], costs: Path | None) -> dict[str, CostSpecification]:
    """Specification of each task that has one; every task has where the suite comes with built-in ones.

    Args:
        suite: Suite of the episodes.
        tasks: Tasks to be priced.
        costs: A YAML file (for the task it names, or for all tasks if it names none), a folder of such files (those
            for other tasks are ignored; a file that names no task is for the task it is called after), or None.

    Raises:
        SettingsError: A task of a suite with built-in specifications has neither a file nor one of these, or ``costs``
            does not exist.
        DataError: A file is no valid specification, or two are for the same task.
        CompatibilityError: A file is for another suite, or the only one is for a task that is not in the store.
    """
    own = {} if costs is None else _load(suite, tasks, costs)
    chosen = {}
    for task in tasks:
        if task not in own and suite not in builtin_suites():
            continue
        try:
            chosen[task] = own[task] if task in own else builtin_specification(suite, task)
        except SettingsError as error:
            raise SettingsError(
                f"There is no cost specification for task '{task}' of suite '{suite}'. {error.message}",
                f"Write one (see docs/costs.md) and give it with --costs. {error.hint}",
            ) from error
    return chosen


def check_recorded_names(episodes: Episodes, specifications: Mapping[str, CostSpecification]) -> None:
    """Compare every specification with the names that the first episode of its task recorded.

    Raises:
        DataError: A specification is unusable on the recordings; the problems of all of them are listed.
    """
    problems: list[GrapeError] = []
    metas = episodes.metas()
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
