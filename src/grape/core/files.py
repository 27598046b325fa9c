"""Atomic writes of files and folders, hashes, and removal of what killed runs left.

An unfinished file is named ``.NAME.PID.MARK.tmp`` beside its destination; a folder that is being replaced is
named ``.NAME.PID.MARK.old``. The mark begins with a hash of the machine, since a process number says nothing about
processes of other machines (or containers) that share the folder.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from grape.core.errors import DataError, GrapeError
from grape.core.reading import open_file, parse_json, parse_yaml, read_file

__all__ = [
    "atomic_writer",
    "content_hash",
    "file_hash",
    "in_use",
    "iterate_jsonl",
    "machine_hash",
    "read_json",
    "read_json_mapping",
    "read_jsonl",
    "read_yaml_mapping",
    "sweep_beside",
    "sweep_run_folder",
    "sweep_temporaries",
    "sync_folder",
    "temporary_path",
    "write_bytes",
    "write_json",
    "write_jsonl",
    "write_text",
]


_LONGEST_LINE = 2**24


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


def make_folder(folder: Path) -> None:
    """Make a folder where there is none, and make it durable.

    Raises:
        OSError: It cannot be made.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


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
    """Write one JSON object a line atomically; the rows are taken one after another."""
    with atomic_writer(path) as handle:
        for row in rows:
            handle.write(json.dumps(row, sort_keys=True, allow_nan=False).encode() + b"\n")


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


def iterate_jsonl(path: Path, *, hint: str, within: Path) -> Iterator[tuple[int, Any]]:
    """Lines of a file with one JSON object a line, read one after another.

    Args:
        path: The file.
        hint: What the reader can do where the file is not readable.
        within: The file must lie in this folder after all links are resolved.

    Yields:
        Position of the line's first byte, and its value.

    Raises:
        DataError: The file is missing, or a line is no JSON or longer than 16 MiB; the line's number is named.
    """
    with open_file(path, within=within) as handle:
        place = 0
        for number in itertools.count(1):
            line = handle.readline(_LONGEST_LINE)
            if not line:
                return
            if len(line) == _LONGEST_LINE:
                raise DataError(f"{path}, line {number}: it has more than {_LONGEST_LINE:,} bytes.", hint)
            yield place, parse_json(line.removesuffix(b"\n"), f"{path}, line {number}:", hint=hint)
            place += len(line)


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


_PATTERN = re.compile(r"\.(?P<name>.+)\.(?P<process>[0-9]+)\.(?P<mark>[0-9a-f]+)\.(?P<kind>tmp|old)", re.DOTALL)
_MARK_DIGITS = 6
_STALE_AFTER_S = 60.0
_OWN_RUN = "run.json"

_in_use: set[str] = set()


def temporary_path(path: Path, kind: str = "tmp") -> Path:
    """A new name beside ``path``.

    Args:
        path: The destination.
        kind: ``"tmp"`` for what is not finished, ``"old"`` for a folder that is moved aside.
    """
    return path.with_name(f".{path.name}.{os.getpid()}.{machine_hash()}{secrets.token_hex(3)}.{kind}")


@contextlib.contextmanager
def in_use(*paths: Path) -> Iterator[None]:
    """Protect temporary paths of this process from being taken for leftovers of an earlier one of its number."""
    names = {os.path.abspath(path) for path in paths}
    _in_use.update(names)
    try:
        yield
    finally:
        _in_use.difference_update(names)


def sweep_temporaries(folder: Path, *, alone: bool = False, name: str | None = None) -> None:
    """Remove from one folder what dead processes left unfinished.

    A folder that was moved aside to be replaced gets its name back if its successor never came.

    Args:
        folder: The folder; nothing happens where there is none.
        alone: No other process writes here (the caller holds the folder's lock): leftovers of other machines, whose
            processes cannot be asked for, are dead, too. Without it they are where they are older than a minute and no
            process of that number lives here.
        name: Only those of this destination.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        matches = [(Path(entry.path), _PATTERN.fullmatch(entry.name)) for entry in entries if entry.name[0] == "."]
        for path, match in matches:
            if match is not None and name in (None, match["name"]) and _is_dead(path, match, alone):
                _remove(path, match)


def sweep_beside(path: Path, *, alone: bool = False) -> None:
    """Remove what dead processes left of attempts to write ``path``; ``alone`` as for :func:`sweep_temporaries`."""
    sweep_temporaries(path.absolute().parent, alone=alone, name=path.name)


def sweep_run_folder(folder: Path, *, alone: bool) -> None:
    """Remove from an output folder, with the folders in it, what dead processes left unfinished.

    Folders of further runs inside are left to those.

    Args:
        folder: The folder of the run.
        alone: As for :func:`sweep_temporaries`.
    """
    for path, folders, _ in os.walk(folder):  # links are not followed
        sweep_temporaries(Path(path), alone=alone)
        folders[:] = [name for name in folders if not os.path.lexists(os.path.join(path, name, _OWN_RUN))]


def _remove(path: Path, match: "re.Match[str]") -> None:
    """Remove a leftover, or give a folder that was moved aside its name back; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        if match["kind"] == "old" and not os.path.lexists(path.with_name(match["name"])):
            path.rename(path.with_name(match["name"]))
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_dead(path: Path, match: "re.Match[str]", alone: bool) -> bool:
    process = int(match["process"])
    if len(match["mark"]) > _MARK_DIGITS and match["mark"].startswith(machine_hash()):
        return os.path.abspath(path) not in _in_use if process == os.getpid() else not _is_alive(process)
    return alone or (time.time() - path.lstat().st_mtime > _STALE_AFTER_S and not _is_alive(process))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@functools.lru_cache(maxsize=1)
def machine_hash() -> str:
    """Hash of what numbers this process: the machine, and the namespace of process numbers where there are several."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:_MARK_DIGITS]
