"""The lock on a folder that a verb works in: one process at a time."""

import atexit
import contextlib
import os
import threading
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from grape.core.errors import CompatibilityError

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["LOCK_NAMES", "FolderLock", "lock_folder"]

_LOCK_NAME = ".lock"
_SOFT_LOCK_NAME = ".lock-holder"
LOCK_NAMES = (_LOCK_NAME, _SOFT_LOCK_NAME)
"""Files that locks of a folder may be."""
_PATIENCE = 0.2  # seconds: a process that is just releasing the folder removes its file

_held: "weakref.WeakValueDictionary[Path, FolderLock]" = weakref.WeakValueDictionary()
_guard = threading.RLock()  # re-entrant: the collector may release a lock while another is being taken


class FolderLock:
    """An exclusive lock on a folder, held as long as this object lives.

    The kernel holds it, so it vanishes with the process, however that ends; child processes do not inherit it. On file
    systems without such locks a file with the holder's process id stands for it. Its file is removed when it is
    released in an orderly way.

    Args:
        folder: The folder, which exists; its resolved path.

    Raises:
        filelock.Timeout: Another process holds it.
        OSError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock, SoftFileLock, Timeout

        lock: BaseFileLock = FileLock(folder / _LOCK_NAME, mode=0o644, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire(timeout=_PATIENCE)
        except (Timeout, FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            warnings.warn(
                f"The file system of {folder} has no locks ({error.strerror or error}): a file {_SOFT_LOCK_NAME} "
                "stands for one, which does not keep out processes of other machines for certain.",
                stacklevel=2,
            )
            (folder / _LOCK_NAME).unlink(missing_ok=True)
            lock = SoftFileLock(folder / _SOFT_LOCK_NAME, thread_local=False)
            lock.acquire(timeout=_PATIENCE)
        path = Path(lock.lock_file)
        self._finalizer = weakref.finalize(self, _release, lock, path, path.stat(), os.getpid())
        self._finalizer.atexit = False
        atexit.register(self._finalizer)  # after filelock's own, so that this one comes first


def _release(lock: "BaseFileLock", path: Path, file: os.stat_result, owner: int) -> None:
    if os.getpid() != owner:  # a forked child, which has a copy of the object but not the lock
        return
    with contextlib.suppress(OSError):
        if lock.is_locked and os.path.samestat(file, path.stat()):
            path.unlink()
    with contextlib.suppress(OSError):
        lock.release(force=True)


def lock_folder(folder: Path) -> FolderLock | None:
    """Lock ``folder`` against other processes; within one process the same lock is shared.

    Args:
        folder: A folder that exists and can be written.

    Returns:
        The lock; keep it as long as the folder is worked in. None where the folder cannot be written or is gone.

    Raises:
        CompatibilityError: Another process works in the folder.
    """
    from filelock import Timeout

    place = folder.resolve()
    with _guard:
        lock = _held.get(place)
        if lock is None:
            try:
                lock = FolderLock(place)
            except Timeout as error:
                raise CompatibilityError(
                    f"Another process is working in {folder}.", "Wait until it is done, or choose another --out."
                ) from error
            except OSError:
                return None
            _held[place] = lock
        return lock
