"""Everybody who has an opinion on couples of a run's episodes, in one table."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from grape.core.errors import CompatibilityError, DataError
from grape.core.files import file_hash
from grape.core.preferences import Score
from grape.core.runs import is_complete, load_summary, recorded_inputs
from grape.judges import Judgment, load_judgments
from grape.judges.asking import JUDGMENTS_FILE, combined
from grape.judges.builtin import Difference
from grape.judges.votes import count_votes
from grape.preferences.judging import rankings_of
from grape.preferences.noise import ScoreNoise
from grape.preferences.pairing import states_of
from grape.preferences.records import SCORES_FILE, load_scorer_values, load_scores, stores_of_summary
from grape.store import EpisodeStore, open_stores

__all__ = ["Couples", "Kind", "Source", "find_scores", "judge_folders", "read_sources"]

Floats = npt.NDArray[np.float64]
Kind = Literal["outcome", "score", "scorer", "judge", "rater"]

_DEPTH = 3  # of folders below RUN in which scores and pairs are looked for


@dataclass(frozen=True, eq=False)
class Couples:
    """All couples of episodes that share task, instruction and initial state.

    Attributes:
        names: Ids of both episodes of each.
        states: Number of each couple's initial state, ``C`` of them.
        places: Task and initial state of each number.
        scores: Scores by episode id.
        store: Where the episodes are.
        folder: The folder of scores.
    """

    names: tuple[tuple[str, str], ...]
    states: tuple[int, ...]
    places: tuple[tuple[str, int], ...]
    scores: Mapping[str, Score]
    store: EpisodeStore
    folder: Path


@dataclass(frozen=True, eq=False)
class Source:
    """One opinion.

    Attributes:
        label: What it is called.
        kind: What it is.
        order: 1 where the first side of a couple is better, -1 where the other is, 0 for a tie; NaN where it says
            nothing, ``(C,)``.
        p: Its probability that the first side is better, ``(C,)``; None for who gives none.
    """

    label: str
    kind: Kind
    order: Floats
    p: Floats | None = None

    @property
    def says_something(self) -> bool:
        """Whether it has an opinion on any couple."""
        return bool(np.isfinite(self.order).any())


def read_sources(
    run: Path, votes: Path | None = None, warn: Callable[[str], None] = lambda message: None
) -> tuple[Couples, tuple[Source, ...]]:
    """Success, the score and its terms, further scorers, judges of pairs made of these scores, and raters.

    Success comes first; of the others only those that have an opinion on some couple.

    Args:
        run: A folder of ``grape score``, or one that holds it; folders of ``grape pair`` are looked for in it and
            beside the scores.
        votes: Folder of people's votes.
        warn: Hears of what does not count.

    Raises:
        DataError: There are no scores or several, or a file is damaged.
        CompatibilityError: The store has changed since it was scored.
    """
    folder = find_scores(run)
    summary = load_summary(folder, "score")
    scores = load_scores(folder / SCORES_FILE)
    store = open_stores(stores_of_summary(summary, folder, "score"))
    inputs = recorded_inputs(folder, "score") or {}
    if "episodes" in inputs and inputs["episodes"] != store.digest():
        raise CompatibilityError(
            f"The episodes of {store.place} are others than those that {folder} scored.", "Run 'grape score' again."
        )
    couples = _couples(scores, store, folder)
    noise = ScoreNoise.of_summary(summary, {score.task for score in scores.values()}, str(folder / "done.json"))
    weights: Mapping[str, Any] = summary["calibration"]["weights"]
    values = load_scorer_values(folder, summary)
    rankings = rankings_of(scores, noise, values)
    sources = [Source("success", "outcome", _orders(couples, _of_success(scores)))]
    terms: dict[str, Difference] = {
        "R_self": _of_term(scores, "self", noise.of_self, weights.get("self", 1.0) != 0),
        "R_ext": _of_term(scores, "ext", noise.of_ext, weights.get("ext", 1.0) != 0),
        "R_GCPG": rankings["gcpg"],
    }
    sources += [Source(label, "score", _orders(couples, difference)) for label, difference in terms.items()]
    sources += [Source(label, "scorer", _orders(couples, rankings[label])) for label in values]
    for label, judgments in _judges(run, folder, warn):
        sources.append(_judged(couples, label, "judge", judgments))
    if votes is not None:
        for rater, judgments in count_votes(votes, store.checksums(), warn).items():
            sources.append(_judged(couples, rater, "rater", judgments))
    return couples, _distinct([source for source in sources if source.kind == "outcome" or source.says_something])


def find_scores(run: Path) -> Path:
    """The one folder of ``grape score`` that is ``run`` or lies in it.

    Raises:
        DataError: There is none, or there are several.
    """
    folders = list(_runs(run, "score"))
    if len(folders) == 1:
        return folders[0]
    if not folders:
        raise DataError(f"{run} holds no finished scores.", "Give a folder that 'grape score' wrote, or one around it.")
    names = ", ".join(map(str, folders[:5]))
    raise DataError(f"{run} holds several folders of scores: {names}.", "Give one of them.")


def _runs(folder: Path, verb: str) -> Iterable[Path]:
    """Finished runs of a verb in a folder, sorted; it may be one itself."""
    if is_complete(folder) and recorded_inputs(folder, verb) is not None:
        return [folder]
    markers = (marker for depth in range(1, _DEPTH) for marker in folder.glob("*/" * depth + "run.json"))
    places = sorted(marker.parent for marker in markers)
    return [place for place in places if is_complete(place) and recorded_inputs(place, verb) is not None]


def judge_folders(run: Path, folder: Path, warn: Callable[[str], None] = lambda message: None) -> list[Path]:
    """Finished folders of ``grape pair`` whose judge was asked about episodes with the scores of ``folder``.

    Args:
        run: They are looked for in it, and beside the scores.
        folder: A folder of ``grape score``.
        warn: Hears of judges of other scores.

    Raises:
        DataError: A judge was asked, and the scores are missing.
    """
    runs = dict.fromkeys(place.resolve() for root in (run, folder.parent) for place in _runs(root, "pair"))
    inputs = {place: recorded_inputs(place, "pair") or {} for place in runs}
    judged = [place for place in runs if "judge" in inputs[place]]
    if not judged:  # then nobody needs the hash of a file that may be large
        return []
    scores = file_hash(folder / SCORES_FILE)
    folders = []
    for place in judged:
        if inputs[place].get("scores") == scores:
            folders.append(place)
        else:
            warn(f"The judge of {place} was asked about episodes of other scores: it is left out.")
    return folders


def _judges(run: Path, folder: Path, warn: Callable[[str], None]) -> Iterable[tuple[str, Iterable[Judgment]]]:
    """Label and answers of each judge that was asked about episodes with these very scores."""
    for place in judge_folders(run, folder, warn):
        about = load_summary(place, "pair").get("judge", {})
        label = str(about.get("label", place.name)) if isinstance(about, Mapping) else place.name
        yield label, load_judgments(place / JUDGMENTS_FILE)


def _distinct(sources: list[Source]) -> tuple[Source, ...]:
    """Sources under labels of their own: one whose label is taken says its kind, and its number where that is, too."""
    labels: dict[str, Source] = {}
    for source in sources:
        label = source.label if source.label not in labels else f"{source.label} ({source.kind})"
        number = 2
        while label in labels:
            label = f"{source.label} ({source.kind} {number})"
            number += 1
        labels[label] = replace(source, label=label)
    return tuple(labels.values())


def _couples(scores: Mapping[str, Score], store: EpisodeStore, folder: Path) -> Couples:
    instructions = {meta.episode_id: meta.instruction for meta in store.metas()}
    names: list[tuple[str, str]] = []
    states: list[int] = []
    places: list[tuple[str, int]] = []
    for (task, initial_state, _), members in states_of(scores.values(), instructions).items():
        couples = list(itertools.combinations(sorted(score.episode_id for score in members), 2))
        names += couples
        states += [len(places)] * len(couples)
        places.append((task, initial_state))
    if not names:
        raise DataError(f"{folder}: no initial state has two episodes.", "Collect more --samples of each one.")
    return Couples(tuple(names), tuple(states), tuple(places), scores, store, folder)


def _orders(couples: Couples, difference: Difference) -> Floats:
    leads = (difference(one, other) for one, other in couples.names)
    return np.array([np.nan if lead is None else np.sign(lead) for lead in leads], dtype=np.float64)


def _of_success(scores: Mapping[str, Score]) -> Difference:
    def difference(one: str, other: str) -> float | None:
        first, second = scores[one].success, scores[other].success
        return None if first is None or second is None else float(first) - float(second)

    return difference


def _of_term(
    scores: Mapping[str, Score], name: str, noise: Callable[[Score, Score], float], counted: bool
) -> Difference:
    def known(score: Score) -> bool:
        # Without a specification and another scorer the external reward is 1 for all.
        return score.r_self is not None if name == "self" else bool(score.stages or score.external)

    def difference(one: str, other: str) -> float | None:
        first, second = scores[one], scores[other]
        if not (counted and known(first) and known(second)):
            return None  # no tie: under a weight of 0 the term says nothing
        lead = first.terms.get(name, 0.0) - second.terms.get(name, 0.0)
        return lead if abs(lead) > noise(first, second) else 0.0

    return difference


def _judged(couples: Couples, label: str, kind: Kind, judgments: Iterable[Judgment]) -> Source:
    answers: dict[tuple[str, ...], list[Judgment]] = {}
    for judgment in judgments:
        answers.setdefault(tuple(sorted((judgment.a, judgment.b))), []).append(judgment)
    p = np.full(len(couples.names), np.nan)
    for number, (one, other) in enumerate(couples.names):
        if (one, other) in answers:
            value: Any = combined(answers[one, other], one, other).p
            p[number] = np.nan if value is None else value
    return Source(label, kind, np.sign(p - 0.5), p)
