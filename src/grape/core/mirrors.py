"""Mirrors: copies in a cache of folders that live behind an address such as ``s3://bucket/run``.

All verbs work on folders. So an address stands for a mirror that is brought up to date before it is read, and whose
finished files are uploaded while it is written. An index beside it holds, of every file, what both sides were when they
last agreed; a side that differs from it was changed since. Files whose names begin with a dot (locks, unfinished files,
a store's own cache) stay here.
"""

import os
import time
from collections.abc import Callable, Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from grape.core.errors import CompatibilityError, DataError, GrapeError
from grape.core.events import SILENT, Progress, Reporter
from grape.core.files import read_json, temporary_path, write_json, write_text
from grape.core.folder_locks import FolderLock, lock_folder
from grape.core.mirror_names import ADDRESS_FILE, mirrors_folder
from grape.core.remote_addresses import RemoteAddress, open_filesystem, remote_error

__all__ = ["Mirror"]

_INDEX, _WRITER = "index.json", ".writer"
_PATIENCE = 0.5
"""Seconds between looks whether another process has fetched what it fetches."""
_TRANSFERS = 8
"""Files that are transferred at once."""
_COMPARED = 2**20
"""Bytes of two files that are compared at once."""
_FIRST = ("run.json", "settings.yaml", "store.json")
_LAST = "done.json"
_UPLOAD_GRACE, _UPLOAD_RATE = 120.0, 50_000
"""Seconds, and further bytes a second, that an upload may take. A library's own limits may not hold for uploads: s3fs
waits without end where a server takes a connection and never answers (aiohttp counts from the end of a request)."""
_SAVED_EVERY = 256
"""Files after which the index is written; those since would be compared again after a crash."""


@dataclass
class _Agreed:
    """What the two sides of a file were when they last agreed: a fingerprint there, size and time here."""

    remote: str
    local: tuple[int, int]


@dataclass
class Mirror:
    """The mirror of an address.

    Attributes:
        address: What it mirrors.
        folder: The mirror's folder; its content is what verbs see.
    """

    address: RemoteAddress
    folder: Path = field(init=False)
    _files: dict[str, _Agreed] = field(init=False, repr=False)
    _filesystem: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.folder = mirrors_folder() / self.address.slug
        self._filesystem = open_filesystem(self.address)
        self.content.mkdir(parents=True, exist_ok=True)
        if not (self.folder / ADDRESS_FILE).exists():
            write_text(self.folder / ADDRESS_FILE, str(self.address))
        self._files = self._read_index()

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

    def pull(self, reporter: Reporter = SILENT) -> None:
        """Fetch what is new or was changed there, and remove what is gone there; what is ahead here is kept.

        Raises:
            GrapeError: The address cannot be reached, or a file came truncated; what was fetched is kept.
            CompatibilityError: A file was changed on both sides.
            DataError: A name there is none that a folder here could have.
        """
        listed = self._listed()
        to_fetch = [name for name, (mark, _) in listed.items() if self._must_fetch(name, mark)]
        if to_fetch:
            with reporter.progress(f"fetch {self.address}", len(to_fetch)) as bar:
                self._transfer(lambda name: self._fetch(name, *listed[name]), to_fetch, bar)
        for name in [name for name in self._files if name not in listed]:
            agreed = self._files.pop(name)
            if _state(self.content / name) == agreed.local:
                (self.content / name).unlink(missing_ok=True)
        self._write_index()

    def push(self, reporter: Reporter = SILENT, *, compare: bool = False) -> int:
        """Upload what is new or was changed here, and delete there what is gone here.

        What says that a folder is whole, ``done.json``, comes last. A folder's own files are listed before those of the
        folders in it, so that whatever was written before a ``done.json`` that is listed is listed, too.

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
        states = dict(_local_files(self.content))
        if not self.content.is_dir():
            raise GrapeError(
                f"{self.content} was deleted while it was written.",
                f"What had been uploaded is at {self.address}: run the same command again to go on with it.",
            )
        changed = [
            name for name, state in states.items() if name not in self._files or self._files[name].local != state
        ]
        gone = [name for name in self._files if name not in states and not (self.content / name).exists()]
        if compare and (changed or gone):
            self._refuse_changed({*changed, *gone})
        if changed or gone:
            with reporter.progress(f"upload to {self.address}", len(changed) + len(gone)) as bar:
                for group in _in_order(changed):
                    self._transfer(self._upload, group, bar)
                self._transfer(self._delete, gone, bar)
        return len(changed)

    def read_remote(self, name: str) -> bytes | None:
        """A small file of the address, read directly; None where there is none."""
        try:
            content: bytes = self._filesystem.cat_file(str(self.address / name))
        except FileNotFoundError:
            return None
        except Exception as error:  # every protocol's package has errors of its own
            raise remote_error(self.address, error) from error
        return content

    def write_remote(self, name: str, content: bytes | None) -> None:
        """Write a small file of the address directly, or delete it."""
        try:
            if content is None:
                self._filesystem.rm_file(str(self.address / name))
            else:
                self._filesystem.pipe_file(str(self.address / name), content, **self._limit(len(content)))
        except FileNotFoundError as error:
            if content is not None:
                raise remote_error(self.address, error) from error
        except Exception as error:  # every protocol's package has errors of its own
            raise remote_error(self.address, error) from error

    def _listed(self) -> dict[str, tuple[str, int]]:
        """Fingerprint and size of every file there, by its name within the address."""
        try:
            self._filesystem.invalidate_cache()
            root = self._filesystem._strip_protocol(str(self.address)).strip("/")
            entries = self._filesystem.find(str(self.address), detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:  # every protocol's package has errors of its own
            raise remote_error(self.address, error) from error
        listed = {}
        for path, facts in entries.items():
            if str(path).endswith("/"):  # what consoles write where somebody makes a folder
                continue
            name = str(path).strip("/").removeprefix(root).strip("/")
            if not name:
                raise DataError(f"{self.address} is a file.", "Name the folder that it lies in.")
            parts = name.split("/")
            if any(part in ("", "..") or "\0" in part or "\\" in part for part in parts):
                raise DataError(f"{self.address} holds a file named {name!r:.80}.", "Rename it there.")
            if facts.get("type", "file") == "file" and not any(part.startswith(".") for part in parts):
                listed[name] = _fingerprint(facts), int(facts.get("size") or 0)
        return listed

    def _must_fetch(self, name: str, mark: str) -> bool:
        """Whether a file there differs from the one here.

        Raises:
            CompatibilityError: Both sides were changed.
        """
        agreed, state = self._files.get(name), _state(self.content / name)
        if agreed is not None and agreed.remote == mark:
            return state is None  # what is ahead here stays
        if state is None or (agreed is not None and agreed.local == state):
            return True
        if self._is_equal(name):  # uploaded by a process that was killed before it could say so
            self._files[name] = _Agreed(mark, state)
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
        for name, (mark, _) in self._listed().items():
            agreed = self._files.get(name)
            if name not in names or (agreed is not None and agreed.remote == mark):
                continue
            if not (self.content / name).exists() or not self._is_equal(name):
                raise CompatibilityError(
                    f"{self.address / name} was changed there by somebody else.",
                    f"What is here is in {self.content}. Choose another --out, or delete {self.folder} to go on with "
                    "what is there.",
                )

    def _is_equal(self, name: str) -> bool:
        try:
            with (
                self._filesystem.open(str(self.address / name), "rb") as there,
                (self.content / name).open("rb") as here,
            ):
                while (part := there.read(_COMPARED)) == here.read(_COMPARED):
                    if not part:
                        return True
                return False
        except Exception as error:  # every protocol's package has errors of its own
            raise remote_error(self.address / name, error) from error

    def _fetch(self, name: str, mark: str, size: int) -> None:
        target = self.content / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(target)
        try:
            self._filesystem.get_file(str(self.address / name), str(temporary))
            if (got := temporary.stat().st_size) != size:
                raise GrapeError(
                    f"{self.address / name} came with {got:,} of {size:,} bytes.", "Run the same command again."
                )
            temporary.replace(target)
        except Exception as error:  # every protocol's package has errors of its own
            raise remote_error(self.address / name, error, "What was fetched is kept.") from error
        finally:
            temporary.unlink(missing_ok=True)
        state = _state(target)
        assert state is not None
        self._files[name] = _Agreed(mark, state)

    def _upload(self, name: str) -> None:
        state = _state(self.content / name)
        if state is None:  # gone meanwhile
            return
        try:
            self._filesystem.put_file(str(self.content / name), str(self.address / name), **self._limit(state[0]))
            facts = self._filesystem.info(str(self.address / name))
        except FileNotFoundError as error:
            if not (self.content / name).exists():
                return
            raise remote_error(self.address, error, self.kept) from error
        except Exception as error:  # every protocol's package has errors of its own
            raise remote_error(self.address, error, self.kept) from error
        self._files[name] = _Agreed(_fingerprint(facts), state)

    def _limit(self, size: int) -> dict[str, float]:
        """How long an upload of so many bytes may take, for file systems that can be told."""
        return {"timeout": _UPLOAD_GRACE + size / _UPLOAD_RATE} if self._filesystem.async_impl else {}

    def _delete(self, name: str) -> None:
        self.write_remote(name, None)
        self._files.pop(name, None)

    @property
    def kept(self) -> str:
        """What a message says of files that could not be uploaded."""
        return f"Everything is in {self.content}: run the same command again to upload the rest."

    def _transfer(self, work: Callable[[str], None], names: list[str], bar: Progress) -> None:
        """Do something with several files at once; what was done is recorded even where one fails."""
        if not names:
            return
        with ThreadPoolExecutor(_TRANSFERS) as pool:
            try:
                for number, _ in enumerate(pool.map(work, names), 1):
                    bar.advance()
                    if number % _SAVED_EVERY == 0:
                        self._write_index()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            finally:
                self._write_index()

    def _read_index(self) -> dict[str, _Agreed]:
        path = self.folder / _INDEX
        if not path.exists():
            return {}
        recorded = read_json(path, hint=f"Delete {self.folder}.")
        files = recorded.get("files") if isinstance(recorded, dict) else None
        if not isinstance(files, dict):
            raise DataError(f"{path} is no index of a mirror.", f"Delete {self.folder}.")
        try:
            return {name: _Agreed(str(mark), (int(size), int(at))) for name, (mark, size, at) in files.items()}
        except (TypeError, ValueError) as error:
            raise DataError(f"{path} is no index of a mirror.", f"Delete {self.folder}.") from error

    def _write_index(self) -> None:
        files = {name: [agreed.remote, *agreed.local] for name, agreed in sorted(self._files.copy().items())}
        write_json(self.folder / _INDEX, {"files": files})


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


def _fingerprint(facts: Mapping[str, Any]) -> str:
    """What changes with a file's content, as far as a protocol says it."""
    names = ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "updated", "created")
    mark = next((facts[name] for name in names if facts.get(name) is not None), "")
    if isinstance(mark, datetime):  # as some file systems say it of one file, and a number in a list of them
        mark = mark.timestamp()
    return f"{facts.get('size')} {mark}"
