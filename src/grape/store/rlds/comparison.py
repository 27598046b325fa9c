"""Bit-for-bit comparison of a written data set with its source."""

from collections.abc import Iterable, Mapping

import numpy as np

from grape.core.errors import DataError
from grape.store.rlds.dataset import RldsDataset
from grape.store.rlds.features import Column, ImageFeature
from grape.store.rlds.images import EncodedImages

__all__ = ["compare_split"]


def compare_split(dataset: RldsDataset, split: str, expected: Iterable[Mapping[str, Column]]) -> int:
    """Read a split back and compare every column of every episode, in order.

    Args:
        dataset: What was written.
        split: Which part.
        expected: Columns by full path as they were handed to the writer; images as pixels.

    Returns:
        Number of episodes.

    Raises:
        DataError: Something differs, is missing or cannot be read; the record and the column are named.
    """
    count = 0
    episodes_read = dataset.read(split)
    for expected_columns in expected:
        episode = next(episodes_read, None)
        if episode is None:
            raise DataError(f"{dataset.path}, split '{split}': only {count} episodes came back.")
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
        count += 1
    if next(episodes_read, None) is not None:
        raise DataError(f"{dataset.path}, split '{split}': more than {count} episodes came back.")
    return count


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
