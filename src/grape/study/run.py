"""The verb ``study``: makes the cells that are missing, then compares what there is."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

from grape.core.events import SILENT, Reporter
from grape.core.files import write_json
from grape.core.runs import open_run
from grape.envs.external_python import suite_of
from grape.envs.registry import select_tasks
from grape.study.analysis import analyze
from grape.study.arms import Arm, arms_of
from grape.study.bench import Bench
from grape.study.cells import Cell, cell_path, check_cell, check_starts, read_cell, take_over
from grape.study.checks import check_study, chosen_cells
from grape.study.plan import plan_study
from grape.study.settings import StudySettings

__all__ = ["run_study"]


def run_study(settings: StudySettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Make the cells asked for, and the table of all there are.

    Returns:
        What :func:`grape.study.analysis.analyze` returns, with ``title``, ``suite``, ``tasks``, ``cells`` (how many are
        done, and which are missing) and ``page``, where one was written; with ``dry_run`` the plan.

    Raises:
        GrapeError: A stage failed; what was finished is kept and the same command goes on from there.
    """
    suite = suite_of(settings.suite, settings.env_python)
    tasks = select_tasks(suite, settings.tasks)
    arms = arms_of(settings)
    check_study(settings, arms, suite, tasks)
    chosen = chosen_cells(settings, arms)
    if settings.dry_run:
        return plan_study(settings, arms, tasks, chosen)
    run = open_run(settings.out, "study", settings)
    if settings.merge:
        taken = take_over(settings, arms, settings.merge)
        reporter.info(f"{len(taken)} cells taken over")
    else:
        due = [(seed, name) for seed, name in chosen if _finished(settings, arms[name], seed) is None]
        if settings.jobs > 1 and due:
            if settings.shared_start and not settings.policy:
                Bench(settings, due[0][0], suite, tasks, reporter).start()
            _make_side_by_side(settings, due, reporter)
        else:
            _make(settings, due, reporter)
    places = [(seed, name) for seed in settings.seeds for name in arms]
    cells = {place: _finished(settings, arms[place[1]], place[0]) for place in places}
    there = [cell for cell in cells.values() if cell is not None]
    check_starts(there)
    summary: dict[str, Any] = {
        "title": settings.title,
        "suite": settings.suite,
        "tasks": [task.name for task in tasks],
        "cells": {"done": len(there), "missing": [f"{s}-{name}" for (s, name), cell in cells.items() if cell is None]},
        **analyze(settings, tuple(arms), there),
    }
    write_json(settings.out / "study.json", summary)
    if settings.report and there:
        from grape.study.page import write_page

        summary["page"] = write_page(settings, summary, there)
    if summary["cells"]["missing"]:
        (settings.out / "done.json").unlink(missing_ok=True)  # of the study before it was given more arms or seeds
    elif run.done != summary:
        run.finish(summary)
    return summary


def _make(settings: StudySettings, cells: Sequence[tuple[int, str]], reporter: Reporter = SILENT) -> None:
    """Make cells one after another."""
    suite = suite_of(settings.suite, settings.env_python)
    tasks, arms = select_tasks(suite, settings.tasks), arms_of(settings)
    for number, (seed, name) in enumerate(cells, start=1):
        reporter.info(f"cell {number} of {len(cells)}: seed {seed}, {name}")
        Bench(settings, seed, suite, tasks, reporter).make(arms[name])


def _make_side_by_side(settings: StudySettings, cells: Sequence[tuple[int, str]], reporter: Reporter) -> None:
    """Make the cells of several seeds at a time, a process each.

    Raises:
        GrapeError: A stage failed; seeds that had begun are made to their end first.
    """
    with ProcessPoolExecutor(settings.jobs, get_context("spawn")) as pool:
        work = {}
        for seed in dict.fromkeys(seed for seed, _ in cells):
            work[pool.submit(_make, settings, [cell for cell in cells if cell[0] == seed])] = seed
        try:
            for future in as_completed(work):
                future.result()
                reporter.info(f"all cells of seed {work[future]} are done")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _finished(settings: StudySettings, arm: Arm, seed: int) -> Cell | None:
    """A cell's result, if it is there and holds the last iteration."""
    path = cell_path(settings.out, seed, arm.name)
    if not path.exists():
        return None
    cell = read_cell(path)
    check_cell(cell, settings, arm, path)
    return cell if cell.round(settings.iterations) else None
