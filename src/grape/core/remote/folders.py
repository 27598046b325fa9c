"""Folders behind an address such as ``s3://bucket/run``: what is listed, read and written there, with clear errors."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, GrapeError
from grape.core.files import temporary_path
from grape.core.remote.addresses import RemoteAddress, open_filesystem, remote_error

__all__ = ["RemoteFolder"]

_COMPARED = 2**20
"""Bytes of two files that are compared at once."""
_LONGEST_NAME = 255
"""Bytes of a file's name that file systems take."""
_UPLOAD_GRACE, _UPLOAD_RATE = 120.0, 50_000
"""Seconds, and further bytes a second, that an upload may take. A library's own limits may not hold for uploads: s3fs
waits without end where a server takes a connection and never answers (aiohttp counts from the end of a request)."""


class RemoteFolder:
    """A folder at an address, through fsspec.

    Args:
        address: What it is.

    Raises:
        SettingsError: The protocol is unknown, or its package is missing.
    """

    def __init__(self, address: RemoteAddress) -> None:
        self.address = address
        self._filesystem = open_filesystem(address)

    def read(self, name: str) -> bytes | None:
        """A small file of the address, read directly; None where there is none."""
        try:
            content: bytes = self._filesystem.cat_file(str(self.address / name))
        except FileNotFoundError:
            return None
        except Exception as error:  # every protocol's package has errors of its own
            raise remote_error(self.address, error) from error
        return content

    def write(self, name: str, content: bytes | None) -> None:
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

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file of the address unless there is one; returns whether it was written.

        Where a protocol cannot do both at once, it may replace one that was written this very moment.
        """
        options = self._limit(len(content))
        with contextlib.suppress(TypeError, ValueError, NotImplementedError):  # an older release of its package
            try:
                self._filesystem.pipe_file(str(self.address / name), content, mode="create", **options)
                return True
            except FileExistsError:
                return False
            except OSError as error:
                if "Precondition" in str(error) or getattr(error, "errno", None) == errno.EEXIST:
                    return False
                raise remote_error(self.address, error) from error
        self.write(name, content)
        return True

    def listed(self) -> dict[str, tuple[str, int]]:
        """Fingerprint and size of every file there, by its name within the address.

        Raises:
            GrapeError: The address cannot be reached.
            DataError: It is a file, or holds a name that no file here could have.
        """
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
            if any(
                part in ("", "..") or "\0" in part or "\\" in part or len(os.fsencode(part)) > _LONGEST_NAME
                for part in parts
            ):
                raise DataError(f"{self.address} holds a file named {name!r:.80}.", "Rename it there.")
            if facts.get("type", "file") == "file" and not any(part.startswith(".") for part in parts):
                listed[name] = _fingerprint(facts), int(facts.get("size") or 0)
        for name in listed:
            if any((folder := str(parent)) in listed for parent in Path(name).parents):
                raise DataError(
                    f"{self.address} holds a file and a folder named {folder!r:.80}.", "Rename one of them there."
                )
        return listed

    def is_equal(self, name: str, path: Path, *, beginning: bool = False) -> bool:
        """Whether a file there is the one here, or its beginning."""
        try:
            with (
                self._filesystem.open(str(self.address / name), "rb") as there,
                path.open("rb") as here,
            ):
                while part := there.read(_COMPARED):
                    if part != here.read(len(part)):
                        return False
                return beginning or not here.read(1)
        except Exception as error:  # every protocol's package has errors of its own
            raise remote_error(self.address / name, error) from error

    def hash_of(self, name: str) -> str:
        """SHA-256 of a file there, as 64 hexadecimal digits."""
        digest = hashlib.sha256()
        try:
            with self._filesystem.open(str(self.address / name), "rb") as there:
                while part := there.read(_COMPARED):
                    digest.update(part)
        except Exception as error:  # every protocol's package has errors of its own
            raise remote_error(self.address / name, error) from error
        return digest.hexdigest()

    def fetch(self, name: str, target: Path, size: int) -> None:
        """Copy a file from there, whole or not at all.

        Raises:
            GrapeError: The address cannot be reached, or fewer bytes came.
        """
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

    def upload(self, name: str, path: Path, size: int, kept: str) -> str:
        """Copy a file to there.

        Args:
            name: Its name there.
            path: The file.
            size: Its bytes, more or less.
            kept: What was not lost, for messages.

        Returns:
            Its fingerprint there.

        Raises:
            GrapeError: The address cannot be reached.
        """
        try:
            self._filesystem.put_file(str(path), str(self.address / name), **self._limit(size))
            return _fingerprint(self._filesystem.info(str(self.address / name)))
        except Exception as error:  # every protocol's package has errors of its own
            raise remote_error(self.address, error, kept) from error

    def _limit(self, size: int) -> dict[str, float]:
        """How long an upload of so many bytes may take, for file systems that can be told."""
        return {"timeout": _UPLOAD_GRACE + size / _UPLOAD_RATE} if self._filesystem.async_impl else {}


def _fingerprint(facts: Mapping[str, Any]) -> str:
    """What changes with a file's content, as far as a protocol says it."""
    names = ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "updated", "created")
    mark = next((facts[name] for name in names if facts.get(name) is not None), "")
    if isinstance(mark, datetime):  # as some file systems say it of one file, and a number in a list of them
        mark = mark.timestamp()
    return f"{facts.get('size')} {mark}"
