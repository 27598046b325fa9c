"""Opening the files of data sets, recordings and rollouts of others: regular, within their folder, not mostly holes."""

import os
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from grape.core.errors import DataError
from grape.core.reading import allowed_root, open_file

__all__ = ["MIB", "check_links", "open_data", "open_parquet", "unpacked_limit"]

MIB = 2**20

_ALWAYS = 64 * MIB
"""So much may always be unpacked, whatever a file's size."""
_HOLES = 20
"""A large file may announce so many times what it occupies on the disk."""


def open_data(path: Path, *, within: Path, max_bytes: int) -> IO[bytes]:
    """Open a file of a data folder.

    Args:
        path: The file.
        within: The folder that links may not lead out of; see :func:`grape.core.reading.allowed_root`.
        max_bytes: Larger files are refused.

    Raises:
        DataError: As :func:`grape.core.reading.open_file`; also where a large file is mostly holes.
    """
    handle = open_file(path, max_bytes=max_bytes, within=within)
    state = os.fstat(handle.fileno())
    if state.st_size > _ALWAYS and state.st_size > _HOLES * 512 * state.st_blocks:
        handle.close()
        raise DataError(
            f"{path} says to have {state.st_size:,} bytes, of which the disk holds {512 * state.st_blocks:,}: the rest "
            "are holes, as an unfinished download leaves them.",
            "Fetch or copy the file again.",
        )
    return handle


def open_parquet(handle: pa.NativeFile) -> pq.ParquetFile:
    """The Parquet file behind ``handle``: pages checked, no damaged footer that announces terabytes."""
    return pq.ParquetFile(
        handle,
        pre_buffer=False,
        page_checksum_verification=True,
        thrift_string_size_limit=1 << 26,
        thrift_container_size_limit=1 << 20,
    )


def check_links(path: Path, within: Path) -> None:
    """Refuse a path whose links lead out of the folder that its name lies in.

    A path that names another folder itself must lie in the one that it names.

    Raises:
        DataError: A link leads out, or in a circle.
    """
    absolute = Path(os.path.abspath(path))
    folder = within if absolute.is_relative_to(os.path.abspath(within)) else path.parent
    try:
        inside = path.resolve().is_relative_to(allowed_root(folder).resolve())
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{str(path)!r} cannot be opened: {error}.", "Check the path.") from error
    if not inside:
        raise DataError(f"{path} is a link that leads out of {folder}.", "Name the file itself, if you trust it.")


def unpacked_limit(packed: int, ratio: int, most: int) -> int:
    """Bytes that so many packed ones may become: ``ratio`` times as many, within 64 MiB and ``most``."""
    return min(most, max(_ALWAYS, ratio * packed))
