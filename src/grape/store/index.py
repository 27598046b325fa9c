"""The index of a store: facts of all episodes, so that not every file is opened. It may be deleted at any time.

It is a file of JSON lines: the version of its format, ``[id, fingerprint, checksum, facts]`` of each episode, and the
hash of all lines before the last. It is read and written line by line, and equal values of different episodes are one
object in memory, so that an episode takes about a kilobyte.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, GrapeError
from grape.core.files import atomic_writer
from grape.core.reading import open_file, parse_json
from grape.core.trajectories import EpisodeMeta
from grape.store.header import meta_from_dict, meta_to_dict

__all__ = ["IndexEntry", "SharedValues", "file_fingerprint", "load_index", "save_index"]

_FORMAT_VERSION = 2
_OLD_NAME = "index.json"  # of version 1
_TAIL = 16 * 1024
_MOST_BYTES = 2**36
_LONGEST_LINE = 2**24  # as of an episode's header


@dataclass(frozen=True)
class IndexEntry:
    """What is known of one file without opening it as Parquet.

    Attributes:
        fingerprint: Of the file when it was read, see :func:`file_fingerprint`.
        checksum: The header's checksum, which covers the checksums of all columns.
        meta: Facts of the episode.
    """

    fingerprint: str
    checksum: str
    meta: EpisodeMeta


class SharedValues:
    """Makes equal values of different episodes one object: instructions, hashes, versions."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._mappings: dict[str, Mapping[str, Any]] = {}

    def shared(self, meta: EpisodeMeta) -> EpisodeMeta:
        """The facts of an episode with values that others have, too."""
        values: dict[str, Any] = {}
        for item in dataclasses.fields(meta):
            value = getattr(meta, item.name)
            if isinstance(value, str) and item.name != "episode_id":
                values[item.name] = self._texts.setdefault(value, value)
            elif isinstance(value, Mapping):
                values[item.name] = self._mappings.setdefault(json.dumps(value), value)
        return dataclasses.replace(meta, **values)


def file_fingerprint(path: Path) -> str:
    """Size of a file and digest of its last 16 KiB.

    Raises:
        DataError: It is no regular file, or cannot be opened.
        OSError: The file cannot be read.
    """
    with open_file(path) as handle:
        size = os.fstat(handle.fileno()).st_size
        tail = os.pread(handle.fileno(), _TAIL, max(0, size - _TAIL))
    return f"{size}-{hashlib.blake2b(tail, digest_size=16).hexdigest()}"


def load_index(path: Path, values: SharedValues) -> dict[str, IndexEntry]:
    """Entries by episode id; nothing at all where the index is missing, broken or of another version.

    Args:
        path: The file.
        values: Values that episodes share.
    """
    entries: dict[str, IndexEntry] = {}
    state = hashlib.sha256()
    try:
        with open_file(path, max_bytes=_MOST_BYTES, within=path.parent) as handle:
            first = handle.readline(_LONGEST_LINE)
            if parse_json(first, str(path)) != {"format_version": _FORMAT_VERSION}:
                return {}
            state.update(first)
            while line := handle.readline(_LONGEST_LINE):
                value = parse_json(line, str(path))
                if isinstance(value, dict):
                    return entries if value == {"checksum": state.hexdigest()} and not handle.read(1) else {}
                state.update(line)
                name, fingerprint, checksum, meta = value
                entries[name] = IndexEntry(str(fingerprint), str(checksum), values.shared(meta_from_dict(meta)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError):
        return {}
    return {}  # the last line is missing


def save_index(path: Path, entries: Mapping[str, IndexEntry]) -> None:
    """Replace the index; where that is impossible (disk full, read-only store) the old one stays."""
    state = hashlib.sha256()
    try:
        with atomic_writer(path) as handle:

            def write(value: Any) -> None:
                line = json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
                state.update(line)
                handle.write(line)

            write({"format_version": _FORMAT_VERSION})
            for name, entry in sorted(entries.items()):
                write([name, entry.fingerprint, entry.checksum, meta_to_dict(entry.meta)])
            write({"checksum": state.hexdigest()})
        path.with_name(_OLD_NAME).unlink(missing_ok=True)
    except (GrapeError, OSError):
        return  # nothing is lost: the next reader opens the files themselves
