"""Columns of LeRobot's Parquet files as numbers and images."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from grape.core.errors import DataError

__all__ = ["bytes_column", "number_column"]

_FIX = "Fetch or copy the file again."


def number_column(column: pa.ChunkedArray, width: int, where: str) -> npt.NDArray[np.float64]:
    """Numbers ``(N, width)`` of a column of numbers or of lists of them.

    Raises:
        DataError: It holds something else, nothing at some rows, or lists of another length.
    """
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    rows = len(array)
    if array.null_count:
        raise DataError(f"{where} is empty in {array.null_count:,} of {rows:,} rows.", _FIX)
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        array = array.flatten()
        if array.null_count or len(array) != rows * width or _uneven(column, width):
            raise DataError(f"{where} does not hold {width} numbers in each row, as meta/info.json says.", _FIX)
    elif width != 1:
        raise DataError(f"{where} holds {kind}, where meta/info.json says {width} numbers a row.", _FIX)
    kind = array.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{where} holds {kind!s:.60}, no numbers.", _FIX)
    values = np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.float64)
    return values.reshape(rows, width)


def _uneven(column: pa.ChunkedArray, width: int) -> bool:
    if pa.types.is_fixed_size_list(column.type):
        return bool(column.type.list_size != width)
    return any(
        bool((np.diff(chunk.offsets.to_numpy(zero_copy_only=False)[: len(chunk) + 1]) != width).any())
        for chunk in column.chunks
    )


def bytes_column(column: pa.ChunkedArray, where: str) -> list[bytes]:
    """The encoded images of a column of LeRobot's kind: a structure of ``bytes`` and ``path``, or plain bytes.

    Raises:
        DataError: Some row has none.
    """
    kind = column.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        values = [row and row["bytes"] for row in column.to_pylist()]
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        values = column.to_pylist()
    else:
        raise DataError(f"{where} holds {kind!s:.60}, no images.", _FIX)
    if any(not isinstance(value, bytes) for value in values):
        raise DataError(
            f"{where} has rows without an image, perhaps with the name of a file instead.",
            "Write the data set again, with its images in the Parquet files or as videos.",
        )
    return values
