"""Reading RLDS data sets as TFDS lays them out on disk, without TensorFlow.

A data set is streamed: at any time one episode is in memory (its images still encoded), plus the shuffle buffer
where one is asked for. Several workers can read one data set, each its own share. Damage is never passed over: the
file and the record are named.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from grape.core.errors import DataError, SettingsError, did_you_mean
from grape.store.rlds.description import Description, Shard, find_version, read_description
from grape.store.rlds.example import Value, decode_example
from grape.store.rlds.features import Column, FeatureTree, Leaf, Tensor, Unknown, read_features
from grape.store.rlds.tfrecord import read_record_at, read_records, record_starts

__all__ = ["Columns", "Episode", "RldsDataset", "open_rlds"]

SHUFFLE_BYTES = 256 << 20
"""Default bound of the shuffle buffer, in bytes of encoded episodes."""

_Item = tuple[int, str, bytes | bytearray]
"""Index, place and payload of an episode."""

_CUT = "The file is cut, or belongs to another release of the data set: fetch it again."


class Columns(Mapping[str, Column]):
    """Columns of an episode by path, each decoded (and checked) when it is asked for.

    Args:
        leaves: What there is.
        values: What the record holds, by full key.
        prefix: What stands before the path in the record, e.g. ``steps/``.
        where: File and record, for messages.
        length: How many items each column must have; None where the first one tells.
    """

    def __init__(
        self, leaves: Mapping[str, Leaf], values: Mapping[str, Value], prefix: str, where: str, length: int | None
    ) -> None:
        self._leaves, self._values, self._prefix, self._where, self._length = leaves, values, prefix, where, length

    def __getitem__(self, path: str) -> Column:
        if path not in self._leaves:
            raise DataError(f"{self._where} has no column '{path}'.", did_you_mean(path, self._leaves))
        key, where = self._prefix + path, f"{self._where}, column '{path}'"
        leaf = self._leaves[path]
        if isinstance(leaf, Tensor) and 0 in leaf.shape and self._length is not None:
            return np.zeros((self._length, *leaf.shape), dtype=leaf.dtype)
        if key not in self._values:
            raise DataError(f"{where} is missing from the record, though features.json lists it.")
        column = leaf.decode(self._values[key], where)
        if self._length is not None and len(column) != self._length:
            raise DataError(f"{where} has {len(column)} items, its neighbors {self._length}.")
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self._leaves)

    def __len__(self) -> int:
        return len(self._leaves)


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode of an RLDS data set.

    Attributes:
        index: Position in its split, in the order of the files.
        where: File and record, for messages.
        length: Number of steps ``T``.
        steps: Columns of the steps by path, e.g. ``action`` ``(T, 7)``, ``observation/image``.
        facts: Columns of the episode as a whole, one item each, e.g. ``episode_metadata/file_path``.
    """

    index: int
    where: str
    length: int
    steps: Columns
    facts: Columns

    @property
    def file_path(self) -> str:
        """Column ``episode_metadata/file_path``: the source, in pair sets the pair; empty where there is none."""
        path = "episode_metadata/file_path"
        return str(self.facts[path][0]) if path in self.facts else ""

    def check(self) -> None:
        """Decode everything, images too.

        Raises:
            DataError: Something cannot be decoded or does not fit.
        """
        for columns in (self.steps, self.facts):
            for column in columns.values():
                if not isinstance(column, np.ndarray | list):
                    column.decode()


@dataclass(frozen=True)
class RldsDataset:
    """An RLDS data set on disk. Use :func:`open_rlds`.

    Attributes:
        path: The version folder.
        description: Name, version and splits.
        features: The columns.
    """

    path: Path
    description: Description
    features: FeatureTree
    _starts: dict[Path, list[int] | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def length(self, split: str) -> int:
        """Number of episodes of a split (see :meth:`read`), from ``dataset_info.json``."""
        return sum(shard.episodes for shard in self._shards(split))

    def read(
        self,
        split: str = "train",
        *,
        shuffle_seed: int | None = None,
        shuffle_bytes: int = SHUFFLE_BYTES,
        worker: int = 0,
        workers: int = 1,
    ) -> Iterator[Episode]:
        """Episodes of a split.

        Args:
            split: Name of a split; ``all`` is every split one after the other, as TFDS has it.
            shuffle_seed: None keeps the order of the files. Otherwise files are taken in random order and episodes
                leave through a buffer; equal seeds give equal orders.
            shuffle_bytes: Bound of that buffer, in bytes of encoded episodes.
            worker: This worker's number.
            workers: Among how many the episodes are dealt out: worker ``w`` gets those whose index is ``w`` modulo
                ``workers``.

        Raises:
            SettingsError: There is no such split, or the worker's number is out of range.
            DataError: A file is missing, cut or altered, or holds another number of episodes than it should.
        """
        if not 0 <= worker < workers:
            raise SettingsError(f"Worker {worker} of {workers} workers does not exist.", "Count from 0.")
        shards = self._shards(split)
        starts = np.cumsum([0, *(shard.episodes for shard in shards)]).tolist()
        places = list(zip(shards, starts, strict=False))
        if shuffle_seed is None:
            stream = _stream(places, worker, workers)
        else:
            rng = np.random.default_rng(shuffle_seed)
            order = rng.permutation(len(places)).tolist()
            stream = _shuffled(_stream([places[index] for index in order], worker, workers), rng, shuffle_bytes)
        for index, where, payload in stream:
            yield self._episode(index, where, payload)

    def episode(self, split: str, index: int) -> Episode:
        """One episode of a split by its index. Where the records of its file begin is looked up once a file.

        Raises:
            SettingsError: There is no such split or index.
            DataError: The file is missing, or damaged up to there.
        """
        start = 0
        for shard in self._shards(split):
            if start <= index < start + shard.episodes:
                number = index - start
                record = self._payload_at(shard.path, number)
                if record is not None:
                    return self._episode(index, f"{shard.path}, record {number}", record)
                for record_number, payload in read_records(shard.path, number.__eq__):
                    if payload is not None:
                        return self._episode(index, f"{shard.path}, record {record_number}", payload)
                raise DataError(f"{shard.path} has no record {number}, though dataset_info.json lists it.", _CUT)
            start += shard.episodes
        raise SettingsError(f"{self.path} has no episode {index} in split {split!r}, which has {start}.")

    def check_lengths(self, split: str) -> None:
        """Check by their headers that files hold as many records as ``dataset_info.json`` tells of.

        Raises:
            DataError: One holds more or fewer.
        """
        for shard in self._shards(split):
            starts = record_starts(shard.path)
            if starts is not None and len(starts) != shard.episodes:
                raise _wrong_length(shard, len(starts))

    def _payload_at(self, path: Path, number: int) -> bytes | None:
        """A record of a plain file; None where it must be sought, or what is wrong must be told."""
        try:
            if path not in self._starts:
                self._starts[path] = record_starts(path)
            starts = self._starts[path] or []
            return read_record_at(path, starts[number]) if number < len(starts) else None
        except OSError:
            return None

    def _unfit_to_count(self, path: str) -> tuple[bool, bool, bool, str]:
        """Sort key of columns by how well they tell the number of steps."""
        leaf = self.features.steps[path]
        countless = isinstance(leaf, Unknown) or (isinstance(leaf, Tensor) and 0 in leaf.shape)
        return countless, path != "is_first", path != "action", path

    def _shards(self, split: str) -> Sequence[Shard]:
        splits = self.description.splits
        if split != "all" and split not in splits:
            raise SettingsError(f"{self.path} has no split {split!r}.", did_you_mean(split, [*splits, "all"]))
        return [shard for name, item in splits.items() if split in (name, "all") for shard in item.shards]

    def _episode(self, index: int, where: str, payload: bytes | bytearray) -> Episode:
        try:
            values = decode_example(payload)
        except DataError as error:
            raise DataError(f"{where} is no example: {error.message}", error.hint) from error
        unchecked = Columns(self.features.steps, values, "steps/", where, None)
        measure = min(self.features.steps, key=self._unfit_to_count)
        length = len(unchecked[measure])
        return Episode(
            index,
            where,
            length,
            Columns(self.features.steps, values, "steps/", where, length),
            Columns(self.features.episode, values, "", where, 1),
        )


def open_rlds(path: Path | str) -> RldsDataset:
    """Open an RLDS data set.

    Args:
        path: Folder ``NAME/1.0.0``, or ``NAME`` for its newest version.

    Raises:
        DataError: There is none, or its description is damaged.
        CompatibilityError: The episodes are stored in another format than TFRecord.
    """
    folder = find_version(Path(path))
    return RldsDataset(folder, read_description(folder), read_features(folder / "features.json"))


def _stream(places: Sequence[tuple[Shard, int]], worker: int, workers: int) -> Iterator[_Item]:
    """Index, place and payload of the episodes that are this worker's; ``places``: files first index of each."""
    for shard, start in places:
        selects = functools.partial(_is_mine, start=start, worker=worker, workers=workers)
        count = 0
        for number, payload in read_records(shard.path, selects):
            count = number + 1
            if count > shard.episodes:
                break
            if payload is not None:
                yield start + number, f"{shard.path}, record {number}", payload
        if count != shard.episodes:
            raise _wrong_length(shard, count)


def _wrong_length(shard: Shard, count: int) -> DataError:
    amount = f"only {count}" if count < shard.episodes else f"more than {shard.episodes}"
    return DataError(
        f"{shard.path} holds {amount} of the {shard.episodes} records that dataset_info.json tells of.", _CUT
    )


def _is_mine(number: int, start: int, worker: int, workers: int) -> bool:
    return (start + number) % workers == worker


def _shuffled(stream: Iterator[_Item], rng: np.random.Generator, limit: int) -> Iterator[_Item]:
    """The stream through a buffer of ``limit`` bytes (but at least one episode)."""
    buffer: list[_Item] = []
    buffered_bytes = 0
    for item in stream:
        buffer.append(item)
        buffered_bytes += len(item[2])
        while buffered_bytes > limit and len(buffer) > 1:
            drawn = _draw(buffer, rng)
            buffered_bytes -= len(drawn[2])
            yield drawn
    while buffer:
        yield _draw(buffer, rng)


def _draw(buffer: list[_Item], rng: np.random.Generator) -> _Item:
    place = int(rng.integers(len(buffer)))
    buffer[place], buffer[-1] = buffer[-1], buffer[place]
    return buffer.pop()
