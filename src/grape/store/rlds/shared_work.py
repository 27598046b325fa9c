"""Encoding and comparing the episodes of an RLDS data set, in this process or shared among several.

Encoding images takes the time. Workers encode shards of episodes into part files, which this process joins in order; a
record does not depend on its neighbors, so the bytes are those of one process.
"""

import itertools
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grape.core.events import Progress
from grape.mapping import Mapper
from grape.store.rlds.comparison import compare_episodes
from grape.store.rlds.dataset import RldsDataset, open_rlds
from grape.store.rlds.features import Column, FeatureTree
from grape.store.rlds.writer import RldsWriter, encode_columns

__all__ = ["ExportedEpisode", "ReadColumns", "compare_shared", "write_shared"]

_SHARD = 4
"""Episodes that a worker encodes at a time: a second's work or so."""
_PARTS = ".parts"


@dataclass(frozen=True)
class ExportedEpisode:
    """An episode of an export.

    Attributes:
        store: The store that it is in.
        episode_id: Its id.
        file_path: Column ``episode_metadata/file_path``.
        task: Its task, for progress.
    """

    store: Path
    episode_id: str
    file_path: str
    task: str


ReadColumns = Callable[[ExportedEpisode], Mapping[str, Column]]
"""Reads the columns of an episode; an object that can travel to other processes."""


@dataclass(frozen=True)
class _Encoding:
    features: FeatureTree
    read_columns: ReadColumns

    def __call__(self, part: tuple[Path, Sequence[ExportedEpisode]]) -> list[int]:
        """Write the records of a shard into a part file; returns the size of each."""
        path, shard = part
        unfinished = path.with_name(f"{path.name}-{uuid.uuid4().hex}")  # a worker given up for lost may still write its
        sizes = []
        with unfinished.open("wb") as handle:
            for episode in shard:
                sizes.append(handle.write(encode_columns(self.features, self.read_columns(episode))))
        unfinished.rename(path)
        return sizes


class _Comparison:
    def __init__(self, place: Path, split: str, read_columns: ReadColumns) -> None:
        self._place, self._split, self._read_columns = place, split, read_columns
        self._dataset: RldsDataset | None = None  # opened by each process for itself

    def __call__(self, part: tuple[int, Sequence[ExportedEpisode]]) -> None:
        first, shard = part
        self._dataset = self._dataset or open_rlds(self._place)
        compare_episodes(self._dataset, self._split, first, map(self._read_columns, shard))


def write_shared(
    writer: RldsWriter,
    split: str,
    episodes: Sequence[ExportedEpisode],
    lengths: Sequence[int],
    read_columns: ReadColumns,
    mapper: Mapper,
    progress: Progress,
) -> None:
    """Write one split.

    Args:
        writer: Of the data set.
        split: The split's name.
        episodes: In the order of the export.
        lengths: Episodes of each file.
        read_columns: Reads an episode's columns.
        mapper: Where episodes are encoded.
        progress: Advanced once an episode.

    Raises:
        DataError: An episode is damaged or does not fit the features.
        OSError: The disk is full or the folder cannot be written.
    """
    writer.write_records(split, _payloads(writer, episodes, read_columns, mapper, progress), lengths)


def _payloads(
    writer: RldsWriter,
    episodes: Sequence[ExportedEpisode],
    read_columns: ReadColumns,
    mapper: Mapper,
    progress: Progress,
) -> Iterator[bytes]:
    if mapper.is_here:
        for episode in episodes:
            yield encode_columns(writer.features, read_columns(episode))
            progress.advance(note=episode.task)
        return
    folder = writer.folder.absolute() / _PARTS
    folder.mkdir()
    parts = [(folder / str(number), shard) for number, shard in enumerate(mapper.shards(episodes, _SHARD))]
    encoded = mapper.map(_Encoding(writer.features, read_columns), parts)
    for (path, shard), sizes in zip(parts, encoded, strict=True):
        with path.open("rb") as handle:
            for episode, size in zip(shard, sizes, strict=True):
                yield handle.read(size)
                progress.advance(note=episode.task)
        path.unlink()
    shutil.rmtree(folder)


def compare_shared(
    place: Path,
    split: str,
    episodes: Sequence[ExportedEpisode],
    read_columns: ReadColumns,
    mapper: Mapper,
    progress: Progress,
) -> None:
    """Read a split back and compare every column with its source.

    Args:
        place: The data set.
        split: Which split.
        episodes: As they were written.
        read_columns: Reads an episode's columns.
        mapper: Where episodes are compared.
        progress: Advanced once an episode.

    Raises:
        DataError: Something differs, is missing or cannot be read; the record and the column are named.
    """
    open_rlds(place).check_lengths(split)
    shards = mapper.shards(episodes, _SHARD)
    firsts = itertools.accumulate(map(len, shards[:-1]), initial=0)
    comparison = _Comparison(place.absolute(), split, read_columns)
    for shard, _ in zip(shards, mapper.map(comparison, list(zip(firsts, shards, strict=True))), strict=True):
        progress.advance(len(shard), note=shard[-1].task)
