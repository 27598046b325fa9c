"""Parquet files from outside, read some rows and columns at a time: bounded, nothing is taken at its word."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from grape.core.errors import DataError
from grape.store.opening import open_data, open_parquet, unpacked_limit

__all__ = ["parquet_columns", "parquet_size", "read_rows"]

_MOST_BYTES = 16 * 2**30  # of a file
_MOST_UNPACKED = 64 * 2**30
_RATIO = 200  # columns of equal numbers and whole images of one color compress well
_MOST_ROWS = 2**31
_MOST_COLUMNS = 20_000
_BATCH = 64  # rows that are decoded at once; with images these are some megabytes

_FIX = "Fetch or copy the file again."


def parquet_columns(path: Path, within: Path) -> tuple[str, ...]:
    """Names of a file's columns; errors as :func:`read_rows`."""
    with _opened(path, within) as file:
        return tuple(file.schema_arrow.names)


def parquet_size(path: Path, within: Path) -> int:
    """Number of a file's rows; errors as :func:`read_rows`."""
    with _opened(path, within) as file:
        return int(file.metadata.num_rows)


def read_rows(
    path: Path, within: Path, columns: Sequence[str], first: int = 0, count: int | None = None
) -> dict[str, pa.ChunkedArray]:
    """Some columns of some consecutive rows; of the row groups before and behind nothing is read.

    Args:
        path: The file.
        within: The folder that links may not lead out of; see :func:`grape.core.reading.allowed_root`.
        columns: Their names.
        first: Number of the first row.
        count: How many rows; None for all that follow.

    Raises:
        DataError: The file is missing, truncated or damaged, announces more than it can hold, or lacks a column or
            rows.
    """
    with _opened(path, within) as file:
        names = file.schema_arrow.names
        for name in columns:
            if names.count(name) != 1:
                problem = "has no column" if name not in names else "has several columns"
                raise DataError(f"{path} {problem} {name!r}.", _FIX)
        rows = file.metadata.num_rows
        stop = rows if count is None else first + count
        if stop > rows:
            raise DataError(f"{path} has {rows:,} rows; rows {first:,} to {stop - 1:,} are due in it.", _FIX)
        groups, skipped, start = [], 0, 0
        for number in range(file.metadata.num_row_groups):
            end = start + file.metadata.row_group(number).num_rows
            if start < stop and end > first:
                groups.append(number)
            elif end <= first:
                skipped = end
            start = end
        parts = []
        position = skipped
        for batch in file.iter_batches(_BATCH, row_groups=groups, columns=list(columns), use_threads=False):
            low, high = max(first, position), min(stop, position + batch.num_rows)
            if low < high:
                parts.append(batch.slice(low - position, high - low))
            position += batch.num_rows
            if position >= stop:
                break
        table = pa.Table.from_batches(parts, parts[0].schema) if parts else file.schema_arrow.empty_table()
        if table.num_rows != stop - first:
            raise DataError(f"{path} holds {table.num_rows:,} of the {stop - first:,} rows that it announces.", _FIX)
        return {name: table.column(name) for name in columns}


@contextlib.contextmanager
def _opened(path: Path, within: Path) -> Iterator[pq.ParquetFile]:
    """A file whose footer announces no more than it can hold; whatever goes wrong is reported with its name."""
    try:
        with open_data(path, within=within, max_bytes=_MOST_BYTES) as opened:
            size = os.fstat(opened.fileno()).st_size
        # Arrow opens the file itself: where a Python file object fails below it, the process aborts.
        with pa.OSFile(str(path)) as handle:
            file = open_parquet(handle)
            _check_announced(path, file, size)
            yield file
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"{path} is truncated or no sound Parquet file: {reason.rstrip('.')}.", _FIX) from error


def _check_announced(path: Path, file: pq.ParquetFile, size: int) -> None:
    """Refuse a footer that announces too much. Facts of single columns are not asked for: damaged ones abort pyarrow.

    Raises:
        DataError: It announces more rows or bytes than a file of ``size`` bytes can hold.
    """
    facts = file.metadata
    if facts.num_columns > _MOST_COLUMNS:
        raise DataError(f"{path} has {facts.num_columns:,} columns; at most {_MOST_COLUMNS:,} are read.", _FIX)
    groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
    rows, announced = [group.num_rows for group in groups], [group.total_byte_size for group in groups]
    if any(number < 0 for number in (*rows, *announced)) or sum(rows) != facts.num_rows or sum(rows) > _MOST_ROWS:
        raise DataError(f"{path} announces {facts.num_rows:,} rows, its parts {sum(rows):,}.", _FIX)
    most = unpacked_limit(size, _RATIO, _MOST_UNPACKED)
    if sum(announced) > most:
        raise DataError(
            f"{path} announces {sum(announced):,} bytes unpacked; of its {size:,} bytes at most {most:,} may become.",
            _FIX,
        )
