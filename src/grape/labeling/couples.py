"""The couples that raters are shown: episodes of one task, instruction and initial state."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grape.agreement import read_sources
from grape.core.errors import DataError
from grape.core.trajectories import EpisodeMeta
from grape.labeling.choosing import uncertainty
from grape.store import EpisodeStore

__all__ = ["Candidates", "candidates_of_scores", "candidates_of_store"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Couples that could be shown.

    Attributes:
        names: Ids of both episodes of each.
        states: Number of each couple's initial state.
        uncertain: How little is known of each, in [0, 1], ``(C,)``.
        store: Where the episodes are.
    """

    names: tuple[tuple[str, str], ...]
    states: tuple[int, ...]
    uncertain: Floats
    store: EpisodeStore


def candidates_of_scores(run: Path, warn: Callable[[str], None]) -> tuple[Candidates, Path]:
    """Couples of scored episodes; uncertain are those on which sources contradict one another, or differ little.

    Sources are success, the score and its terms, further scorers, and judges of pairs that were made of these scores.

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
    uncertain = uncertainty([source.order for source in sources], margins)
    return Candidates(couples.names, couples.states, uncertain, couples.store), couples.folder


def candidates_of_store(path: Path) -> Candidates:
    """Couples of recorded episodes; uncertain is where a success and a failure do not tell which one is better.

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
    orders: list[float] = []
    for number, (_, members) in enumerate(sorted(states.items())):
        for one, other in itertools.combinations(members, 2):
            names.append((one.episode_id, other.episode_id))
            numbers.append(number)
            known = one.success is not None and other.success is not None
            orders.append(float(bool(one.success)) - float(bool(other.success)) if known else np.nan)
    if not names:
        raise DataError(f"{store.path}: no initial state has two episodes.", "Collect more --samples of each one.")
    return Candidates(tuple(names), tuple(numbers), uncertainty([np.array(orders)]), store)
