"""What single episodes cost, and how likely the policy found them: all of scoring that looks at trajectories.

The price of an episode depends on itself alone (:meth:`Pricing.price`), so that shards of episodes can be priced in any
order, by any process. With a folder, shards of :data:`EPISODES_PER_SHARD` episodes are files there as soon as they are
priced: memory holds one shard at a time, and a run that was killed goes on with the shards that it lacks.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grape.core.errors import CompatibilityError, DataError
from grape.core.events import Reporter
from grape.core.files import write_bytes
from grape.core.preferences import StageScore
from grape.core.reading import decode, encode, parse_json, record
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.costs import CostSpecification, evaluate, unavailable_constraints, with_unknown_outcome
from grape.mapping import HERE, Mapper
from grape.preferences.curves import CURVES_SCHEMA, EPISODES_PER_GROUP, curves_table
from grape.store import EpisodeStore, OpenedStores
from grape.store.source import Episodes
from grape.store.table_files import read_rows

__all__ = [
    "EPISODES_PER_SHARD",
    "Priced",
    "PricedEpisodes",
    "PricedShards",
    "Pricing",
    "encode_shard",
    "price_episodes",
]

EPISODES_PER_SHARD = EPISODES_PER_GROUP

_FACTS = "priced"  # column of a shard's file: JSON text of an episode's price but for its curves
_FIX = "Delete the folder and run 'grape score' again."


@record
@dataclass(frozen=True)
class Priced:
    """Unweighted terms of one episode.

    Attributes:
        episode_id: The episode.
        r_self: R_self; None where nothing was sampled.
        support: What the log-probabilities are over; empty where nothing was sampled.
        temperature: Their temperature.
        unavailable: Constraints that could not be measured.
        stages: What its stages cost under the thresholds of its specification; empty without one. Stages that were read
            from a shard's file have no curves.
    """

    episode_id: str
    r_self: float | None
    support: str
    temperature: float
    unavailable: tuple[str, ...]
    stages: tuple[StageScore, ...]


@dataclass(frozen=True)
class Pricing:
    """What the prices of episodes depend on beside the episodes.

    Attributes:
        specifications: By task; an episode of another task has no stages.
        price_verdict: Charge failures for the simulator's verdict, which else enters through I_success alone.
        unknown: Task and initial state of episodes of unknown outcome. Known and unknown outcomes of one initial state
            are priced alike, or the unknown would look cheaper.
    """

    specifications: Mapping[str, CostSpecification]
    price_verdict: bool
    unknown: frozenset[tuple[str, int]]

    def price(self, trajectory: Trajectory) -> Priced:
        """The price of an episode.

        Raises:
            DataError: A log-probability is not finite, or something was not recorded that its specification speaks of.
        """
        meta = trajectory.meta
        stages: tuple[StageScore, ...] = ()
        if meta.task in self.specifications:
            with_verdict = self.price_verdict and (meta.task, meta.initial_state) not in self.unknown
            shown = trajectory if with_verdict else with_unknown_outcome(trajectory)
            stages = evaluate(self.specifications[meta.task], shown)
        r_self = _self_reward(trajectory)
        return Priced(
            episode_id=meta.episode_id,
            r_self=r_self,
            support="" if r_self is None else trajectory.support,
            temperature=0.0 if r_self is None else trajectory.logp_temperature,
            unavailable=unavailable_constraints(stages),
            stages=stages,
        )


def _self_reward(trajectory: Trajectory) -> float | None:
    """R_self; None for experts and wherever nothing was sampled."""
    meta = trajectory.meta
    if meta.actor == "expert" or (meta.steps and bool(np.isnan(trajectory.token_logps).all())):
        return None
    if not math.isfinite(trajectory.logp):
        raise DataError(
            f"Episode {meta.episode_id} holds log-probabilities that are not finite.",
            "The policy that recorded it was broken: collect the episode again with a sound one.",
        )
    return trajectory.logp


def encode_shard(priced: Iterable[Priced]) -> bytes:
    """The file of a shard."""
    rows = list(priced)
    curves = curves_table((item.episode_id, item.stages) for item in rows)
    facts = pa.array([json.dumps(encode(_without_curves(item)), allow_nan=False) for item in rows], pa.string())
    sink = pa.BufferOutputStream()
    pq.write_table(
        curves.append_column(_FACTS, facts),
        sink,
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _without_curves(priced: Priced) -> Priced:
    stages = (
        replace(stage, constraints=tuple(replace(item, curve=()) for item in stage.constraints))
        for stage in priced.stages
    )
    return replace(priced, stages=tuple(stages))


class PricedShards:
    """Prices of episodes in the files of their shards; iterating reads them one shard after another.

    Args:
        folder: Where the files are.
        names: Ids of all episodes, in their order.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self._names = names
        self._checked: dict[int, bytes] = {}  # digests of facts by shard: what was checked is not checked again

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Priced]:
        for number in range(self.shards):
            yield from self.read(number)

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-len(self._names) // EPISODES_PER_SHARD)

    def names(self, number: int) -> Sequence[str]:
        """Ids of a shard's episodes."""
        return self._names[number * EPISODES_PER_SHARD : (number + 1) * EPISODES_PER_SHARD]

    def path(self, number: int) -> Path:
        """File of a shard."""
        return self.folder / f"{number:06d}.parquet"

    def find(self, number: int) -> list[Priced]:
        """Prices of a shard's episodes, without curves; none where its file is missing, damaged or of other ones."""
        try:
            return list(self.read(number)) if self.path(number).exists() else []
        except DataError:
            return []

    def write(self, number: int, data: bytes) -> None:
        """Keep a shard, see :func:`encode_shard`; its file appears whole or not at all."""
        write_bytes(self.path(number), data)

    def read(self, number: int) -> Iterator[Priced]:
        """Prices of a shard's episodes, without curves.

        Raises:
            DataError: The file is missing, damaged or of other episodes.
        """
        path = self.path(number)
        columns = read_rows(path, self.folder, ["episode_id", _FACTS])
        if columns["episode_id"].to_pylist() != list(self.names(number)):
            raise DataError(f"{path} holds the prices of other episodes.", _FIX)
        texts: list[str | None] = columns[_FACTS].to_pylist()
        digest = hashlib.sha256(repr(texts).encode(errors="backslashreplace")).digest()
        known = self._checked.get(number) == digest
        for text in texts:
            yield (
                decode(Priced, None, str(path), _FIX, str(text))
                if known
                else decode(Priced, parse_json(str(text), str(path), hint=_FIX), str(path), _FIX)
            )
        self._checked[number] = digest

    def curves(self) -> Iterator[pa.Table]:
        """Curves of all episodes, a table for each shard; see :func:`grape.preferences.curves.write_curves`.

        Raises:
            DataError: A file is missing or damaged.
        """
        for number in range(self.shards):
            columns = read_rows(self.path(number), self.folder, CURVES_SCHEMA.names)
            yield pa.table(columns, schema=CURVES_SCHEMA)


PricedEpisodes = Sequence[Priced] | PricedShards
"""Prices of all episodes in their order."""


def price_episodes(
    episodes: Episodes,
    metas: Sequence[EpisodeMeta],
    pricing: Pricing,
    where: str,
    reporter: Reporter,
    folder: Path | None = None,
    mapper: Mapper = HERE,
) -> PricedEpisodes:
    """Price all episodes.

    Args:
        episodes: Where they are read.
        metas: Facts of them, in the order of the result.
        pricing: What prices depend on.
        where: What messages call the place of the episodes.
        reporter: Hears of progress.
        folder: Where shards are kept, and found if an earlier run kept them; None keeps prices, with their curves, in
            memory.
        mapper: Where shards of a store are priced, if there is a folder for them.

    Raises:
        DataError: An episode cannot be read or priced.
        CompatibilityError: Log-probabilities are of several supports or temperatures.
    """
    names = [meta.episode_id for meta in metas]
    sampled: dict[tuple[str, float], str] = {}
    with reporter.progress("scoring", len(metas)) as progress:
        if folder is None:
            kept: list[Priced] = []
            for name in names:
                trajectory = episodes.read(name, frames=False)
                kept.append(pricing.price(trajectory))
                _check_sampled(kept[-1:], sampled, where)
                progress.advance(note=trajectory.meta.task)
            return kept
        shards, missing = PricedShards(folder, names), list[int]()
        for number in range(shards.shards):
            if priced := shards.find(number):
                _check_sampled(priced, sampled, where)
                progress.advance(len(priced))
            else:
                missing.append(number)
        if missing and not mapper.is_here:
            assert isinstance(episodes, EpisodeStore)  # whose episodes other processes find by path
            parts = [
                (shards.path(number).absolute(), [(episodes.part_of(name).path, name) for name in shards.names(number)])
                for number in missing
            ]
            for number, kinds in zip(missing, mapper.map(_ShardPricing(pricing), parts), strict=True):
                _check_sampled(kinds, sampled, where)
                progress.advance(len(shards.names(number)))
            return shards
        for number in missing:
            priced = []
            for name in shards.names(number):
                trajectory = episodes.read(name, frames=False)
                priced.append(pricing.price(trajectory))
                _check_sampled(priced[-1:], sampled, where)
                progress.advance(note=trajectory.meta.task)
            shards.write(number, encode_shard(priced))
    return shards


@dataclass(frozen=True)
class _ShardPricing:
    """Prices shards of episodes into their files, in any process."""

    pricing: Pricing
    stores: OpenedStores = field(default_factory=OpenedStores)

    def __call__(self, shard: tuple[Path, Sequence[tuple[Path, str]]]) -> list[Priced]:
        """Write the file of a shard of stores and ids; returns an episode of each kind of log-probabilities, bare."""
        path, members = shard
        priced = [self.pricing.price(self.stores.read(place, name, frames=False)) for place, name in members]
        write_bytes(path, encode_shard(priced))
        kinds = {(item.support, item.temperature): item for item in reversed(priced) if item.r_self is not None}
        return [replace(item, unavailable=(), stages=()) for item in reversed(kinds.values())]


def _check_sampled(priced: Iterable[Priced], sampled: dict[tuple[str, float], str], where: str) -> None:
    """Refuse log-probabilities that do not compare; ``sampled`` remembers an episode of each kind.

    Raises:
        CompatibilityError: They are of several supports or temperatures.
    """
    for item in priced:
        if item.r_self is not None:
            sampled.setdefault((item.support, item.temperature), item.episode_id)
    if len(sampled) > 1:
        kinds = [
            f"{name} over the {support} at temperature {temperature:g}"
            for (support, temperature), name in sampled.items()
        ]
        raise CompatibilityError(
            f"The episodes of {where} hold log-probabilities that do not compare: {'; '.join(kinds)}.",
            "Score the episodes of each kind in a store of their own.",
        )
