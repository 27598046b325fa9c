"""Scores and pairs as lines of JSON, read back strictly: a wrong line is named, nothing is guessed."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from grape.core.errors import DataError
from grape.core.files import read_jsonl
from grape.core.preferences import ConstraintScore, PreferencePair, Score, StageScore

__all__ = ["PAIRS_FILE", "SCORES_FILE", "load_pairs", "load_scores", "pair_to_row", "score_to_row"]

SCORES_FILE = "scores.jsonl"
PAIRS_FILE = "pairs.jsonl"

T = TypeVar("T")


def score_to_row(score: Score) -> dict[str, Any]:
    """JSON value of a score. Curves, which are for plots only, keep five digits."""
    return {
        **vars(score),
        "terms": dict(score.terms),
        "stages": [
            {
                **vars(stage),
                "constraints": [
                    {
                        **vars(constraint),
                        "objectives": list(constraint.objectives),
                        "curve": [float(f"{value:.5g}") for value in constraint.curve],
                    }
                    for constraint in stage.constraints
                ],
            }
            for stage in score.stages
        ],
    }


def pair_to_row(pair: PreferencePair) -> dict[str, Any]:
    """JSON value of a pair."""
    return {**vars(pair), "terms": dict(pair.terms)}


def load_scores(path: Path) -> dict[str, Score]:
    """Scores of a file by episode id, in the file's order.

    Raises:
        DataError: The file is missing, or a line is no score or repeats an episode; file and line are named.
    """
    scores: dict[str, Score] = {}
    for number, row in enumerate(read_jsonl(path, hint=_MEND, within=path.parent), start=1):
        score = _line(path, number, row, _score)
        if score.episode_id in scores:
            raise DataError(f"{path}, line {number}: episode {score.episode_id} has a score already.", _MEND)
        scores[score.episode_id] = score
    return scores


def load_pairs(path: Path) -> tuple[PreferencePair, ...]:
    """Pairs of a file.

    Raises:
        DataError: The file is missing, or a line is no pair or repeats an id; file and line are named.
    """
    pairs: dict[str, PreferencePair] = {}
    for number, row in enumerate(read_jsonl(path, hint=_MEND, within=path.parent), start=1):
        pair = _line(path, number, row, _pair)
        if pair.pair_id in pairs:
            raise DataError(f"{path}, line {number}: pair {pair.pair_id} is there already.", _MEND)
        if pair.chosen == pair.rejected:
            raise DataError(f"{path}, line {number}: episode {pair.chosen} is paired with itself.", _MEND)
        pairs[pair.pair_id] = pair
    return tuple(pairs.values())


_MEND = "Do not edit the file; delete its folder and run the verb that writes it again."


class _WrongFieldError(ValueError):
    """A field holds something else than it should."""


def _line(path: Path, number: int, row: Any, build: Callable[[Any], T]) -> T:
    try:
        return build(row)
    except _WrongFieldError as error:
        raise DataError(f"{path}, line {number}: {error}.", _MEND) from error


def _build(kind: Callable[..., T], what: str, row: Any, fields: Mapping[str, Callable[[Any], Any]]) -> T:
    if not isinstance(row, dict):
        raise _WrongFieldError(f"a {what} is {row!r:.60}, not a mapping")
    if row.keys() != fields.keys():
        odd = ", ".join(sorted(row.keys() ^ fields.keys()))
        raise _WrongFieldError(f"the fields of a {what} do not fit: {odd} missing or unknown")
    values = {}
    for name, convert in fields.items():
        try:
            values[name] = convert(row[name])
        except _WrongFieldError as error:
            raise _WrongFieldError(f"{what}.{name}: {error}") from error
    return kind(**values)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise _WrongFieldError(f"{value!r:.60} is no text")


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _WrongFieldError(f"{value!r:.60} is neither true nor false")


def _flag_or_none(value: Any) -> bool | None:
    return None if value is None else _flag(value)


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise _WrongFieldError(f"{value!r:.60} is no whole number")


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise _WrongFieldError(f"{value!r:.60} is no finite number")


def _number_or_none(value: Any) -> float | None:
    return None if value is None else _number(value)


def _numbers(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise _WrongFieldError(f"{value!r:.60} is no mapping")
    return {name: _number(item) for name, item in value.items()}


def _many(convert: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    def converted(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise _WrongFieldError(f"{value!r:.60} is no list")
        return tuple([convert(item) for item in value])

    return converted


def _constraint(row: Any) -> ConstraintScore:
    return _build(ConstraintScore, "constraint", row, _CONSTRAINT)


def _stage(row: Any) -> StageScore:
    return _build(StageScore, "stage", row, _STAGE)


def _score(row: Any) -> Score:
    return _build(Score, "score", row, _SCORE)


def _pair(row: Any) -> PreferencePair:
    return _build(PreferencePair, "pair", row, _PAIR)


_CONSTRAINT: Mapping[str, Callable[[Any], Any]] = {
    "name": _text,
    "kind": _text,
    "cost": _number,
    "threshold": _number,
    "weight": _number,
    "contribution": _number,
    "unit": _text,
    "objectives": _many(_text),
    "curve": _many(_number),
}
_STAGE: Mapping[str, Callable[[Any], Any]] = {
    "name": _text,
    "start": _whole,
    "end": _whole,
    "reached": _flag,
    "done": _flag,
    "cost": _number,
    "constraints": _many(_constraint),
}
_SCORE: Mapping[str, Callable[[Any], Any]] = {
    "episode_id": _text,
    "task": _text,
    "initial_state": _whole,
    "success": _flag_or_none,
    "steps": _whole,
    "r_self": _number_or_none,
    "r_ext": _number,
    "cost": _number,
    "terms": _numbers,
    "gcpg": _number,
    "stages": _many(_stage),
}
_PAIR: Mapping[str, Callable[[Any], Any]] = {
    "pair_id": _text,
    "task": _text,
    "initial_state": _whole,
    "chosen": _text,
    "rejected": _text,
    "margin": _number,
    "mode": _text,
    "reason": _text,
    "terms": _numbers,
}
