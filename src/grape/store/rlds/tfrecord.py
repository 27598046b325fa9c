"""TFRecord files: a row of records, each framed by its length and two checksums.

A record is ``length`` (uint64, little endian), masked CRC-32C of those 8 bytes (uint32), the payload, and its masked
CRC-32C (uint32). The mask is TensorFlow's: rotate right by 15 bits and add a constant. A file may be compressed as a
whole with gzip, which is recognized by its first bytes.

Nothing is skipped: a file that is cut, or of which one bit flipped, raises :class:`DataError` with the file, the
record's number (counted from 0) and the byte at which the record begins. A cut exactly between two records leaves a
sound file; :mod:`grape.store.rlds.dataset` notices it, since ``dataset_info.json`` tells how many there must be.
"""

import gzip
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import google_crc32c

from grape.core.errors import DataError
from grape.store.opening import open_data

__all__ = ["FRAMING_BYTES", "frame_record", "masked_crc32c", "read_record_at", "read_records", "record_starts"]

FRAMING_BYTES = 16
"""Bytes that a record takes beyond its payload."""

_HEAD = struct.Struct("<QI")
_TAIL = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8
_CHUNK = 1 << 22
# A message of protocol buffers, which an episode is, holds less than 2 GiB. Without a bound a small gzip file that
# unpacks to zeros would fill the memory.
_MOST_BYTES = 2**31 - 1
_ALWAYS_UNPACKED, _MOST_UNPACKED = 2**24, 2**29  # bytes of a record in a gzip file, however small or large the file
_MOST_FILE = 2**40
_MOST_RATIO = 64  # times the size of its gzip file
_FIX = "The file is damaged: fetch or export it again. Nothing was read past this place."

Wanted = Callable[[int], bool]
Stream = IO[bytes] | gzip.GzipFile


def masked_crc32c(data: bytes | bytearray) -> int:
    """CRC-32C of ``data`` in TensorFlow's masked form, 32 bits."""
    crc = 0
    for begin in range(0, len(data), _CHUNK):  # the library takes nothing but bytes
        crc = int(google_crc32c.extend(crc, bytes(data[begin : begin + _CHUNK])))
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def frame_record(payload: bytes) -> bytes:
    """The bytes of one record in a file."""
    length = len(payload).to_bytes(8, "little")
    return b"".join(
        (length, _TAIL.pack(masked_crc32c(length)), payload, _TAIL.pack(masked_crc32c(payload))),
    )


def read_records(path: Path, selects: Wanted = lambda number: True) -> Iterator[tuple[int, bytes | bytearray | None]]:
    """Records of a file, one after the other; memory holds one at a time.

    Args:
        path: A TFRecord file, plain or compressed with gzip.
        selects: Whether the record of this number is of interest. Payloads of others are passed over (their headers
            are still checked) and given as None, so that several workers can share a file.

    Yields:
        Number of the record, from 0, and its payload.

    Raises:
        DataError: The file is missing, cut, altered or no TFRecord file; the record and its place are named.
    """
    try:
        with open_data(path, within=path.parent, max_bytes=_MOST_FILE) as raw:
            start = raw.read(_HEAD.size)
            raw.seek(0)
            if start[:2] == b"\x1f\x8b" and not _is_head(start):
                with gzip.GzipFile(fileobj=raw) as handle:
                    yield from _records(path, handle, selects, seekable=False)
            else:
                yield from _records(path, raw, selects, seekable=True)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def record_starts(path: Path) -> list[int] | None:
    """Byte at which each record begins, from the records' headers alone.

    None where the file is compressed, or damaged in a way that :func:`read_records` tells.
    """
    starts: list[int] = []
    with open_data(path, within=path.parent, max_bytes=_MOST_FILE) as handle:
        begin, size = 0, path.stat().st_size
        while begin < size:
            handle.seek(begin)
            head = handle.read(_HEAD.size)
            if not _is_head(head):
                return None
            starts.append(begin)
            begin += _HEAD.unpack(head)[0] + FRAMING_BYTES
    return starts


def read_record_at(path: Path, start: int) -> bytes | None:
    """Payload of the record that begins at a byte; None where none does or its checksum does not fit.

    :func:`read_records` tells what is wrong.
    """
    with open_data(path, within=path.parent, max_bytes=_MOST_FILE) as handle:
        handle.seek(start)
        head = handle.read(_HEAD.size)
        length = _HEAD.unpack(head)[0] if _is_head(head) else _MOST_BYTES
        if length >= _MOST_BYTES or start + length + FRAMING_BYTES > path.stat().st_size:
            return None
        payload, tail = handle.read(length), handle.read(_TAIL.size)
    fits = len(tail) == _TAIL.size and _TAIL.unpack(tail)[0] == masked_crc32c(payload)
    return payload if fits else None


def _records(
    path: Path, handle: IO[bytes] | gzip.GzipFile, selects: Wanted, *, seekable: bool
) -> Iterator[tuple[int, bytes | bytearray | None]]:
    number, begin = 0, 0
    on_disk = path.stat().st_size
    size = on_disk if seekable else None
    most = _MOST_BYTES if seekable else min(_MOST_UNPACKED, max(_ALWAYS_UNPACKED, _MOST_RATIO * on_disk))
    while True:
        where = f"{path}, record {number} (counted from 0, at byte {begin}{'' if seekable else ' after gzip'})"
        head = _read(handle, _HEAD.size, where)
        if not head:
            return
        if len(head) < _HEAD.size:
            raise DataError(f"{where}: the file ends within the record's header.", _FIX)
        if not _is_head(head):
            if number == 0:
                raise DataError(f"{where}: no TFRecord file, or its first header is damaged.", _FIX)
            raise DataError(f"{where}: the checksum of the record's length does not fit.", _FIX)
        length = _HEAD.unpack(head)[0]
        if length > most:
            limit = "an episode has less than 2 GiB" if seekable else f"at most {most:,} are unpacked from this file"
            raise DataError(f"{where}: the record has {length:,} bytes; {limit}.", _FIX)
        end = begin + length + FRAMING_BYTES
        if size is not None and end > size:
            raise DataError(
                f"{where}: the file ends within the record, {end - size:,} bytes short of its {length:,}.",
                _FIX,
            )
        if selects(number) or not seekable:
            payload = _read(handle, length, where)
            tail = _read(handle, _TAIL.size, where)
            if len(payload) < length or len(tail) < _TAIL.size:
                raise DataError(f"{where}: the file ends within the record.", _FIX)
            if _TAIL.unpack(tail)[0] != masked_crc32c(payload):
                raise DataError(f"{where}: the checksum of the record's {length:,} bytes does not fit.", _FIX)
            yield number, payload if selects(number) else None
        else:
            handle.seek(end)
            yield number, None
        number, begin = number + 1, end


def _is_head(head: bytes | bytearray) -> bool:
    return len(head) == _HEAD.size and _HEAD.unpack(head)[1] == masked_crc32c(head[:8])


def _read(handle: Stream, count: int, where: str) -> bytes | bytearray:
    """Up to ``count`` bytes; fewer at the end. Chunks keep a lying length from reserving memory at once."""
    try:
        data = handle.read(min(count, _CHUNK))
        if len(data) == count or not data:
            return data
        buffer = bytearray(data)
        while len(buffer) < count:
            data = handle.read(min(count - len(buffer), _CHUNK))
            if not data:
                break
            buffer += data
        return buffer
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{where}: the gzip stream is cut or damaged: {error}.", _FIX) from error
