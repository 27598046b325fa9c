"""Atomic folders: temporary folders renamed on completion, with or without replacing an older folder.

:func:`atomic_folder` is for results that a run writes again, :func:`published_folder` for exports. An export grows in a
hidden folder beside its destination and is renamed at the end. Whatever happens before (an error, a full disk,
``kill -9``), nothing stands under the final name. A killed export leaves the hidden folder behind; the next one to the
same destination sweeps it away. One process at a time exports to a destination.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from grape.core.errors import CompatibilityError, GrapeError
from grape.core.files import in_use, sweep_beside, sync_folder, temporary_path
from grape.core.folder_locks import LOCK_NAMES, FolderLock, lock_folder

__all__ = ["atomic_folder", "clear_leftovers", "published_folder"]

_KEPT = (
    "Nothing stands under that name and the unfinished copy was deleted; episodes, scores and pairs are untouched. "
    "Free space or fix the permissions, then run the same command again."
)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Folder that appears under ``path`` whole or not at all; an older one is replaced.

    At every moment the older folder or the new one is on the disk. What a killed process left of an earlier attempt
    is cleared first (the older folder takes its name back if that process had just moved it aside), so one process at
    a time may write a path.

    Raises:
        GrapeError: The disk is full or the place cannot be written.
    """
    temporary = temporary_path(path)
    old = temporary_path(path, "old")
    try:
        sweep_beside(path, alone=True)
        with in_use(temporary, old):
            temporary.mkdir(parents=True)
            yield temporary
            sync_folder(temporary)
            if path.exists():
                path.rename(old)
            temporary.rename(path)
            sync_folder(path.parent)
    except OSError as error:
        raise GrapeError(
            f"Could not write {path}: {error}.", "Free space or fix the permissions, then retry."
        ) from error
    finally:
        if old.exists() and not path.exists():  # the new folder could not take the name
            with contextlib.suppress(OSError):
                old.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def published_folder(out: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes ``out`` when the block ends without an error.

    Raises:
        CompatibilityError: ``out`` is there already, or another process is exporting to it.
        GrapeError: The disk is full or the folder cannot be written.
    """
    out = out.absolute()
    partial = _partial_folder(out)
    with _translated(out):
        lock = _lock_partial(partial, out)
        try:
            _refuse_existing(out)
            content = partial / "content"
            if content.exists():
                shutil.rmtree(content)  # what a killed export left
            content.mkdir()
            yield content
            for folder, _, _ in os.walk(content):
                sync_folder(Path(folder))
            _take_name(content, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            del lock  # not before: another process would begin in the folder that is being deleted


def clear_leftovers(out: Path) -> None:
    """Remove the hidden folder of an export that was killed after ``out`` had taken its name."""
    partial = _partial_folder(out.absolute())
    with contextlib.suppress(OSError, CompatibilityError):  # not there, or in use
        if {entry.name for entry in partial.iterdir()} <= {*LOCK_NAMES, "content"}:
            lock = lock_folder(partial)
            shutil.rmtree(partial)
            del lock


def _partial_folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.exporting")


@contextlib.contextmanager
def _translated(out: Path) -> Iterator[None]:
    """Turn an OSError of the block into a DataError that says what became of the export."""
    try:
        yield
    except OSError as error:
        raise GrapeError(f"Could not export to {out}: {error.strerror or error}.", _KEPT) from error
    except GrapeError as error:
        if type(error) is GrapeError and isinstance(error.__cause__, OSError):
            reason = error.__cause__.strerror or str(error.__cause__)
            raise GrapeError(f"Could not export to {out}: {reason}.", _KEPT) from error.__cause__
        raise


def _lock_partial(partial: Path, out: Path) -> FolderLock | None:
    """Make the hidden folder and keep other processes out of it."""
    while True:
        partial.mkdir(parents=True, exist_ok=True)
        try:
            lock = lock_folder(partial)
        except CompatibilityError as error:
            raise CompatibilityError(
                f"Another process is exporting to {out}.", "Wait until it is done, or choose another --out."
            ) from error
        if lock is not None or partial.exists():
            return lock
        # The process that worked here ended just now and took the folder with it.


def _take_name(content: Path, out: Path) -> None:
    try:
        content.rename(out)  # onto a folder that is not empty, this fails: whoever came first is kept
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _exists(out) from error
        raise
    sync_folder(out.parent)


def _refuse_existing(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise _exists(out)


def _exists(out: Path) -> CompatibilityError:
    return CompatibilityError(
        f"{out} is there already; it was left as it is.", "Choose another --out, or delete that folder to start afresh."
    )
