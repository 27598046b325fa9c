"""Bit-for-bit comparison of a written data set with its source."""

from collections.abc import Iterable, Mapping

import numpy as np

from grape.core.errors import DataError
from grape.store.rlds.dataset import RldsDataset
from grape.store.rlds.features import Column, ImageFeature
from grape.store.rlds.images import EncodedImages

__all__ = ["compare_episodes"]


def compare_episodes(dataset: RldsDataset, split: str, first: int, expected: Iterable[Mapping[str, Column]]) -> None:
    """Read episodes of a split back and compare every column of each, in order.

    Args:
        dataset: What was written.
        split: Which part.
        first: Index of the first episode to compare.
        expected: Columns by full path as they were handed to the writer; images as pixels.

    Raises:
        DataError: Something differs, is missing or cannot be read; the record and the column are named.
    """
    for index, expected_columns in enumerate(expected, start=first):
        episode = dataset.episode(split, index)
        both = {f"steps/{path}": episode.steps[path] for path in episode.steps} | dict(episode.facts)
        for path in sorted({*both, *expected_columns}):
            if (
                path not in both
                or path not in expected_columns
                or not _equal(both[path], expected_columns[path], _encoding(dataset, path))
            ):
                raise DataError(
                    f"{episode.where}: column '{path}' does not come back as it was written.",
                    "The disk or the memory of this machine may be faulty; the export was given up.",
                )


def _encoding(dataset: RldsDataset, path: str) -> str:
    leaf = dataset.features.steps.get(path.removeprefix("steps/"))
    return leaf.encoding if isinstance(leaf, ImageFeature) else ""


def _equal(column: Column, expected: Column, encoding: str) -> bool:
    if isinstance(column, EncodedImages) and isinstance(expected, np.ndarray):
        if encoding == "png":
            return bool(np.array_equal(column.decode(), expected))
        leaf = ImageFeature(expected.shape[1:], encoding)
        return list(column.blobs) == list(leaf.encode(expected, "pictures"))  # lossy, but equal images give equal bytes
    if isinstance(column, np.ndarray) and isinstance(expected, np.ndarray):
        return (
            column.dtype == expected.dtype and column.shape == expected.shape and column.tobytes() == expected.tobytes()
        )
    return isinstance(column, list) and column == expected
