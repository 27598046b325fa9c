"""Mirrors: copies in a cache of folders that live behind an address such as ``s3://bucket/run``.

All verbs work on folders. So an address stands for a mirror that is brought up to date before it is read, and whose
finished files are uploaded while it is written. An index beside it (:mod:`grape.core.remote.mirror_index`) holds, of
every file, what both sides were when they last agreed; a side that differs from it was changed since. Files whose names
begin with a dot (locks, unfinished files, a store's own cache) stay here.
"""

import os
import secrets
import shutil
import time
import weakref
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from grape.core.errors import CompatibilityError, GrapeError
from grape.core.events import SILENT, Progress, Reporter
from grape.core.files import file_hash, write_text
from grape.core.folder_locks import FolderLock, lock_folder
from grape.core.remote.addresses import RemoteAddress
from grape.core.remote.folders import RemoteFolder
from grape.core.remote.mirror_index import Agreed, MirrorIndex
from grape.core.remote.mirror_names import ADDRESS_FILE, mirrors_folder

__all__ = ["Mirror"]

_WRITER, _READERS = ".writer", ".readers"
_PATIENCE = 0.5
"""Seconds between looks whether another process has fetched what it fetches."""
_TRANSFERS = 8
"""Files that are transferred at once."""
_FIRST = ("run.json", "settings.yaml", "store.json")
_LAST = "done.json"
_NEVER = -1, -1
"""Size and time of no file: one whose state here is this one is to be uploaded."""


@dataclass
class Mirror:
    """The mirror of an address.

    Attributes:
        address: What it mirrors.
        folder: The mirror's folder; its content is what verbs see.
        remote: The folder at the address.
    """

    address: RemoteAddress
    folder: Path = field(init=False)
    remote: RemoteFolder = field(init=False, repr=False)
    _index: MirrorIndex = field(init=False, repr=False)
    _address_file: tuple[int, int] | None = field(init=False, repr=False)
    _handle: "_FolderHandle" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.folder = mirrors_folder() / self.address.slug
        self.remote = RemoteFolder(self.address)
        self.content.mkdir(parents=True, exist_ok=True)
        if not (self.folder / ADDRESS_FILE).exists():
            write_text(self.folder / ADDRESS_FILE, str(self.address))
        self._index = MirrorIndex(self.folder)
        self._address_file = _state(self.folder / ADDRESS_FILE)
        self._handle = _FolderHandle(self.content)

    @property
    def content(self) -> Path:
        """The folder that stands for the address, under its name."""
        return self.folder / self.address.path.rpartition("/")[2]

    def lock_transfers(self, reporter: Reporter = SILENT) -> FolderLock | None:
        """Keep other processes of this machine from fetching as long as the object lives; wait until none does."""
        waiting = False
        while True:
            try:
                return lock_folder(self.folder)
            except CompatibilityError:
                if not waiting:
                    reporter.info(f"Another process is fetching {self.address}: waiting for it.")
                waiting = True
                time.sleep(_PATIENCE)

    def lock_content(self) -> FolderLock | None:
        """Keep other processes of this machine from writing the content as long as the object lives.

        Raises:
            CompatibilityError: Another process does.
        """
        place = self.folder / _WRITER
        place.mkdir(exist_ok=True)
        try:
            return lock_folder(place)
        except CompatibilityError as error:
            raise CompatibilityError(
                f"Another process of this machine is writing to {self.address}.",
                "Wait until it is done, or choose another --out.",
            ) from error

    def is_written(self) -> bool:
        """Whether another process of this machine is writing the content."""
        try:
            lock = self.lock_content()
        except CompatibilityError:
            return True
        del lock
        return False

    def lock_reading(self) -> FolderLock | None:
        """Keep files here from being replaced and removed by other processes as long as the object lives."""
        place = self.folder / _READERS / f"{os.getpid()}-{secrets.token_hex(4)}"
        place.mkdir(parents=True)
        return lock_folder(place)

    def pull(self, reporter: Reporter = SILENT) -> None:
        """Fetch what is new or was changed there, and remove what is gone there; what is ahead here is kept.

        Raises:
            GrapeError: The address cannot be reached, or a file came truncated; what was fetched is kept.
            CompatibilityError: A file was changed on both sides, or another process of this machine is reading it.
            DataError: A name there is none that a folder here could have.
        """
        self._index.load()
        listed = self.remote.listed()
        to_fetch = [name for name, (mark, _) in listed.items() if self._must_fetch(name, mark)]
        gone = [name for name in self._index if name not in listed]
        replaced = [name for name in (*to_fetch, *gone) if (self.content / name).exists()]
        if replaced and self._is_read():
            raise CompatibilityError(
                f"{self.address / replaced[0]} has changed since another process of this machine began to read it.",
                "Wait until that has ended, or set XDG_CACHE_HOME to another folder.",
            )
        if to_fetch:
            with reporter.progress(f"fetch {self.address}", len(to_fetch)) as bar:
                self._transfer(lambda name: self._fetch(name, *listed[name]), to_fetch, bar)
        for name in gone:
            agreed = self._index.get(name)
            if agreed is not None and _state(self.content / name) == agreed.local:
                (self.content / name).unlink(missing_ok=True)
            self._index.forget(name)
        self._index.compact()

    def ahead(self) -> list[str]:
        """Files here that are not at the address as they are here: a writer that was killed could not upload them."""
        states = _local_files(self.content)
        return [name for name, state in states if (agreed := self._index.get(name)) is None or agreed.local != state]

    def _is_read(self) -> bool:
        """Whether another process of this machine reads what is here; leftovers of ended ones are removed."""
        for place in (self.folder / _READERS).glob("*"):
            if place.name.startswith(f"{os.getpid()}-"):
                continue
            try:
                lock = lock_folder(place)
            except CompatibilityError:
                return True
            del lock
            shutil.rmtree(place, ignore_errors=True)
        return False

    def push(self, reporter: Reporter = SILENT, *, compare: bool = False) -> int:
        """Upload what is new or was changed here, and delete there what is gone here.

        What says that a folder is whole, ``done.json``, comes last, and one that is there goes before anything else. A
        folder's own files are listed before those of the folders in it, so that whatever was written before a
        ``done.json`` that is listed is listed, too.

        Args:
            reporter: Progress.
            compare: Whether to look first that nobody else has changed there what is to be replaced or deleted.

        Returns:
            How many files were uploaded.

        Raises:
            GrapeError: The address cannot be reached; nothing is lost here. Or the mirror was deleted meanwhile, which
                does not mean that the files there shall go.
            CompatibilityError: Somebody else has changed a file there.
        """
        self._refuse_deleted()
        states = dict(_local_files(self.content))
        changed = [
            name for name, state in states.items() if (agreed := self._index.get(name)) is None or agreed.local != state
        ]
        gone = [name for name in self._index if name not in states and not (self.content / name).exists()]
        if compare and (changed or gone):
            self._refuse_changed({*changed, *gone})
        if changed or gone:
            # A folder that changes is not whole meanwhile: what says so goes first, and comes back last.
            stale = [name for name in (*gone, *changed) if Path(name).name == _LAST and name in self._index]
            with reporter.progress(f"upload to {self.address}", len(changed) + len(gone) + len(stale)) as bar:
                self._transfer(self._delete, stale, bar)
                for group in _in_order(changed):
                    self._transfer(self._upload, group, bar)
                self._transfer(self._delete, [name for name in gone if name not in stale], bar)
        if compare:
            self._index.compact()
        return len(changed)

    def _refuse_deleted(self) -> None:
        """Refuse to go on in a mirror that was deleted: it does not mean that the files there shall go.

        Raises:
            GrapeError: It was, even if something has been written to its place since.
        """
        is_there = self._address_file is not None and _state(self.folder / ADDRESS_FILE) == self._address_file
        if is_there and self.content.is_dir() and not any(self._index):
            self._handle = _FolderHandle(self.content)  # exports put a new folder in the place of an empty one
        if not (is_there and self._handle.is_at(self.content)):
            self._address_file = None  # for good, whatever else is written to its place
            raise GrapeError(
                f"{self.content} was deleted while it was written.",
                f"What had been uploaded is at {self.address}: run the same command again to go on with it.",
            )

    def _must_fetch(self, name: str, mark: str) -> bool:
        """Whether a file there differs from the one here.

        Raises:
            CompatibilityError: Both sides were changed.
        """
        agreed, state = self._index.get(name), _state(self.content / name)
        if agreed is not None and agreed.remote == mark:
            return state is None  # what is ahead here stays
        if state is None or (agreed is not None and agreed.local == state):
            return True
        if self.remote.is_equal(name, self.content / name):  # a process uploaded it, and was killed
            self._index.agree(name, Agreed(mark, state))
            return False
        if self._is_own(name):  # likewise, and changed here since
            self._index.agree(name, Agreed(mark, _NEVER))
            return False
        raise CompatibilityError(
            f"{self.address / name} was changed there, and {self.content / name} here.",
            f"Delete {self.folder} to go on with what is there, or choose another address.",
        )

    def _refuse_changed(self, names: Container[str]) -> None:
        """Refuse to replace or delete what is not there as it was left.

        Raises:
            CompatibilityError: A file there is not what it was.
        """
        for name, (mark, _) in self.remote.listed().items():
            agreed = self._index.get(name)
            if name not in names or (agreed is not None and agreed.remote == mark):
                continue
            path = self.content / name
            if not path.exists() or not (self.remote.is_equal(name, path) or self._is_own(name)):
                raise CompatibilityError(
                    f"{self.address / name} was changed there by somebody else.",
                    f"What is here is in {self.content}. Choose another --out, or delete {self.folder} to go on with "
                    "what is there.",
                )

    def _is_own(self, name: str) -> bool:
        """Whether a file there is what was being uploaded when a process was killed, or the beginning of a log here."""
        if not (sent := self._index.sent(name)):
            return False
        return self.remote.hash_of(name) == sent or self.remote.is_equal(name, self.content / name, beginning=True)

    def _fetch(self, name: str, mark: str, size: int) -> None:
        target = self.content / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self.remote.fetch(name, target, size)
        state = _state(target)
        assert state is not None
        self._index.agree(name, Agreed(mark, state))

    def _upload(self, name: str) -> None:
        path = self.content / name
        state = _state(path)
        try:
            if state is not None:
                self._index.send(name, file_hash(path))
                self._index.agree(name, Agreed(self.remote.upload(name, path, state[0], self.kept), state))
        except (GrapeError, FileNotFoundError):
            if path.exists():
                raise  # else it is gone meanwhile

    def _delete(self, name: str) -> None:
        self.remote.write(name, None)
        self._index.forget(name)

    @property
    def kept(self) -> str:
        """What a message says of files that could not be uploaded."""
        return f"Everything is in {self.content}: run the same command again to upload the rest."

    def _transfer(self, work: Callable[[str], None], names: list[str], bar: Progress) -> None:
        """Do something with several files at once."""
        if not names:
            return
        with ThreadPoolExecutor(_TRANSFERS) as pool:
            try:
                for _ in pool.map(work, names):
                    bar.advance()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


class _FolderHandle:
    """Tells whether a path still is the folder that it was: no other folder has its number as long as it is open.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self._number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._number)

    def is_at(self, path: Path) -> bool:
        """Whether it is the folder at this path."""
        try:
            return os.path.samestat(os.fstat(self._number), path.stat())
        except OSError:
            return False


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of a file here; None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size, status.st_mtime_ns


def _local_files(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Finished files of a folder by their names within it, with size and time."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place) / name
            if not name.startswith(".") and (state := _state(path)) is not None:
                yield path.relative_to(folder).as_posix(), state


def _in_order(names: list[str]) -> list[list[str]]:
    """Files in groups that go up one after the other: what a run is, its parts, and what says that they are whole."""
    first = [name for name in names if Path(name).name in _FIRST]
    last = sorted((name for name in names if Path(name).name == _LAST), key=lambda name: -name.count("/"))
    others = [name for name in names if Path(name).name not in (*_FIRST, _LAST)]
    return [first, others, *([name] for name in last)]
