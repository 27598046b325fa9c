"""Packs: many episode files in one, for file systems that dislike small files.

A pack is a ZIP archive whose members are the bytes of episode files, not compressed again: ``unzip`` makes single files
of it. Packs lie in a store's folder ``packs`` and never change. What is known of them is their directory, the list at
the archive's end; an episode is read where it lies, through a memory map of its part of the file.
"""

import contextlib
import io
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from grape.core.errors import DataError
from grape.core.files import atomic_writer
from grape.core.reading import open_file
from grape.store.header import is_episode_id

__all__ = [
    "PACK_FIX",
    "EpisodePlace",
    "PackedFile",
    "Packs",
    "episode_name",
    "open_place",
    "size_of_place",
    "write_pack",
]

_SUFFIX = ".parquet"
_PACK_SUFFIX = ".zip"
_MOST_DIRECTORY_BYTES = 64 * 2**20
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that the format knows; equal episodes give equal packs
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
PACK_FIX = "Restore the pack from a copy, or make the store again by 'grape merge'."
"""What to do about a damaged pack, or an episode in it."""


@dataclass(frozen=True)
class PackedFile:
    """An episode's file within a pack.

    Attributes:
        pack: The pack.
        episode_id: The episode that it is to hold.
        header: Where the member begins in the pack, bytes.
        size: Bytes of the episode's file.
        crc: CRC-32 of these bytes.
    """

    pack: Path
    episode_id: str
    header: int
    size: int
    crc: int

    def __str__(self) -> str:
        return f"{self.episode_id}{_SUFFIX} in pack {self.pack}"

    @property
    def fingerprint(self) -> str:
        """Size and checksum, as the pack's directory has them."""
        return f"{self.size}-packed-{self.crc:08x}"

    def mapped(self) -> pa.Buffer:
        """The bytes, mapped into memory; nothing is read before it is needed.

        Raises:
            DataError: The pack is missing, truncated, or has another member there.
        """
        with open_file(self.pack, within=self.pack.parent) as handle:
            descriptor = handle.fileno()
            head = os.pread(descriptor, _LOCAL_HEADER.size, self.header)
            if len(head) < _LOCAL_HEADER.size:
                raise DataError("It lies behind the end of the pack.")
            signature, _, flags, method, *_, name_length, extra_length = _LOCAL_HEADER.unpack(head)
            begin = self.header + _LOCAL_HEADER.size
            name = os.pread(descriptor, name_length, begin)
            begin += name_length + extra_length
            if signature != b"PK\x03\x04" or name != f"{self.episode_id}{_SUFFIX}".encode():
                raise DataError("The pack has something else at its place.")
            if method != zipfile.ZIP_STORED or flags & 1:
                raise DataError("It is compressed or encrypted, which members of packs are not.")
            if begin + self.size > os.fstat(descriptor).st_size:
                raise DataError("It goes on behind the end of the pack.")
            aligned = begin - begin % mmap.ALLOCATIONGRANULARITY
            view = mmap.mmap(descriptor, begin - aligned + self.size, access=mmap.ACCESS_READ, offset=aligned)
        return pa.py_buffer(view)[begin - aligned :]

    def read(self) -> bytes:
        """The bytes, checked against their CRC.

        Raises:
            DataError: As :meth:`mapped`, or the bytes are damaged.
        """
        try:
            data: bytes = self.mapped().to_pybytes()
            if zlib.crc32(data) != self.crc:
                raise DataError("Its checksum does not fit.")
        except DataError as error:
            raise DataError(f"Episode file {self} is damaged. {error.message}", PACK_FIX) from error
        except (OSError, ValueError, OverflowError) as error:
            raise DataError(
                f"Episode file {self} is truncated or damaged: {str(error).rstrip('.')}.", PACK_FIX
            ) from error
        return data


EpisodePlace = Path | PackedFile
"""Where an episode's bytes are: a file of its own, or a part of a pack."""


def episode_name(place: EpisodePlace) -> str:
    """The episode that a place must hold, by its name."""
    return place.episode_id if isinstance(place, PackedFile) else place.name.removesuffix(_SUFFIX)


def size_of_place(place: EpisodePlace) -> int:
    """Bytes of an episode's file.

    Raises:
        OSError: It is gone.
    """
    return place.size if isinstance(place, PackedFile) else place.stat().st_size


@contextlib.contextmanager
def open_place(place: EpisodePlace, max_bytes: int) -> Iterator[tuple[pa.NativeFile, int]]:
    """Open an episode's file for Arrow.

    Args:
        place: Where it is.
        max_bytes: Larger files are refused.

    Yields:
        The file, and its size in bytes.

    Raises:
        DataError: It is missing, no regular file, or too large.
    """
    if isinstance(place, PackedFile):
        if place.size > max_bytes:
            raise DataError(f"It has {place.size:,} bytes; at most {max_bytes:,} are read.")
        with pa.BufferReader(place.mapped()) as handle:
            yield handle, place.size
        return
    with open_file(place, max_bytes=max_bytes, within=place.parent) as opened:
        size = os.fstat(opened.fileno()).st_size
    # Arrow opens the file itself: where a Python file object fails below it, the process aborts.
    with pa.OSFile(str(place)) as handle:
        yield handle, size


def write_pack(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a pack; it appears whole or not at all.

    Args:
        path: The pack.
        files: Ids of episodes and the bytes of their files.

    Raises:
        GrapeError: The disk is full or the folder cannot be written.
    """
    with atomic_writer(path) as handle, zipfile.ZipFile(handle, "w", zipfile.ZIP_STORED) as archive:
        for episode_id, data in files:
            archive.writestr(zipfile.ZipInfo(episode_id + _SUFFIX, _DATE), data)


class Packs:
    """The packs of a store. Their directories are read once, and again where a pack is new.

    Args:
        folder: Where they are; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[tuple[int, int, int], dict[str, PackedFile]]] = {}
        self._files: dict[str, PackedFile] = {}

    def find(self, episode_id: str) -> PackedFile | None:
        """The file of an episode; None where no pack holds it.

        Raises:
            DataError: A pack is damaged.
        """
        return self._files.get(episode_id) or self.files().get(episode_id)

    def files(self) -> Mapping[str, PackedFile]:
        """Files of all packs by episode, as the folder is now. Of equal names the first pack's counts.

        Raises:
            DataError: A pack is damaged.
        """
        states = {path: _state(path) for path in self.paths()}
        if {path: state for path, (state, _) in self._read.items()} != states:
            self._read = {
                path: self._read[path]
                if path in self._read and self._read[path][0] == state
                else (state, read_directory(path))
                for path, state in states.items()
            }
            self._files = {}
            for _, files in self._read.values():
                self._files = {**files, **self._files}
        return self._files

    def paths(self) -> tuple[Path, ...]:
        """The packs, sorted by name."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return ()
        return tuple(self._folder / name for name in sorted(names) if name.endswith(_PACK_SUFFIX) and name[0] != ".")

    def next_path(self) -> Path:
        """Name of a pack that is not there yet, behind all that are."""
        numbers = [path.stem.removeprefix("pack-") for path in self.paths()]
        last = max((int(number) for number in numbers if number.isdecimal()), default=-1)
        return self._folder / f"pack-{last + 1:06d}{_PACK_SUFFIX}"


def _state(path: Path) -> tuple[int, int, int]:
    """What tells that a pack is another than it was."""
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"Pack {path} cannot be read: {error.strerror or error}.", PACK_FIX) from error
    return state.st_size, state.st_mtime_ns, state.st_ino


def read_directory(path: Path) -> dict[str, PackedFile]:
    """Files of a pack by episode.

    Raises:
        DataError: It is no pack, truncated or damaged.
    """
    try:
        with open_file(path, within=path.parent) as opened, zipfile.ZipFile(_Bounded(opened.raw)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error, OverflowError) as error:
        raise DataError(f"Pack {path} is truncated or damaged: {str(error).rstrip('.')}.", PACK_FIX) from error
    names = [member.filename.removesuffix(_SUFFIX) for member in members]
    if foreign := [
        member.filename
        for member, name in zip(members, names, strict=True)
        if not (member.filename.endswith(_SUFFIX) and is_episode_id(name))
    ]:
        raise DataError(f"Pack {path} holds {foreign[0]!r:.80}, which is no file of an episode.", PACK_FIX)
    if len(set(names)) != len(names):
        raise DataError(f"Pack {path} holds two episodes of one name.", PACK_FIX)
    return {
        name: PackedFile(path, name, member.header_offset, member.file_size, member.CRC)
        for name, member in zip(names, members, strict=True)
    }


class _Bounded(io.BufferedReader):
    """A file of which no more is read at once than a pack's directory has."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = max(0, os.fstat(self.fileno()).st_size - self.tell())
        if size > _MOST_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its directory announces {size:,} bytes")
        return super().read(size)
