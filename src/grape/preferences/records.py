"""Folders and lines of scores and pairs, read back strictly: a wrong line is named, nothing is guessed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grape.core.errors import DataError
from grape.core.files import read_jsonl
from grape.core.preferences import PreferencePair, Score
from grape.core.reading import decode, encode
from grape.core.repositories import hub_address, local_folder
from grape.core.runs import load_summary
from grape.scorers import ScorerValues, is_label, load_values

__all__ = [
    "PAIRS_FILE",
    "SCORERS_FOLDER",
    "SCORES_FILE",
    "load_pairs",
    "load_scorer_values",
    "load_scores",
    "pair_to_row",
    "read_pairs",
    "read_scores",
    "recorded_store",
    "score_to_row",
    "store_of_summary",
]

SCORES_FILE = "scores.jsonl"
PAIRS_FILE = "pairs.jsonl"
SCORERS_FOLDER = "scorers"

_FIX = "Do not edit the file; delete its folder and run the verb that writes it again."


def score_to_row(score: Score) -> dict[str, Any]:
    """JSON value of a score. Curves, which are for plots only, keep five digits."""
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


def load_scores(path: Path) -> dict[str, Score]:
    """Scores of a file by episode id, in the file's order.

    Raises:
        DataError: The file is missing, or a line is no score, repeats an episode or has other terms; file and line are
            named.
    """
    scores: dict[str, Score] = {}
    for number, row in enumerate(read_jsonl(path, hint=_FIX, within=path.parent), start=1):
        score = decode(Score, row, f"{path}, line {number}", _FIX)
        if score.episode_id in scores:
            raise DataError(f"{path}, line {number}: episode {score.episode_id} has a score already.", _FIX)
        first = next(iter(scores.values()), score)
        if score.terms.keys() != first.terms.keys():
            raise DataError(
                f"{path}, line {number}: the score has the terms {', '.join(score.terms)}, the first one of the file "
                f"{', '.join(first.terms)}.",
                _FIX,
            )
        scores[score.episode_id] = score
    return scores


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


def recorded_store(folder: Path | str, verb: str = "pair") -> Path:
    """The episode store that a folder of ``grape pair`` (or ``score``) was made from.

    Raises:
        DataError: The folder is missing, incomplete or foreign.
    """
    folder = local_folder(folder)
    return store_of_summary(load_summary(folder, verb), folder, verb)


def store_of_summary(summary: Mapping[str, Any], folder: Path, verb: str) -> Path:
    """The episode store that the summary of ``verb`` in ``folder`` names: a folder, or ``hf://...``.

    Raises:
        SettingsError: The hub does not give the one that is named.
        DataError: It names none.
    """
    store = summary.get("store")
    if not isinstance(store, str):
        raise DataError(f"{folder / 'done.json'} names no episode store.", f"Run 'grape {verb}' again.")
    if hub_address(store) is not None:
        return local_folder(store)
    try:
        path = (folder.resolve() / store).resolve()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL character; RuntimeError: a loop of links
        raise DataError(
            f"{folder / 'done.json'} names an episode store that cannot be: {store!r:.60}.",
            f"Run 'grape {verb}' again.",
        ) from error
    return path


def read_scores(folder: Path) -> dict[str, Score]:
    """Scores by episode id from a folder of ``grape score``.

    Raises:
        DataError: The folder is missing, incomplete or foreign, or a line is wrong; file and line are named.
    """
    load_summary(folder, "score")
    return load_scores(folder / SCORES_FILE)
