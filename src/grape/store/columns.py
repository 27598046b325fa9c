"""One column of an episode file: which rows it fills, its type, and the way from and to an array."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from grape.core.errors import DataError
from grape.store.header import CHUNK_TOKENS, TOKENS, Column, Header, digest_of

__all__ = [
    "CAMERA",
    "array_checksum",
    "blobs_checksum",
    "blobs_to_arrow",
    "dtype_of",
    "from_arrow",
    "is_stored",
    "present_rows",
    "to_arrow",
]

_ACTIONS = ("action", "label", *TOKENS)  # a control step each
_INTEGERS = (TOKENS[0], CHUNK_TOKENS[0])
CAMERA = "frame:"
"""Before the name of a further camera, that of its column."""

_LIST = pa.list_(pa.field("element", pa.float32()))
_INTEGER_LIST = pa.list_(pa.field("element", pa.int32()))

Array = npt.NDArray[Any]


def present_rows(header: Header, name: str) -> npt.NDArray[np.bool_]:
    """Which of the ``T + 1`` rows a column fills."""
    present: npt.NDArray[np.bool_] = np.ones(header.meta.steps + 1, dtype=bool)
    if name in _ACTIONS:
        present[-1] = False
    elif header.chunks is not None and (_is_image(name) or name in CHUNK_TOKENS):
        present[:] = False
        present[header.chunks.starts] = True
        present[-1] = _is_image(name)
    return present


def _is_image(name: str) -> bool:
    return name in ("frame", "display") or name.startswith(CAMERA)


def is_stored(shape: tuple[int, ...]) -> bool:
    """Whether a column of this shape stands in the file: Parquet knows no lists of width 0."""
    return len(shape) == 1 or math.prod(shape[1:]) > 0


def blobs_to_arrow(blobs: Sequence[bytes], present: npt.NDArray[np.bool_]) -> pa.Array:
    """Column of blobs, null where ``present`` is false."""
    remaining = iter(blobs)
    return pa.array([next(remaining) if filled else None for filled in present], pa.binary())


def to_arrow(value: Array, present: npt.NDArray[np.bool_]) -> pa.Array:
    """Column of an array whose rows stand where ``present`` is true; scalars stand everywhere."""
    flat = pa.array(np.ascontiguousarray(value).reshape(-1))
    if value.ndim == 1:
        return flat
    offsets = np.append(0, np.cumsum(present)).astype(np.int32) * math.prod(value.shape[1:])
    mask = None if present.all() else pa.array(~present)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), flat, mask=mask)


def from_arrow(name: str, column: pa.ChunkedArray | None, expected: Column, header: Header) -> Any:
    """Array (or list of blobs) of a column, checked against its checksum.

    Args:
        name: The column's.
        column: What the file holds; None for lists of width 0, which it cannot hold.
        expected: What the header says of it.
        header: The episode's.

    Raises:
        DataError: Type, filled rows or checksum are others than the header says.
    """
    if column is None:
        return np.zeros(expected.shape, dtype=dtype_of(name))
    is_image = _is_image(name)
    lists = _INTEGER_LIST if name in _INTEGERS else _LIST
    if column.type != (pa.binary() if is_image else lists if len(expected.shape) > 1 else pa.float32()):
        raise DataError(f"Column '{name}' is of type {column.type}.")
    present = present_rows(header, name)
    if expected.shape[0] != present.sum() or not np.array_equal(column.is_valid().to_numpy(), present):
        raise DataError(f"Column '{name}' has {len(column)} rows of which {column.null_count} are empty.")
    if is_image:
        blobs = column.drop_null().to_pylist()
        if blobs_checksum(blobs) != expected.checksum:
            raise DataError(f"Column '{name}' does not fit its checksum.")
        return blobs
    chunk = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    flat = chunk if len(expected.shape) == 1 else chunk.values  # an empty list has no values
    value = flat.to_numpy(zero_copy_only=False).reshape(expected.shape).copy()  # Arrow's own memory is read-only
    if array_checksum(value) != expected.checksum:
        raise DataError(f"Column '{name}' does not fit its checksum.")
    return value


def dtype_of(name: str) -> Any:
    """Number type of a column's array."""
    return np.int32 if name in _INTEGERS else np.float32


def array_checksum(value: Array) -> str:
    """Digest of an array's bytes."""
    return digest_of(np.ascontiguousarray(value).tobytes())


def blobs_checksum(blobs: Sequence[bytes]) -> str:
    """Digest of some blobs and their lengths."""
    return digest_of(np.array([len(blob) for blob in blobs], dtype="<u8").tobytes(), b"".join(blobs))
