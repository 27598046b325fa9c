"""Messages as bytes: msgpack with NumPy arrays, in the layout that clients of openpi send and read.

An array is a map of four entries with keys of the type *bytes*: ``__ndarray__`` (true), ``data`` (its bytes in C
order), ``dtype`` (NumPy's text for it, e.g. ``<f4``) and ``shape``. A NumPy scalar is a map of ``__npgeneric__``
(true), ``data`` (the number) and ``dtype``. Nothing else than msgpack's own types and these two travels: no pickle, no
objects.

What comes from outside is checked before memory is taken: the number types are those of a list, and an array's data are
exactly as long as its shape says.
"""

import math
from typing import Any

import numpy as np

from grape.core.errors import DataError
from grape.core.packages import load_package

__all__ = ["EXTRA_NEED", "pack", "unpack"]

EXTRA_NEED = "Policies of servers need the packages websockets and msgpack"
_EXTRA = "serve"
_ARRAY, _SCALAR, _DATA, _DTYPE, _SHAPE = b"__ndarray__", b"__npgeneric__", b"data", b"dtype", b"shape"
_WIDE = ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8")
_DTYPES = frozenset({"|b1", "|i1", "|u1"} | {order + kind for order in "<>" for kind in _WIDE})
_MOST_DIMENSIONS = 8
_MOST_ITEMS = 65_536
"""Of one list. Numbers by the million are arrays; a list of them would take many times the message's size."""
_MOST_ENTRIES = 1_024
"""Of one map."""


def pack(value: Any) -> bytes:
    """The bytes of a message.

    Args:
        value: Maps with text keys, lists, numbers, text, bytes, None, and arrays of plain numbers among them.

    Raises:
        DataError: An array is not of plain numbers.
        SettingsError: The packages of the extra are missing.
    """
    return bytes(load_package("msgpack", EXTRA_NEED, _EXTRA).packb(value, default=_packed, use_bin_type=True))


def unpack(data: bytes) -> Any:
    """Inverse of :func:`pack`; arrays share the message's memory and cannot be written to.

    Args:
        data: A whole message. Its size is bounded where it is received.

    Raises:
        DataError: The message is truncated or no msgpack, holds more than plain values and arrays, or an array of
            another length or number type than it says.
        SettingsError: The packages of the extra are missing.
    """
    msgpack = load_package("msgpack", EXTRA_NEED, _EXTRA)
    try:
        return msgpack.unpackb(
            data,
            object_hook=_unpacked,
            ext_hook=_no_extension,
            raw=False,
            strict_map_key=True,
            max_array_len=_MOST_ITEMS,
            max_map_len=_MOST_ENTRIES,
        )
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"A message of {len(data):,} bytes cannot be read: {reason}.",
            "It is truncated, or no msgpack with plain values and arrays.",
        ) from error


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.str in _DTYPES:
        if isinstance(value, np.ndarray):
            return {_ARRAY: True, _DATA: value.tobytes(), _DTYPE: value.dtype.str, _SHAPE: list(value.shape)}
        return {_SCALAR: True, _DATA: value.item(), _DTYPE: value.dtype.str}
    kind = f"of {value.dtype}" if isinstance(value, np.ndarray | np.generic) else type(value).__name__
    raise DataError(f"A message cannot hold an object {kind}.", "Send plain numbers, text, lists and maps.")


def _unpacked(entries: dict[Any, Any]) -> Any:
    if _ARRAY in entries:
        return _array(entries)
    return _scalar(entries) if _SCALAR in entries else entries


def _array(entries: dict[Any, Any]) -> Any:
    data, dtype, shape = entries.get(_DATA), _dtype(entries), entries.get(_SHAPE)
    sound = isinstance(shape, list) and len(shape) <= _MOST_DIMENSIONS and isinstance(data, bytes)
    if not sound or not all(type(size) is int and size >= 0 for size in shape):  # type: ignore[union-attr]
        raise DataError("An array in a message has no shape or no data.", "Send it as openpi's clients do.")
    assert isinstance(data, bytes)
    assert isinstance(shape, list)
    if math.prod(shape) * dtype.itemsize != len(data):
        raise DataError(
            f"An array in a message says shape {shape} of {dtype.str} and holds {len(data):,} bytes.",
            "The message is truncated, or its sender is wrong.",
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _scalar(entries: dict[Any, Any]) -> Any:
    value = entries.get(_DATA)
    if not isinstance(value, bool | int | float):
        raise DataError(f"A number in a message is {type(value).__name__}.", "Send it as openpi's clients do.")
    return np.asarray(value).astype(_dtype(entries))[()]


def _dtype(entries: dict[Any, Any]) -> Any:
    name = entries.get(_DTYPE)
    if not isinstance(name, str) or name not in _DTYPES:
        raise DataError(
            f"An array in a message is of type {str(name)[:40]!r}.", "Send plain numbers: integers, floats or booleans."
        )
    return np.dtype(name)


def _no_extension(code: int, data: bytes) -> Any:
    raise DataError(f"A message holds msgpack's extension type {code}.", "Send plain values and arrays.")
