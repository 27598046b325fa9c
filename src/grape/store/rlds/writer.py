"""Writing RLDS data sets in the layout of TensorFlow Datasets, so that ``tfds.builder_from_directory`` reads them.

One data set is a version folder: TFRecord files, ``features.json`` and, last of all, ``dataset_info.json``. Equal
episodes give equal bytes. The folder should not carry its final name while it grows: see
:mod:`grape.core.atomic_folders`.
"""

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from grape.core.errors import DataError, SettingsError
from grape.core.files import sync_folder, write_json, write_text
from grape.store.rlds.description import FILE_TEMPLATE, shard_name
from grape.store.rlds.example import encode_example
from grape.store.rlds.features import Column, FeatureTree
from grape.store.rlds.tfrecord import frame_record

__all__ = ["VERSION", "RldsWriter", "TrainValSplit", "encode_columns", "shard_lengths"]

VERSION = "1.0.0"
"""Version folder of the data sets written here."""


def shard_lengths(episodes: int, shards: int) -> list[int]:
    """Episodes of each file when ``episodes`` are dealt to ``shards`` files in order, as evenly as possible."""
    count = max(1, min(shards, episodes))
    return [(index + 1) * episodes // count - index * episodes // count for index in range(count)]


def encode_columns(features: FeatureTree, columns: Mapping[str, Column]) -> bytes:
    """The record of one episode.

    Args:
        features: The data set's columns.
        columns: Those of the episode by full path, see :meth:`RldsWriter.write_split`.

    Raises:
        DataError: They do not fit the features.
    """
    leaves = {f"steps/{path}": leaf for path, leaf in features.steps.items()} | dict(features.episode)
    if columns.keys() != leaves.keys():
        odd = ", ".join(sorted(columns.keys() ^ leaves.keys()))
        raise DataError(f"The columns of an episode do not fit features.json: {odd} missing or unknown.")
    lengths = {len(column) for path, column in columns.items() if path.startswith("steps/")}
    if len(lengths) != 1:
        raise DataError(f"The columns of an episode have {sorted(lengths)} steps; they must agree.")
    return encode_example({path: leaf.encode(columns[path], f"Column '{path}'") for path, leaf in leaves.items()})


class RldsWriter:
    """Writes one data set, a split after the other, then :meth:`finish`.

    Args:
        folder: The version folder; made here.
        name: Name of the data set and prefix of its files.
        features: Its columns.
        description: A sentence for people.
    """

    def __init__(self, folder: Path, name: str, features: FeatureTree, description: str = "") -> None:
        self.folder, self.features = folder, features
        self._name, self._description = name, description
        self._splits: list[dict[str, Any]] = []
        folder.mkdir(parents=True)

    def write_split(self, split: str, episodes: Iterable[Mapping[str, Column]], lengths: Sequence[int]) -> None:
        """Write one split.

        Args:
            split: Its name.
            episodes: Columns of each episode by full path: ``steps/action`` ``(T, D)``, ``episode_metadata/file_path``
                with one item, and so on; exactly those of the features.
            lengths: Episodes of each file, see :func:`shard_lengths`; their sum is the number of episodes.

        Raises:
            DataError: An episode does not fit the features, or there are more or fewer than ``lengths`` tells.
            OSError: The disk is full or the folder cannot be written.
        """
        self.write_records(split, (encode_columns(self.features, columns) for columns in episodes), lengths)

    def write_records(self, split: str, payloads: Iterable[bytes], lengths: Sequence[int]) -> None:
        """Write one split of episodes that are encoded already.

        Args:
            split: Its name.
            payloads: What :func:`encode_columns` gave of each episode.
            lengths: Episodes of each file, see :func:`shard_lengths`; their sum is the number of episodes.

        Raises:
            DataError: There are more or fewer episodes than ``lengths`` tells.
            OSError: The disk is full or the folder cannot be written.
        """
        source, num_bytes = iter(payloads), 0
        for index, length in enumerate(lengths):
            path = self.folder / shard_name(FILE_TEMPLATE, self._name, split, index, len(lengths))
            with path.open("wb") as handle:
                for _ in range(length):
                    payload = next(source, None)
                    if payload is None:
                        raise DataError(f"Split '{split}' has fewer than the {sum(lengths)} episodes announced.")
                    handle.write(frame_record(payload))
                    num_bytes += len(payload)
                handle.flush()
                os.fsync(handle.fileno())
        if next(source, None) is not None:
            raise DataError(f"Split '{split}' has more than the {sum(lengths)} episodes announced.")
        self._splits.append(
            {
                "filepathTemplate": FILE_TEMPLATE,
                "name": split,
                "numBytes": str(num_bytes),
                "shardLengths": [str(length) for length in lengths],
            }
        )

    def finish(self) -> None:
        """Write the description: the data set is complete.

        Raises:
            GrapeError: The disk is full or the folder cannot be written.
        """
        write_text(self.folder / "features.json", self.features.to_json())
        write_json(
            self.folder / "dataset_info.json",
            {
                "description": self._description,
                "fileFormat": "tfrecord",
                "moduleName": "grape.store.rlds",
                "name": self._name,
                "releaseNotes": {VERSION: "Initial release."},
                "splits": self._splits,
                "version": VERSION,
            },
        )
        sync_folder(self.folder)


T = TypeVar("T")


@dataclass(frozen=True)
class TrainValSplit:
    """How episodes are dealt to splits and files.

    Attributes:
        val_fraction: Share of the groups that goes to ``val``, in [0, 1); above 0, at least one goes.
        shards: Files a split, 1 or more.
        seed: Seed of the choice of ``val``.
    """

    val_fraction: float = 0.05
    shards: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.shards < 1:
            raise SettingsError(f"--shards is {self.shards}.", "It must be at least 1.")
        if not 0 <= self.val_fraction < 1:
            raise SettingsError(f"--val-fraction is {self.val_fraction}.", "It must lie between 0 and 1.")

    def splits(self, items: Sequence[T], groups: Sequence[Hashable]) -> Mapping[str, list[T]]:
        """Items in their order as ``{"train": [...], "val": [...]}``, neither of them empty.

        Args:
            items: What is divided.
            groups: Of each item, what stays together: task and initial state. A lone group is split between both.

        Raises:
            DataError: There are too few items for two parts.
        """
        if not self.val_fraction:
            return {"train": list(items)}
        distinct_groups = list(dict.fromkeys(groups))
        if len(distinct_groups) < 2:
            groups = range(len(items))
            distinct_groups = list(groups)
        if len(distinct_groups) < 2:
            raise DataError(
                "One episode or pair cannot be divided into the splits train and val.", "Collect from more states."
            )
        count = min(len(distinct_groups) - 1, max(1, round(self.val_fraction * len(distinct_groups))))
        chosen = np.random.default_rng(self.seed).permutation(len(distinct_groups))[:count]
        held_out = {distinct_groups[index] for index in chosen}
        return {
            "train": [item for item, group in zip(items, groups, strict=True) if group not in held_out],
            "val": [item for item, group in zip(items, groups, strict=True) if group in held_out],
        }

    def lengths(self, splits: Mapping[str, Sequence[T]]) -> dict[str, list[int]]:
        """Episodes of each file, by split."""
        return {name: shard_lengths(len(part), self.shards) for name, part in splits.items()}
