"""Specifications by suite and task: the built-in ones, and those that a suite of another distribution ships.

Such a suite names a folder in :attr:`grape.envs.base.SuiteBase.cost_specifications`, with a file ``TASK.yaml`` for each
task that has one. Only the suite's module is imported, no simulator.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from grape.core.errors import DataError, GrapeError, require_known
from grape.core.reading import read_file
from grape.costs.builtins import builtin_names, builtin_specification, builtin_suites, builtin_text
from grape.costs.parsing import load_specification
from grape.costs.specification import CostSpecification

__all__ = [
    "known_specification",
    "specification_names",
    "specification_source",
    "specification_suites",
    "suite_is_known",
]


def specification_suites(failed: Callable[[str], None] = lambda sentence: None) -> tuple[str, ...]:
    """Suites with specifications: built-in ones, and those of installed suites.

    Args:
        failed: Is told of each suite of another distribution that cannot be loaded; it is left out.
    """
    from grape.envs.registry import suite_names

    suites = list(builtin_suites())
    for name in set(suite_names()) - set(suites):
        try:
            if _folder(name) is not None:
                suites.append(name)
        except GrapeError as error:
            failed(error.message)
    return tuple(sorted(suites))


def specification_names(suite: str) -> tuple[str, ...]:
    """Tasks of a suite that have a specification.

    Raises:
        SettingsError: The suite has none, is unknown, or cannot be loaded; the hint names those that have some.
        DataError: The suite's folder of specifications is not there.
    """
    if suite in builtin_suites():
        return builtin_names(suite)
    folder = _installed_folder(suite)
    if folder is None:
        require_known("suite with cost specifications", suite, specification_suites())
        return ()
    return tuple(sorted(path.stem for path in folder.iterdir() if path.suffix == ".yaml"))


def known_specification(suite: str, task: str) -> CostSpecification | None:
    """The specification of a task, or None where neither the project nor the suite has one.

    Raises:
        SettingsError: The suite is installed but cannot be loaded.
        DataError: The suite's folder is not there, or its file is no valid specification or for another suite or task.
    """
    if suite in builtin_suites():
        return builtin_specification(suite, task) if task in builtin_names(suite) else None
    folder = _installed_folder(suite)
    path = None if folder is None else folder / f"{task}.yaml"
    return None if path is None or not path.is_file() else _load(suite, task, path)


def suite_is_known(suite: str) -> bool:
    """Whether it can be told here which specifications a suite has: it is built in, installed, or needs no package."""
    from grape.envs.registry import GYMNASIUM_PREFIX, suite_names

    return suite in builtin_suites() or suite in suite_names() or suite.startswith(GYMNASIUM_PREFIX)


def specification_source(suite: str, task: str) -> str:
    """The text of a task's specification, in the language.

    Raises:
        SettingsError: There is none; the hint names close ones.
        DataError: As :func:`known_specification`.
    """
    require_known(f"task of suite '{suite}'", task, specification_names(suite))
    if suite in builtin_suites():
        return builtin_text(suite, task)
    folder = _installed_folder(suite)
    return "" if folder is None else read_file(folder / f"{task}.yaml").decode()


def _load(suite: str, task: str, path: Path) -> CostSpecification:
    specification = load_specification(path)
    if specification.suite not in ("", suite) or specification.task not in ("", task):
        raise DataError(
            f"{path} is for {specification.suite or suite}/{specification.task or task}, "
            f"and stands for {suite}/{task}.",
            "Rename the file to the task it is for; this is to be fixed in the package of the suite.",
        )
    return replace(specification, suite=suite, task=task, source=f"{suite}/{task} (of the suite)")


def _installed_folder(suite: str) -> Path | None:
    """A suite's folder of specifications; None where it names none, or is not installed here."""
    from grape.envs.registry import suite_names

    return _folder(suite) if suite in suite_names() else None


def _folder(suite: str) -> Path | None:
    from grape.envs.registry import get_suite

    folder = get_suite(suite).cost_specifications
    if folder is not None and not folder.is_dir():
        raise DataError(
            f"Suite {suite!r} names {folder} as its cost specifications, which is no folder.",
            "Install its package with its data files.",
        )
    return folder
