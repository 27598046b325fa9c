"""What a cell's training did, one small JSON file beside its result: the records, and taking them over.

They lie in a folder of their own, so that whoever reads results of cells need not know of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from grape.core.errors import CompatibilityError, DataError
from grape.core.files import read_json_mapping
from grape.core.reading import decode, record
from grape.study.cells import CELLS, Cell, write_result

__all__ = [
    "DIAGNOSES",
    "Change",
    "DiagnosedRound",
    "Diagnosis",
    "check_fresh",
    "diagnosis_path",
    "finished_diagnosis",
    "read_diagnosis",
    "take_over_diagnoses",
    "write_diagnosis",
]

DIAGNOSES = "diagnoses"
"""Folder of the diagnoses within a study's, beside that of the results."""

_FORMAT = 1
_HINT = "Delete the file and run 'grape study --diagnose' again."


@record
@dataclass(frozen=True)
class Change:
    """How a policy's log-probability of recorded actions changed, nats per executed token.

    Attributes:
        count: Trajectories (or sides of pairs), each of which counts alike.
        mean: Mean over them of the mean change over their executed tokens.
        deviation: Standard deviation over them; 0 for one.
    """

    count: int
    mean: float
    deviation: float


@record
@dataclass(frozen=True, kw_only=True)
class DiagnosedRound:
    """What one iteration's training did.

    Attributes:
        iteration: Its number from 1; 0 is the starting policy, against itself.
        policy_hash: Hash of the policy after it, as in the cell's result.
        fresh: Change against the policy that the iteration started from, of ``success`` and ``failure``: fresh rollouts
            of the study's starting policy from states that no arm trained on. Lacks what there is none of.
        since_start: The same against the starting policy.
        trained: The first change of the ``chosen`` and ``rejected`` sides that the training saw, the latter also as far
            as the chosen one is long, ``rejected_head``, and from there on, ``rejected_tail``.
        distance: Mean absolute log-ratio, nats per executed token, against whoever recorded the episode: of the policy
            on ``fresh`` and on ``trained`` episodes, and of the policy ``before`` training on the latter (above 0
            where earlier iterations are replayed).
        comparisons: Kinds of pairs, or of single episodes, by name.
        terms: Terms of the loss.
        saturated: Share of comparisons whose weight, ``sigmoid(-d)``, is below 0.1 after training; None for losses
            without that weight.
        curve: Metrics of training by name, at the same updates, as in the cell's result: norms of the gradient and of
            its terms before clipping, margins, mean weights (``saturation``), share of updates clipped so far.
    """

    iteration: int
    policy_hash: str
    fresh: Mapping[str, Change]
    since_start: Mapping[str, Change]
    trained: Mapping[str, Change]
    distance: Mapping[str, float]
    comparisons: Mapping[str, int]
    terms: tuple[str, ...]
    saturated: float | None
    curve: Mapping[str, tuple[float | None, ...]]


@record
@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Diagnosis of one cell.

    Attributes:
        settings: The cell's hash of settings.
        seed: Its seed.
        arm: Its arm.
        start: Hash of its starting policy.
        samples: Fresh rollouts from each validation state.
        fresh: Digest of the fresh rollouts, the same for all arms of a seed.
        software: Version and commit of GRAPE that diagnosed.
        rounds: The iterations in order.
    """

    settings: str
    seed: int
    arm: str
    start: str
    samples: int
    fresh: str
    software: Mapping[str, str]
    rounds: tuple[DiagnosedRound, ...]


def diagnosis_path(folder: Path, seed: int, arm: str) -> Path:
    """Where a cell's diagnosis lies within a study's folder."""
    return folder / DIAGNOSES / f"{seed}-{arm}.json"


def write_diagnosis(folder: Path, diagnosis: Diagnosis) -> Path:
    """Write a diagnosis atomically; returns its path."""
    path = diagnosis_path(folder, diagnosis.seed, diagnosis.arm)
    write_result(path, _FORMAT, diagnosis)
    return path


def read_diagnosis(path: Path) -> Diagnosis:
    """Read a diagnosis, strictly.

    Raises:
        DataError: The file is missing, damaged or of another format.
    """
    data = read_json_mapping(path, hint=_HINT)
    if data.pop("format", None) != _FORMAT:
        raise DataError(f"{path} is no diagnosis of a study's cell of format {_FORMAT}.", _HINT)
    diagnosis = decode(Diagnosis, data, str(path), _HINT)
    numbers = [item.iteration for item in diagnosis.rounds]
    if not numbers or len(set(numbers)) < len(numbers):
        raise DataError(f"{path} holds an iteration twice, or none.", _HINT)
    if any(len({len(column) for column in item.curve.values()}) > 1 for item in diagnosis.rounds):
        raise DataError(f"{path} holds a curve whose metrics are not all of the same updates.", _HINT)
    return diagnosis


def finished_diagnosis(folder: Path, cell: Cell) -> Diagnosis | None:
    """A cell's diagnosis; None where there is none, or where the cell has gone on since.

    Raises:
        DataError: The file is damaged.
        CompatibilityError: It is of another result of the cell.
    """
    path = diagnosis_path(folder, cell.seed, cell.arm)
    if not path.exists():
        return None
    diagnosis = read_diagnosis(path)
    _check(diagnosis, cell, path)
    return diagnosis if len(diagnosis.rounds) == len(cell.rounds) else None


def _check(diagnosis: Diagnosis, cell: Cell, path: Path) -> None:
    """Refuse a diagnosis of another result.

    Raises:
        CompatibilityError: It is.
    """
    facts = (diagnosis.settings, diagnosis.seed, diagnosis.arm, diagnosis.start)
    policies = {(item.iteration, item.policy_hash) for item in diagnosis.rounds}
    of_cell = {(item.iteration, item.policy_hash) for item in cell.rounds}
    if facts != (cell.settings, cell.seed, cell.arm, cell.start) or not policies <= of_cell:
        raise CompatibilityError(f"{path} is the diagnosis of other policies than those of the cell's result.", _HINT)


def take_over_diagnoses(out: Path, cells: Iterable[Cell], folders: Iterable[Path]) -> list[Path]:
    """Copy the diagnoses of other folders into the study's.

    Args:
        out: The study's folder.
        cells: Its results.
        folders: Folders of studies, of their results, or of result files, which may hold a folder of diagnoses.

    Returns:
        The files taken over; diagnoses of cells that are not among ``cells`` are left alone.

    Raises:
        DataError: One is damaged.
        CompatibilityError: One is of another result of its cell, or is not the one that is there already.
    """
    results = {(cell.seed, cell.arm): cell for cell in cells}
    taken = []
    for folder in folders:
        place = folder.parent if folder.name == CELLS else folder
        for file in sorted((place / DIAGNOSES).glob("*.json")):
            diagnosis = read_diagnosis(file)
            cell = results.get((diagnosis.seed, diagnosis.arm))
            if cell is None:
                continue
            _check(diagnosis, cell, file)
            target = diagnosis_path(out, cell.seed, cell.arm)
            if not target.exists():
                taken.append(write_diagnosis(out, diagnosis))
            elif replace(read_diagnosis(target), software={}) != replace(diagnosis, software={}):
                raise CompatibilityError(
                    f"{file} and {target} are different diagnoses of the same cell.", "Delete one of them."
                )
    return taken


def check_fresh(diagnoses: Sequence[Diagnosis]) -> None:
    """Refuse to compare arms of a seed that were diagnosed on different rollouts.

    Raises:
        CompatibilityError: They were.
    """
    for seed in sorted({item.seed for item in diagnoses}):
        members = [item for item in diagnoses if item.seed == seed]
        if len({item.fresh for item in members}) > 1:
            numbers = sorted({item.samples for item in members})
            raise CompatibilityError(
                f"The arms of seed {seed} were diagnosed on different fresh rollouts"
                + (f" ({' and '.join(map(str, numbers))} a state)." if len(numbers) > 1 else "."),
                f"Delete {DIAGNOSES}/{seed}-*.json and diagnose all arms of the seed on one machine, with the same "
                "--diagnosis-samples.",
            )
