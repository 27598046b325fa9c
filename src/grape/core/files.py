"""Writing files so that a reader never sees half of one, and hashing what was written."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from grape.core.errors import DataError, GrapeError
from grape.core.reading import open_file, parse_json, parse_yaml, read_file
from grape.core.temporary_files import in_use, temporary_path

__all__ = [
    "atomic_writer",
    "content_hash",
    "file_hash",
    "read_json",
    "read_json_mapping",
    "read_jsonl",
    "read_yaml_mapping",
    "sync_folder",
    "write_bytes",
    "write_json",
    "write_jsonl",
    "write_text",
]


@contextlib.contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """Binary file that appears under ``path`` whole or not at all.

    The bytes go to a temporary file beside ``path``, are synced, and take the final name by rename.

    Raises:
        GrapeError: The disk is full or the folder cannot be written; nothing stands under ``path`` then
            (an older file stays as it was).
    """
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with in_use(temporary):
            with temporary.open("wb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise GrapeError(
            f"Could not write {path}: {error.strerror or error}.",
            "What was finished before is kept. Free space or fix the permissions, then run the same command again.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` atomically."""
    with atomic_writer(path) as handle:
        handle.write(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` atomically as indented JSON with sorted keys; NaN and Infinity are refused."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON object a line atomically."""
    write_text(path, "".join(json.dumps(row, sort_keys=True, allow_nan=False) + "\n" for row in rows))


def read_json(path: Path, *, hint: str = "Run the verb that writes it again.", within: Path | None = None) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        hint: What the reader can do where the file is not readable.
        within: The file must lie in this folder after all links are resolved.

    Raises:
        DataError: The file is missing or no JSON, see :func:`grape.core.reading.parse_json`.
    """
    return parse_json(read_file(path, within=within), str(path), hint=hint)


def read_json_mapping(
    path: Path, *, hint: str = "Run the verb that writes it again.", within: Path | None = None
) -> dict[str, Any]:
    """Read a JSON file that holds one object, as :func:`read_json` does.

    Raises:
        DataError: The file is missing, no JSON, or holds something else than an object.
    """
    data = read_json(path, hint=hint, within=within)
    if not isinstance(data, dict):
        raise DataError(f"{path} holds no JSON object.", hint)
    return data


def read_jsonl(
    path: Path,
    *,
    hint: str = "Run the verb that writes it again.",
    max_bytes: int = 2**30,
    allow_nonfinite: bool = False,
    within: Path | None = None,
) -> list[Any]:
    """Read a file with one JSON object a line.

    Args:
        path: The file.
        hint: What the reader can do where the file is not readable.
        max_bytes: Larger files are refused.
        allow_nonfinite: Accept NaN and Infinity.
        within: The file must lie in this folder after all links are resolved.

    Raises:
        DataError: The file is missing or a line is no JSON; the line's number is named.
    """
    lines = read_file(path, max_bytes=max_bytes, within=within).split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [
        parse_json(line, f"{path}, line {number}:", hint=hint, allow_nonfinite=allow_nonfinite)
        for number, line in enumerate(lines, start=1)
    ]


def read_yaml_mapping(path: Path, most_bytes: int) -> dict[str, Any]:
    """Read a YAML file (JSON is YAML too) that holds a mapping.

    Args:
        path: The file.
        most_bytes: Larger files are refused.

    Raises:
        DataError: The file is missing, too large, no plain YAML (see :func:`grape.core.reading.parse_yaml`) or no
            mapping.
    """
    data = parse_yaml(read_file(path, max_bytes=most_bytes), str(path), hint="Fix or replace the file.")
    if not isinstance(data, dict):
        raise DataError(f"{path} holds no mapping.", "Fix or replace the file.")
    return data


def file_hash(path: Path, max_bytes: int | None = None) -> str:
    """SHA-256 of a regular file's bytes, as 64 hexadecimal digits; larger files than ``max_bytes`` are refused."""
    with open_file(path, max_bytes=max_bytes) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def content_hash(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form, as 64 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
