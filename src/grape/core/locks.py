"""One process at a time in an output folder."""

import contextlib
import fcntl
import os
import threading
import weakref
from pathlib import Path

from grape.core.errors import CompatibilityError

__all__ = ["FolderLock", "lock_folder"]

_NAME = ".lock"

_held: "weakref.WeakValueDictionary[Path, FolderLock]" = weakref.WeakValueDictionary()
_guard = threading.RLock()  # re-entrant: the collector may release a lock while another is being taken


class FolderLock:
    """An exclusive lock on a folder, held as long as this object lives.

    The kernel holds it (``flock``), so it vanishes with the process, however that ends; child processes do not
    inherit it. Its file is removed when it is released in an orderly way.

    Args:
        folder: The folder, which exists; its resolved path.

    Raises:
        BlockingIOError: Another process holds it.
        OSError: The folder cannot be written, or its file system knows no locks.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / _NAME
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                raise
            if _is_at(descriptor, path):
                break
            os.close(descriptor)  # its holder removed this file just now: the lock is on nothing
        self._finalizer = weakref.finalize(self, _release, descriptor, path, os.getpid())


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that stands at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _release(descriptor: int, path: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked child, which has a copy of this object
        with contextlib.suppress(OSError):
            if _is_at(descriptor, path):
                path.unlink()
    with contextlib.suppress(OSError):
        os.close(descriptor)


def lock_folder(folder: Path) -> FolderLock | None:
    """Lock ``folder`` against other processes; within one process the same lock is shared.

    Args:
        folder: A folder that exists and can be written.

    Returns:
        The lock; keep it as long as the folder is worked in. None where the file system knows no locks.

    Raises:
        CompatibilityError: Another process works in the folder.
    """
    place = folder.resolve()
    with _guard:
        lock = _held.get(place)
        if lock is None:
            try:
                lock = FolderLock(place)
            except BlockingIOError as error:
                raise CompatibilityError(
                    f"Another process is working in {folder}.", "Wait until it is done, or choose another --out."
                ) from error
            except OSError:
                return None
            _held[place] = lock
        return lock
