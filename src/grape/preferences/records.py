"""Folders and lines of scores and pairs, read back strictly: a wrong line is named, nothing is guessed."""

import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grape.core.errors import DataError
from grape.core.files import iterate_jsonl, read_jsonl
from grape.core.preferences import PreferencePair, Score
from grape.core.reading import decode, encode, open_file, parse_json
from grape.core.remote.mirror_names import address_in_mirror, address_led_to, are_in_one_mirror
from grape.core.repositories import address_in_cache, is_address, local_folder
from grape.core.runs import load_summary
from grape.scorers import ScorerValues, is_label, load_values
from grape.store import EpisodeStore

__all__ = [
    "PAIRS_FILE",
    "SCORERS_FOLDER",
    "SCORES_FILE",
    "ScoreFile",
    "load_pairs",
    "load_scorer_values",
    "load_scores",
    "open_scores",
    "pair_to_row",
    "portable_path",
    "read_pairs",
    "read_scores",
    "recorded_stores",
    "score_to_row",
    "score_with_curves_to_row",
    "store_reference",
    "stores_of_summary",
]

SCORES_FILE = "scores.jsonl"
PAIRS_FILE = "pairs.jsonl"
SCORERS_FOLDER = "scorers"

_FIX = "Do not edit the file; delete its folder and run the verb that writes it again."


def score_to_row(score: Score) -> dict[str, Any]:
    """JSON value of a score without its curves, which have a file of their own (:mod:`grape.preferences.curves`)."""
    row = score_with_curves_to_row(score)
    for stage in row["stages"]:
        for constraint in stage["constraints"]:
            del constraint["curve"]
    return row


def score_with_curves_to_row(score: Score) -> dict[str, Any]:
    """JSON value of a score with its curves to five digits, as releases wrote it that had no file of curves."""
    row: dict[str, Any] = encode(score)
    if not row["external"]:
        del row["external"]
    for stage in row["stages"]:
        if stage["position"] is None:
            del stage["position"]
        for constraint in stage["constraints"]:
            constraint["curve"] = [float(f"{value:.5g}") for value in constraint["curve"]]
    return row


def pair_to_row(pair: PreferencePair) -> dict[str, Any]:
    """JSON value of a pair; the fields that release 0.1 did not have are left out where they say nothing."""
    row: dict[str, Any] = encode(pair)
    for name, default in (("weight", 1.0), ("chosen_steps", None), ("rejected_steps", None)):
        if row[name] == default:
            del row[name]
    return row


class ScoreFile(Mapping[str, Score]):
    """Scores of a file by episode id, of which memory holds what ranks them: stages are read when they are asked for.

    Args:
        path: The file; all of it is read and checked once.

    Attributes:
        folder: The folder that it lies in.
        brief: The scores without their stages, in the file's order.

    Raises:
        DataError: As :func:`load_scores`.
    """

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        self._path = path
        self._places: dict[str, int] = {}
        self.brief: dict[str, Score] = {}
        tasks: dict[str, str] = {}
        for place, score in _checked_scores(path):
            terms = {sys.intern(name): value for name, value in score.terms.items()}
            task = tasks.setdefault(score.task, score.task)
            self.brief[score.episode_id] = dataclasses.replace(score, task=task, terms=terms, stages=())
            self._places[score.episode_id] = place

    def __len__(self) -> int:
        return len(self.brief)

    def __iter__(self) -> Iterator[str]:
        return iter(self.brief)

    def __getitem__(self, episode_id: str) -> Score:
        place = self._places[episode_id]
        with open_file(self._path, within=self._path.parent) as handle:
            handle.seek(place)
            line = handle.readline()
        score = decode(Score, parse_json(line, str(self._path), hint=_FIX), str(self._path), _FIX)
        if score.episode_id != episode_id:
            raise DataError(f"{self._path} has changed while it was read.", _FIX)
        return score


def load_scores(path: Path) -> dict[str, Score]:
    """Scores of a file by episode id, in the file's order.

    Raises:
        DataError: The file is missing, or a line is no score, repeats an episode or has other terms; file and line are
            named.
    """
    return {score.episode_id: score for _, score in _checked_scores(path)}


def _checked_scores(path: Path) -> Iterator[tuple[int, Score]]:
    """Scores of a file with the places of their lines, read one after another; errors as :func:`load_scores`."""
    known: set[str] = set()
    expected: list[str] | None = None
    for number, (place, row) in enumerate(iterate_jsonl(path, hint=_FIX, within=path.parent), start=1):
        score = decode(Score, row, f"{path}, line {number}", _FIX)
        if score.episode_id in known:
            raise DataError(f"{path}, line {number}: episode {score.episode_id} has a score already.", _FIX)
        known.add(score.episode_id)
        expected = list(score.terms) if expected is None else expected
        if score.terms.keys() != set(expected):
            raise DataError(
                f"{path}, line {number}: the score has the terms {', '.join(score.terms)}, the first one of the file "
                f"{', '.join(expected)}.",
                _FIX,
            )
        yield place, score


def load_scorer_values(folder: Path, summary: Mapping[str, Any]) -> dict[str, ScorerValues]:
    """Values of all further scorers from a folder of ``grape score``, by label.

    Args:
        folder: The folder.
        summary: Its summary.

    Raises:
        DataError: A file is missing or damaged, or the summary says nothing usable of it.
    """
    scorers = summary.get("scorers", {})
    # A label is part of a path: one that climbs out of the folder is none.
    if not isinstance(scorers, Mapping) or not all(
        is_label(label) and isinstance(part, Mapping) for label, part in scorers.items()
    ):
        raise DataError(f"{folder / 'done.json'} says nothing usable about scorers.", "Run 'grape score' again.")
    place = folder / SCORERS_FOLDER
    return {label: load_values(place / f"{label}.jsonl", label, part, folder) for label, part in scorers.items()}


def load_pairs(path: Path) -> tuple[PreferencePair, ...]:
    """Pairs of a file.

    Raises:
        DataError: The file is missing, or a line is no pair, repeats an id or compares nothing; file and line are
            named.
    """
    pairs: dict[str, PreferencePair] = {}
    for number, row in enumerate(read_jsonl(path, hint=_FIX, within=path.parent), start=1):
        pair = decode(PreferencePair, row, f"{path}, line {number}", _FIX)
        if pair.pair_id in pairs:
            raise DataError(f"{path}, line {number}: pair {pair.pair_id} is there already.", _FIX)
        if pair.chosen == pair.rejected:
            raise DataError(f"{path}, line {number}: episode {pair.chosen} is paired with itself.", _FIX)
        ranges = [steps for steps in (pair.chosen_steps, pair.rejected_steps) if steps is not None]
        if pair.weight < 0 or not all(0 <= start < stop for start, stop in ranges):
            raise DataError(f"{path}, line {number}: its weight is negative, or it compares no control steps.", _FIX)
        pairs[pair.pair_id] = pair
    return tuple(pairs.values())


def read_pairs(folder: Path | str) -> tuple[PreferencePair, ...]:
    """Pairs from a folder of ``grape pair``, or from ``hf://NAMESPACE/NAME``.

    Raises:
        DataError: The folder is missing, incomplete or foreign, or a line is wrong; file and line are named.
    """
    folder = local_folder(folder)
    load_summary(folder, "pair")
    return load_pairs(folder / PAIRS_FILE)


def recorded_stores(folder: Path | str, verb: str = "pair") -> tuple[Path, ...]:
    """The episode stores that a folder of ``grape pair`` (or ``score``) was made from.

    Raises:
        DataError: The folder is missing, incomplete or foreign.
    """
    folder = local_folder(folder)
    return stores_of_summary(load_summary(folder, verb), folder, verb)


def stores_of_summary(summary: Mapping[str, Any], folder: Path, verb: str) -> tuple[Path, ...]:
    """The episode stores that the summary of ``verb`` in ``folder`` names: ``store``, or several ``stores``.

    Each is a folder, or ``hf://...``.

    Raises:
        SettingsError: The hub does not give the one that is named.
        DataError: It names none.
    """
    names = summary.get("stores", [summary.get("store")])
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{folder / 'done.json'} names no episode store.", f"Run 'grape {verb}' again.")
    return tuple(_place(name, folder, verb) for name in names)


def _place(name: str, folder: Path, verb: str) -> Path:
    if is_address(name):
        return local_folder(name)
    if address := address_led_to(folder, name):  # the folder is mirrored without the run that it is a part of
        return local_folder(address)
    try:
        path = (folder.resolve() / name).resolve()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL character; RuntimeError: a loop of links
        raise DataError(
            f"{folder / 'done.json'} names an episode store that cannot be: {name!r:.60}.",
            f"Run 'grape {verb}' again.",
        ) from error
    return path


def portable_path(path: Path, folder: Path) -> str:
    """``path`` as seen from ``folder``, so that both may be moved together; absolute if they share only the root.

    A snapshot of the hub is named ``hf://organization/name@commit``, a folder of another mirror by its address. From a
    mirror no relative path leads to a folder that has no address: other machines have mirrors in other places.
    """
    if not are_in_one_mirror(path, folder):
        if address := address_in_cache(path):
            return address
        if address_in_mirror(folder):
            return str(path.resolve())
    path, folder = path.resolve(), folder.resolve()
    shared = Path(os.path.commonpath([path, folder]))
    return str(path) if shared == shared.parent else Path(os.path.relpath(path, folder)).as_posix()


def store_reference(store: EpisodeStore, folder: Path) -> dict[str, Any]:
    """What a run in ``folder`` records of where the episodes are: ``store``, or ``stores`` where there are several."""
    places = [portable_path(part.path, folder) for part in store.parts]
    return {"store": places[0]} if len(places) == 1 else {"stores": places}


def read_scores(folder: Path) -> dict[str, Score]:
    """Scores by episode id from a folder of ``grape score``.

    Raises:
        DataError: The folder is missing, incomplete or foreign, or a line is wrong; file and line are named.
    """
    load_summary(folder, "score")
    return load_scores(folder / SCORES_FILE)


def open_scores(folder: Path) -> ScoreFile:
    """The same, of which memory holds what ranks them alone."""
    load_summary(folder, "score")
    return ScoreFile(folder / SCORES_FILE)
