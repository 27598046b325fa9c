"""The index of a store: facts of all episodes, so that not every file is opened. It may be deleted at any time."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, GrapeError
from grape.core.files import content_hash, write_text
from grape.core.reading import open_file, parse_json, read_file
from grape.core.trajectories import EpisodeMeta
from grape.store.header import meta_from_dict, meta_to_dict

__all__ = ["IndexEntry", "file_fingerprint", "load_index", "save_index"]

_FORMAT_VERSION = 1
_TAIL = 16 * 1024
_MOST_BYTES = 2**29


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


def load_index(path: Path) -> dict[str, IndexEntry]:
    """Entries by episode id; nothing at all where the index is missing, broken or of another version."""
    try:
        outer = parse_json(read_file(path, max_bytes=_MOST_BYTES, within=path.parent), str(path))
        body = outer["episodes"]
        if outer["format_version"] != _FORMAT_VERSION or outer["checksum"] != content_hash(body):
            return {}
        return {
            name: IndexEntry(str(fingerprint), str(checksum), meta_from_dict(meta))
            for name, (fingerprint, checksum, meta) in body.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError):
        return {}


def save_index(path: Path, entries: dict[str, IndexEntry]) -> None:
    """Replace the index; where that is impossible (disk full, read-only store) the old one stays."""
    body: dict[str, Any] = {
        name: [entry.fingerprint, entry.checksum, meta_to_dict(entry.meta)] for name, entry in sorted(entries.items())
    }
    value = {"checksum": content_hash(body), "episodes": body, "format_version": _FORMAT_VERSION}
    try:
        write_text(path, json.dumps(value, sort_keys=True, separators=(",", ":")))
    except GrapeError:
        return  # nothing is lost: the next reader opens the files themselves
