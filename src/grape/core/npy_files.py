"""The beginning of ``.npy`` files from outside, checked before NumPy reads them."""

import struct
from pathlib import Path
from typing import IO

from grape.core.errors import DataError

__all__ = ["check_npy_start"]

_MAGIC = b"\x93NUMPY"
_MOST_HEADER = 65_535
"""Bytes; NumPy reserves whatever a header announces, up to 4 GiB."""


def check_npy_start(handle: IO[bytes], path: Path) -> None:
    """Refuse what is no ``.npy`` file or announces a header of an absurd length; the position is 0 afterwards.

    Raises:
        DataError: Says so.
    """
    start = handle.read(12)
    handle.seek(0)
    if start[:6] != _MAGIC or len(start) < 12 or start[6] not in (1, 2, 3):
        raise DataError(f"{path} is no .npy file.", "Write it with numpy.save.")
    length = struct.unpack("<H" if start[6] == 1 else "<I", start[8 : 10 if start[6] == 1 else 12])[0]
    if length > _MOST_HEADER:
        raise DataError(f"{path} announces a header of {length:,} bytes.", "Write it with numpy.save.")
