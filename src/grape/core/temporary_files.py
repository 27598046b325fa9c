"""Names of unfinished files and folders, and clearing those that killed processes left.

What is not finished stands beside its destination as ``.NAME.PID.MARK.tmp``; a folder that is being replaced stands
aside as ``.NAME.PID.MARK.old``. The mark begins with a hash of the machine, since a process number says nothing about
processes of other machines (or containers) that share the folder.
"""

import contextlib
import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["in_use", "sweep_beside", "sweep_run_folder", "sweep_temporaries", "temporary_path"]

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
    return path.with_name(f".{path.name}.{os.getpid()}.{_machine()}{secrets.token_hex(3)}.{kind}")


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
        found = [(Path(entry.path), _PATTERN.fullmatch(entry.name)) for entry in entries if entry.name[0] == "."]
        for path, match in found:
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
    if len(match["mark"]) > _MARK_DIGITS and match["mark"].startswith(_machine()):
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
def _machine() -> str:
    """Hash of what numbers this process: the machine, and the namespace of process numbers where there are several."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:_MARK_DIGITS]
