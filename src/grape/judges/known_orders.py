"""Couples of recorded episodes whose order is known before any judge is asked."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grape.core.errors import SettingsError
from grape.core.seeds import derive_rng
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.store import EpisodeStore

__all__ = ["JoinedStores", "KnownCouple", "KnownOrder", "known_couples", "recorded_id"]

_PERTURBED = ("noisy", "sloppy", "held-noise")

_MARK = 12  # digits of a checksum that tell episodes of one id apart

KnownOrder = Literal["outcomes", "experts"]
State = tuple[str, int, str]


@dataclass(frozen=True)
class KnownCouple:
    """Two episodes of one initial state.

    Attributes:
        better: Name of the better one.
        worse: Name of the other.
        state: Task, initial state and instruction.
    """

    better: str
    worse: str
    state: State


class JoinedStores:
    """Episodes of several stores under their ids; where two stores have one id, part of the checksum stands before it.

    So no name tells a judge which store an episode is of.

    Args:
        paths: Stores, or folders that ``grape collect`` wrote, of one suite.

    Raises:
        SettingsError: There are none, or they are of several suites.
        DataError: A store is missing or damaged.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise SettingsError("No episodes are named.", "Give one or more stores, e.g. --store runs/rollouts/store.")
        stores = [EpisodeStore.open(path) for path in paths]
        suites = sorted({store.suite for store in stores})
        if len(suites) > 1:
            raise SettingsError(f"The stores are of several suites: {', '.join(suites)}.", "Give those of one suite.")
        self.suite = suites[0]
        self._places: dict[str, tuple[EpisodeStore, str]] = {}
        self._metas: dict[str, EpisodeMeta] = {}
        count = Counter(name for store in stores for name in store.ids())
        for store in stores:
            checksums = store.checksums()
            for meta in store.metas():
                name = meta.episode_id
                if count[name] > 1:
                    name = _shared_name(name, checksums[name])
                self._places[name] = store, meta.episode_id
                self._metas[name] = dataclasses.replace(meta, episode_id=name)

    def checksums(self) -> dict[str, str]:
        """Checksum of each episode by its name here."""
        by_store = {id(store): store.checksums() for store, _ in self._places.values()}
        return {name: by_store[id(store)][episode_id] for name, (store, episode_id) in self._places.items()}

    def meta(self, episode_id: str) -> EpisodeMeta:
        """Facts of one episode."""
        return self._metas[episode_id]

    def metas(self) -> tuple[EpisodeMeta, ...]:
        """Facts of all episodes."""
        return tuple(self._metas.values())

    def read(self, episode_id: str, *, frames: bool = True) -> Trajectory:
        """One episode under its name here."""
        store, name = self._places[episode_id]
        return dataclasses.replace(store.read(name, frames=frames), meta=self._metas[episode_id])


def _shared_name(episode_id: str, checksum: str) -> str:
    return f"{checksum[:_MARK]}/{episode_id}"


def recorded_id(name: str, checksum: str) -> str:
    """The id under which an episode of :class:`JoinedStores` stands in its store.

    Args:
        name: Its name here.
        checksum: Its checksum.
    """
    return name.removeprefix(_shared_name("", checksum))


def known_couples(metas: Iterable[EpisodeMeta], kind: KnownOrder, most: int, seed: int) -> list[KnownCouple]:
    """Couples of one kind, evenly over the initial states, drawn where there are more than ``most``.

    ``outcomes``: a success is better than a failure. ``experts``: an expert of style ``clean`` that succeeded is better
    than one whose actions were perturbed, whether that succeeded or not.

    Args:
        metas: Facts of all episodes.
        kind: Which couples.
        most: How many.
        seed: Of the draw.
    """
    states: dict[State, list[EpisodeMeta]] = {}
    for meta in metas:
        states.setdefault((meta.task, meta.initial_state, meta.instruction), []).append(meta)
    of_states = []
    for state, members in sorted(states.items()):
        couples = [
            KnownCouple(one.episode_id, other.episode_id, state)
            for one, other in itertools.permutations(sorted(members, key=lambda meta: meta.episode_id), 2)
            if _is_known(one, other, kind)
        ]
        order = derive_rng(seed, "judge", "known", kind, *map(str, state)).permutation(len(couples))
        of_states.append([couples[index] for index in order])
    turns = itertools.chain.from_iterable(itertools.zip_longest(*of_states))
    return list(itertools.islice((couple for couple in turns if couple is not None), most))


def _is_known(one: EpisodeMeta, other: EpisodeMeta, kind: str) -> bool:
    """Whether ``one`` is the better one."""
    if kind == "outcomes":
        return one.success is True and other.success is False
    experts = one.actor == other.actor == "expert"
    return experts and one.operator == "clean" and one.success is True and other.operator in _PERTURBED
