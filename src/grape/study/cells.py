"""The result of a cell, one small JSON file: what is compared later, and what it was made with.

A cell is one arm under one seed. Its file holds the outcome of every measured episode, so that cells of several
machines can be paired when they come together, and nothing that depends on where it lies.
"""

import dataclasses
import functools
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grape
from grape.core.errors import CompatibilityError, DataError
from grape.core.files import content_hash, read_json, write_text
from grape.core.reading import decode, encode, record
from grape.core.runs import identity_of
from grape.study.arms import Arm
from grape.study.settings import StudySettings

__all__ = [
    "CELLS",
    "Cell",
    "Outcome",
    "Round",
    "cell_hash",
    "cell_path",
    "check_cell",
    "check_starts",
    "read_cell",
    "software",
    "take_over",
    "write_cell",
    "write_result",
]

CELLS = "cells"
"""Folder of the results within a study's."""

_FORMAT = 1
_HINT = "Delete the file and run the cell again."
_OF_ANALYSIS = ("baselines", "confidence", "score", "pair", "train")  # not of a cell, or its arm's own


class Outcome(NamedTuple):
    """How one measured episode ended.

    Attributes:
        task: Place of its task in the cell's list.
        initial_state: Index of the initial state.
        sample: Number of the rollout among those from the same initial state.
        success: 1 where the task was solved, else 0.
        steps: Control steps until success or the end.
        collisions: States with a collision; None where the suite records none.
    """

    task: int
    initial_state: int
    sample: int
    success: int
    steps: int
    collisions: int | None


@record
@dataclass(frozen=True, kw_only=True)
class Round:
    """One iteration of a cell.

    Attributes:
        iteration: Its number from 1; 0 is the starting policy.
        policy_hash: Hash of the policy that was measured.
        rollouts: Digest of the rollouts it learned from; empty for the starting policy.
        collected: Number of those rollouts.
        collected_success: Share of them that succeeded; None where nobody knows.
        pairs: Pairs (or, of unpaired methods, episodes) it learned from.
        updates: Optimizer steps.
        stopped: Why there was nothing to learn, or empty; the policy is then the one before.
        curve: Metrics of training by name, at the same updates, whose numbers are under "update".
        outcomes: Every measured episode, ordered.
    """

    iteration: int
    policy_hash: str
    rollouts: str = ""
    collected: int = 0
    collected_success: float | None = None
    pairs: int = 0
    updates: int = 0
    stopped: str = ""
    curve: Mapping[str, tuple[float | None, ...]] = dataclasses.field(default_factory=dict)
    outcomes: tuple[Outcome, ...]


@record
@dataclass(frozen=True, kw_only=True)
class Cell:
    """Results of one arm under one seed.

    Attributes:
        settings: Hash of everything the cell's result depends on but seed and arm's name, see :func:`cell_hash`.
        seed: The seed.
        arm: The arm's name.
        suite: Suite of tasks.
        tasks: Names of the tasks.
        merit: The study's figure of merit.
        measured_on: Which states were measured on.
        start: Hash of the starting policy.
        software: Version and commit of GRAPE.
        versions: Versions of what shapes physics and images.
        rounds: The iterations in order.
        wall_seconds: Time the cell's own stages took.
        cpu_seconds: CPU time of them.
        start_cpu_seconds: CPU time of what all arms of the seed share.
    """

    settings: str
    seed: int
    arm: str
    suite: str
    tasks: tuple[str, ...]
    merit: str
    measured_on: str
    start: str
    software: Mapping[str, str]
    versions: Mapping[str, str]
    rounds: tuple[Round, ...]
    wall_seconds: float
    cpu_seconds: float
    start_cpu_seconds: float

    def round(self, iteration: int) -> Round | None:
        """The round of an iteration, or of the starting policy where the arm does not train; None if not there."""
        numbers = {item.iteration: item for item in self.rounds}
        return numbers.get(iteration) or (numbers.get(0) if len(numbers) == 1 else None)

    @property
    def facts(self) -> "Cell":
        """The cell without what may differ from run to run: times, software."""
        return dataclasses.replace(
            self, wall_seconds=0.0, cpu_seconds=0.0, start_cpu_seconds=0.0, software={}, versions={}
        )


def cell_hash(settings: StudySettings, arm: Arm) -> str:
    """Hash of what a cell's result depends on: the study's settings without arms and seeds, and the arm's own."""
    shared = {name: value for name, value in identity_of(settings).items() if name not in _OF_ANALYSIS}
    own = {name: identity_of(getattr(arm, name)) for name in ("score", "pair", "train")} if arm.trains else {}
    if arm.replay:
        own["replay"] = arm.replay
    return content_hash({**shared, **own})


def cell_path(folder: Path, seed: int, arm: str) -> Path:
    """Where a cell's result lies within a study's folder."""
    return folder / CELLS / f"{seed}-{arm}.json"


def write_cell(folder: Path, cell: Cell) -> Path:
    """Write a cell's result atomically; returns its path."""
    path = cell_path(folder, cell.seed, cell.arm)
    write_result(path, _FORMAT, cell)
    return path


def write_result(path: Path, version: int, result: Any) -> None:
    """Write a record as one line of JSON atomically, in a folder that is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    value = {"format": version, **encode(result)}
    write_text(path, json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":")) + "\n")


def read_cell(path: Path) -> Cell:
    """Read a cell's result, strictly.

    Raises:
        DataError: The file is missing, damaged or of another format.
    """
    data = read_json(path, hint=_HINT)
    number = data.pop("format", None) if isinstance(data, dict) else None
    if number != _FORMAT:
        raise DataError(f"{path} is no result of a study's cell of format {_FORMAT}.", _HINT)
    cell = decode(Cell, data, str(path), _HINT)
    for item in cell.rounds:
        if any(not 0 <= outcome.task < len(cell.tasks) or outcome.success not in (0, 1) for outcome in item.outcomes):
            raise DataError(f"{path} holds an outcome that cannot be.", _HINT)
        if len({outcome[:3] for outcome in item.outcomes}) < len(item.outcomes) or not item.outcomes:
            raise DataError(f"{path} holds an episode twice, or none.", _HINT)
    return cell


def take_over(settings: StudySettings, arms: Mapping[str, Arm], folders: Iterable[Path]) -> list[Path]:
    """Copy the results of other folders into the study's, refusing those of other settings.

    Args:
        settings: The study.
        arms: Its arms.
        folders: Folders of studies, or of result files.

    Returns:
        The files taken over; results of arms and seeds that the study does not have are left alone.

    Raises:
        DataError: A folder holds no results, or one is damaged.
        CompatibilityError: A result was made with other settings, or is not the one that is there already.
    """
    taken = []
    for folder in folders:
        place = folder / CELLS if (folder / CELLS).is_dir() else folder
        files = sorted(place.glob("*.json"))
        if not files:
            raise DataError(f"{folder} holds no results of a study.", f"Give the --out of a study, or its {CELLS}/.")
        for file in files:
            cell = read_cell(file)
            if cell.arm not in arms or cell.seed not in settings.seeds:
                continue
            check_cell(cell, settings, arms[cell.arm], file)
            target = cell_path(settings.out, cell.seed, cell.arm)
            if target.exists():
                if read_cell(target).facts != cell.facts:
                    raise CompatibilityError(
                        f"{file} and {target} are different results of the same cell.",
                        "Keep one of them: choosing by the result would bias the study.",
                    )
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            write_text(target, file.read_text(encoding="utf-8"))
            taken.append(target)
    return taken


def check_cell(cell: Cell, settings: StudySettings, arm: Arm, file: Path) -> None:
    """Refuse a result of other settings.

    Raises:
        CompatibilityError: It was made with other settings.
    """
    if (cell.merit, cell.measured_on) != (settings.merit, settings.measured_on):
        raise CompatibilityError(
            f"{file} is of a study whose figure of merit is {cell.merit} on {cell.measured_on} states; here it is "
            f"{settings.merit} on {settings.measured_on} states.",
            "A figure of merit is fixed before anything runs. Start another study.",
        )
    if cell.settings != cell_hash(settings, arm):
        raise CompatibilityError(
            f"{file} was made with other settings of the study, or of its arm {cell.arm}.",
            "Use the study file it was made with, or run the cell again.",
        )


def check_starts(cells: Sequence[Cell]) -> None:
    """Refuse to compare arms of a seed that started from different policies or learned from different first rollouts.

    Raises:
        CompatibilityError: They did.
    """
    for seed in sorted({cell.seed for cell in cells}):
        members = [cell for cell in cells if cell.seed == seed]
        firsts = {item.rollouts for cell in members for item in cell.rounds if item.iteration == 1}
        for what, values in (("starting policies", {cell.start for cell in members}), ("first rollouts", firsts)):
            if len(values) > 1:
                raise CompatibilityError(
                    f"The arms of seed {seed} have different {what}, so their comparison would not be fair.",
                    "Processors differ in last bits: run all arms of a seed on one machine, or copy its work/ folder.",
                )


@functools.cache
def software() -> Mapping[str, str]:
    """Version of GRAPE and, where it runs from a checkout, the commit, with a mark if its sources differ from it."""
    place = Path(grape.__file__).parent
    names = ["git", "-C", str(place), "describe", "--always", "--abbrev=40", "--exclude", "*"]
    changed = ["git", "-C", str(place), "status", "--porcelain", "--", "."]
    facts = {"version": grape.__version__}
    try:
        tracked = ["git", "-C", str(place), "ls-files", "--error-unmatch", "__init__.py"]
        subprocess.run(tracked, check=True, capture_output=True)  # not some other repository that holds a library
        commit, dirty = (
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
            for command in (names, changed)
        )
    except (OSError, subprocess.CalledProcessError):
        return facts
    return {**facts, "commit": f"{commit}, with changes" if dirty else commit}
