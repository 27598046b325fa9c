"""The verb ``study``: makes the cells that are missing, then compares what there is."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

from grape.core.errors import CompatibilityError, DataError
from grape.core.events import SILENT, Reporter
from grape.core.files import write_json
from grape.core.remote.mirror_names import with_addresses
from grape.core.runs import open_run
from grape.envs.external_python import suite_of
from grape.envs.registry import select_tasks
from grape.study.analysis import analyze
from grape.study.arms import Arm, arms_of
from grape.study.bench import Bench
from grape.study.cells import Cell, cell_path, check_cell, check_starts, read_cell, take_over
from grape.study.checks import check_study, chosen_cells
from grape.study.diagnosis import check_fresh, diagnosis_path, finished_diagnosis, take_over_diagnoses
from grape.study.diagnosis_table import summarize_diagnoses
from grape.study.plan import plan_study
from grape.study.settings import StudySettings

__all__ = ["run_study"]


def run_study(settings: StudySettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Make the cells asked for, and the table of all there are.

    Returns:
        What :func:`grape.study.analysis.analyze` returns, with ``title``, ``suite``, ``tasks``, ``cells`` (how many are
        done, and which are missing), ``diagnosis`` (see :func:`grape.study.diagnosis_table.summarize_diagnoses`), where
        there are some, and ``page``, where one was written; with ``dry_run`` the plan.

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
        due = _undiagnosed(settings, arms, chosen, reporter) if settings.diagnose else _missing(settings, arms, chosen)
        if settings.jobs > 1 and due:
            if settings.shared_start and not settings.policy and not settings.diagnose:
                Bench(settings, due[0][0], suite, tasks, reporter).start()
            _work_side_by_side(settings, due, reporter)
        else:
            _work(settings, due, reporter)
    places = [(seed, name) for seed in settings.seeds for name in arms]
    cells = {place: _finished(settings, arms[place[1]], place[0]) for place in places}
    there = [cell for cell in cells.values() if cell is not None]
    check_starts(there)
    if settings.merge and (taken := take_over_diagnoses(settings.out, there, settings.merge)):
        reporter.info(f"{len(taken)} diagnoses taken over")
    diagnoses = [item for cell in there if (item := finished_diagnosis(settings.out, cell)) is not None]
    check_fresh(diagnoses)
    summary: dict[str, Any] = {
        "title": settings.title,
        "suite": settings.suite,
        "tasks": [task.name for task in tasks],
        "cells": {"done": len(there), "missing": [f"{s}-{name}" for (s, name), cell in cells.items() if cell is None]},
        **analyze(settings, tuple(arms), there),
        **({"diagnosis": summarize_diagnoses(tuple(arms), diagnoses)} if diagnoses else {}),
    }
    write_json(settings.out / "study.json", with_addresses(summary))
    if settings.report and there:
        from grape.study.page import write_page

        summary["page"] = write_page(settings, summary, there)
    if summary["cells"]["missing"]:
        (settings.out / "done.json").unlink(missing_ok=True)  # of the study before it was given more arms or seeds
    elif run.done != with_addresses(summary):
        run.finish(summary)
    return summary


def _missing(
    settings: StudySettings, arms: Mapping[str, Arm], chosen: Sequence[tuple[int, str]]
) -> list[tuple[int, str]]:
    """Those of the chosen cells that are to be made."""
    return [(seed, name) for seed, name in chosen if _finished(settings, arms[name], seed) is None]


def _undiagnosed(
    settings: StudySettings, arms: Mapping[str, Arm], chosen: Sequence[tuple[int, str]], reporter: Reporter
) -> list[tuple[int, str]]:
    """Those of the chosen cells that are to be diagnosed; what they need is there.

    Raises:
        DataError: None of the chosen cells is finished, or a work folder is missing.
        CompatibilityError: A cell of one of the seeds was diagnosed on another number of rollouts.
    """
    from grape.study.inspection import check_work

    suite = suite_of(settings.suite, settings.env_python)
    tasks = select_tasks(suite, settings.tasks)
    if left := _missing(settings, arms, chosen):
        names = ", ".join(f"{seed}-{name}" for seed, name in left[:8])
        if len(left) == len(chosen):
            raise DataError(
                f"None of the cells to diagnose is finished: {names}.", "Run the study first, without --diagnose."
            )
        reporter.warn(f"Not finished, so not diagnosed: {names}{', …' if len(left) > 8 else ''}.")
    due = []
    for seed, name in chosen:
        cell = _finished(settings, arms[name], seed)
        if cell is None:
            continue
        diagnosis = finished_diagnosis(settings.out, cell)
        if diagnosis is None:
            check_work(settings, Bench(settings, seed, suite, tasks, reporter), arms[name], cell)
            due.append((seed, name))
        elif diagnosis.samples != settings.diagnosis_samples:
            raise CompatibilityError(
                f"Cell {seed}-{name} was diagnosed with --diagnosis-samples {diagnosis.samples}.",
                f"Give the same number, or delete {diagnosis_path(settings.out, seed, name).parent}.",
            )
    return due


def _work(settings: StudySettings, cells: Sequence[tuple[int, str]], reporter: Reporter = SILENT) -> None:
    """Make, or diagnose, cells one after another."""
    suite = suite_of(settings.suite, settings.env_python)
    tasks, arms = select_tasks(suite, settings.tasks), arms_of(settings)
    for number, (seed, name) in enumerate(cells, start=1):
        bench = Bench(settings, seed, suite, tasks, reporter)
        if settings.diagnose:
            from grape.study.inspection import diagnose_cell

            reporter.info(f"diagnosis {number} of {len(cells)}: seed {seed}, {name}")
            path = cell_path(settings.out, seed, name)
            diagnose_cell(settings, bench, arms[name], read_cell(path), reporter)
        else:
            reporter.info(f"cell {number} of {len(cells)}: seed {seed}, {name}")
            bench.make(arms[name])


def _work_side_by_side(settings: StudySettings, cells: Sequence[tuple[int, str]], reporter: Reporter) -> None:
    """Make, or diagnose, the cells of several seeds at a time, a process each.

    Raises:
        GrapeError: A stage failed; seeds that had begun are made to their end first.
    """
    with ProcessPoolExecutor(settings.jobs, get_context("spawn")) as pool:
        work = {}
        for seed in dict.fromkeys(seed for seed, _ in cells):
            work[pool.submit(_work, settings, [cell for cell in cells if cell[0] == seed])] = seed
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
