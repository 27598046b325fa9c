"""The Parquet tables of a LeRobotDataset: steps, episodes, tasks."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from grape.store.lerobot.layout import Columns

__all__ = [
    "QUANTILES",
    "StepTables",
    "count_values",
    "image_statistics",
    "number_statistics",
    "write_episodes",
    "write_tasks",
]

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def number_statistics(values: npt.NDArray[Any]) -> dict[str, Any]:
    """Statistics of a column ``(N, D)`` or ``(N,)``, in float64: lists of ``D`` numbers, or of one.

    ``min``, ``max``, ``mean``, ``std``, ``count`` and the quantiles (linear interpolation).
    """
    table = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    return {
        "min": table.min(axis=0).tolist(),
        "max": table.max(axis=0).tolist(),
        "mean": table.mean(axis=0).tolist(),
        "std": table.std(axis=0).tolist(),
        "count": [len(table)],
        **{name: np.quantile(table, share, axis=0).tolist() for name, share in QUANTILES.items()},
    }


def count_values(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """How often each value occurs in each channel of images ``(N, H, W, 3)``: int64 ``(3, 256)``."""
    return np.stack([np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)])


def image_statistics(counts: npt.NDArray[np.int64], images: int) -> dict[str, Any]:
    """Statistics of images whose values lie in [0, 1], each of LeRobot's shape ``(3, 1, 1)``.

    Args:
        counts: From :func:`count_values`, summed.
        images: How many images.
    """
    figures: dict[str, list[float]] = {name: [] for name in ("min", "max", "mean", "std", *QUANTILES)}
    levels = np.arange(256) / 255
    for row in counts:
        total, present_levels = row.sum(), np.flatnonzero(row)
        mean = float((row * levels).sum() / total)
        figures["min"].append(float(levels[present_levels[0]]))
        figures["max"].append(float(levels[present_levels[-1]]))
        figures["mean"].append(mean)
        figures["std"].append(float(np.sqrt((row * (levels - mean) ** 2).sum() / total)))
        ends = np.cumsum(row)
        for name, share in QUANTILES.items():
            figures[name].append(_quantile(ends, levels, share * (total - 1)))
    shaped: dict[str, Any] = {name: [[[value]] for value in values] for name, values in figures.items()}
    return shaped | {"count": [images]}


def _quantile(ends: npt.NDArray[np.int64], levels: npt.NDArray[np.float64], place: float) -> float:
    """Value at a place among the sorted values, interpolated linearly; ``ends``: cumulated counts."""
    low = int(np.floor(place))
    below, above = (levels[np.searchsorted(ends, index, side="right")] for index in (low, int(np.ceil(place))))
    return float(below + (place - low) * (above - below))


class StepTables:
    """Writes one Parquet file of steps, a row group an episode.

    Args:
        path: The file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "StepTables":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def bytes(self) -> int:
        """Size of the file so far."""
        return self._path.stat().st_size if self._path.exists() else 0

    def add(self, columns: Columns) -> None:
        """Append an episode's rows."""
        table = pa.table({name: _array(values) for name, values in columns.items()})
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="snappy")
        self._writer.write_table(table)

    def close(self) -> None:
        """The file is complete."""
        if self._writer is not None:
            self._writer.close()


def _array(values: Any) -> pa.Array:
    """Numbers ``(T,)`` as they are, ``(T, D)`` as lists of the fixed length ``D``."""
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def write_tasks(path: Path, instructions: Sequence[str]) -> None:
    """Write ``meta/tasks.parquet``: the number of each instruction, which is the table's index for pandas."""
    table = pa.table({"task_index": pa.array(range(len(instructions)), pa.int64()), "task": pa.array(instructions)})
    columns = [_pandas_column("task_index", "int64", "int64"), _pandas_column("task", "unicode", "object")]
    index = {**_pandas_column("", "unicode", "object"), "name": None, "field_name": None}
    facts = {"index_columns": ["task"], "column_indexes": [index], "columns": columns, "pandas_version": "2.0.0"}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(facts)}), path, compression="snappy")


def _pandas_column(name: str, kind: str, dtype: str) -> dict[str, Any]:
    return {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None}


def write_episodes(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``meta/episodes``: a row an episode, all rows with the same columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([dict(row) for row in rows])
    for number, name in enumerate(table.column_names):
        if pa.types.is_null(table.schema.field(number).type):  # an outcome that is unknown in every episode
            table = table.set_column(number, name, table.column(number).cast(pa.bool_()))
    pq.write_table(table, path, compression="snappy")
