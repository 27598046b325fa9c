"""The Parquet tables of a LeRobotDataset: steps, episodes, tasks."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grape.store.lerobot.layout import Columns

__all__ = ["StepTables", "write_episodes", "write_tasks"]


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
