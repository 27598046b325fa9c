"""The couples that raters are shown: episodes of one task, instruction and initial state."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grape.agreement import Source, read_sources
from grape.core.errors import DataError
from grape.core.runs import is_complete, load_summary, recorded_inputs
from grape.core.trajectories import EpisodeMeta
from grape.labeling.choosing import uncertainty
from grape.store import EpisodeStore

__all__ = ["Candidates", "candidates_of_scores", "candidates_of_store", "distinct_opinions"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Couples that could be shown.

    Attributes:
        names: Ids of both episodes of each.
        states: Number of each couple's initial state.
        uncertain: How little is known of each, in [0, 1], ``(C,)``.
        store: Where the episodes are.
        sources: Whose opinions that rests on; none where nothing tells couples apart.
    """

    names: tuple[tuple[str, str], ...]
    states: tuple[int, ...]
    uncertain: Floats
    store: EpisodeStore
    sources: tuple[str, ...] = ()


def candidates_of_scores(run: Path, warn: Callable[[str], None]) -> tuple[Candidates, Path]:
    """Couples of scored episodes; uncertain are those on which sources contradict one another, or differ little.

    Sources are success, the score and its terms, further scorers, and judges of pairs that were made of these scores:
    those of :func:`distinct_opinions`.

    Args:
        run: A folder of ``grape score``, or one that holds it.
        warn: Hears of what does not count.

    Returns:
        The couples, and the folder of scores.

    Raises:
        DataError: There are no scores or several, a file is damaged, or no initial state has two episodes.
        CompatibilityError: The store has changed since it was scored.
    """
    couples, sources = read_sources(run, warn=warn)
    margins = np.array([couples.scores[one].gcpg - couples.scores[other].gcpg for one, other in couples.names])
    counted = distinct_opinions(sources, _labels_without_opinion((run, couples.folder.parent)))
    uncertain = uncertainty([source.order for source in counted], margins)
    labels = tuple(source.label for source in counted)
    return Candidates(couples.names, couples.states, uncertain, couples.store, labels), couples.folder


def distinct_opinions(sources: Sequence[Source], left_out: Iterable[str] = ()) -> list[Source]:
    """Sources that say something of their own: judges of these labels are left out, and equal opinions count once.

    Args:
        sources: Success first, as :func:`grape.agreement.read_sources` has them.
        left_out: Labels of judges.
    """
    labels = set(left_out)
    counted: list[Source] = []
    for source in sources:
        if source.kind == "judge" and source.label.partition(" (judge")[0] in labels:
            continue
        copies = (
            other for other in counted if other.kind != "outcome" and np.array_equal(other.order, source.order, True)
        )
        if next(copies, None) is None:
            counted.append(source)
    return counted


def _labels_without_opinion(roots: Iterable[Path]) -> set[str]:
    """Judges that draw, that repeat people's votes (they would choose what people see), or recorded values."""
    labels = set()
    for place in {
        marker.parent for root in roots for depth in range(3) for marker in root.glob("*/" * depth + "run.json")
    }:
        identity = (recorded_inputs(place, "pair") or {}).get("judge") if is_complete(place) else None
        if isinstance(identity, dict) and (
            "votes" in identity or identity.get("name") in ("random", "score", "success")
        ):
            about = load_summary(place, "pair").get("judge")
            labels.add(str(about.get("label", place.name)) if isinstance(about, dict) else place.name)
    return labels


def candidates_of_store(path: Path) -> Candidates:
    """Couples of recorded episodes, all alike uncertain: an order by outcomes would tell raters the outcomes.

    Args:
        path: An episode store, or a folder that ``grape collect`` wrote.

    Raises:
        DataError: The store is missing or damaged, or no initial state has two episodes.
    """
    store = EpisodeStore.open(path)
    states: dict[tuple[str, int, str], list[EpisodeMeta]] = {}
    for meta in store.metas():
        states.setdefault((meta.task, meta.initial_state, meta.instruction), []).append(meta)
    names: list[tuple[str, str]] = []
    numbers: list[int] = []
    for number, (_, members) in enumerate(sorted(states.items())):
        for one, other in itertools.combinations(members, 2):
            names.append((one.episode_id, other.episode_id))
            numbers.append(number)
    if not names:
        raise DataError(f"{store.path}: no initial state has two episodes.", "Collect more --samples of each one.")
    return Candidates(tuple(names), tuple(numbers), np.ones(len(names)), store)
