"""Progress, messages and warnings of long-running work, and events in ``log.jsonl``.

Packages receive a :class:`Reporter` and never print. The command line hands in one that draws progress bars on
standard error; tests and libraries may leave the silent default, or hand in a :class:`LoggingReporter`.
"""

import contextlib
import json
import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from grape.core.errors import GrapeError
from grape.core.remote.mirror_names import with_addresses

__all__ = ["SILENT", "LoggingReporter", "Progress", "Reporter", "SilentReporter", "append_event", "append_line"]


class Progress(Protocol):
    """One bar of work under way."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count ``amount`` units as done and show ``note`` beside the bar."""


class Reporter(Protocol):
    """Receiver of a verb's progress, messages and warnings."""

    def progress(self, title: str, total: int, done: int = 0) -> contextlib.AbstractContextManager[Progress]:
        """Bar of ``total`` units of which ``done`` were there already."""

    def info(self, message: str) -> None:
        """Tell the user something."""

    def warn(self, message: str) -> None:
        """Warn the user; always shown."""


class _SilentProgress:
    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count nothing."""


class SilentReporter:
    """A reporter that says nothing."""

    @contextlib.contextmanager
    def progress(self, title: str, total: int, done: int = 0) -> Iterator[Progress]:
        """Yield a bar that is not drawn."""
        yield _SilentProgress()

    def info(self, message: str) -> None:
        """Drop the message."""

    def warn(self, message: str) -> None:
        """Drop the warning."""


SILENT = SilentReporter()

_LOGGER = logging.getLogger("grape")


class _LoggedProgress:
    def __init__(self, logger: logging.Logger, title: str, total: int, done: int) -> None:
        self._logger, self._title, self._total, self._done = logger, title, total, done

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Log the count."""
        self._done += amount
        self._logger.debug("%s: %d/%d %s", self._title, self._done, self._total, note)


class LoggingReporter:
    """A reporter for programs that call verbs: messages and warnings become log records, progress debug records.

    Args:
        logger: Where they go; by default the logger ``grape``.
    """

    def __init__(self, logger: logging.Logger = _LOGGER) -> None:
        self._logger = logger

    @contextlib.contextmanager
    def progress(self, title: str, total: int, done: int = 0) -> Iterator[Progress]:
        """Log the beginning, every advance and, where the work was done, the end."""
        self._logger.debug("%s: %d/%d", title, done, total)
        yield _LoggedProgress(self._logger, title, total, done)
        self._logger.debug("%s: done", title)

    def info(self, message: str) -> None:
        """Log the message."""
        self._logger.info("%s", message)

    def warn(self, message: str) -> None:
        """Log the warning."""
        self._logger.warning("%s", message)


def append_event(folder: Path, kind: str, **fields: Any) -> None:
    """Append one event with the time of day to ``folder/log.jsonl``.

    The log is for people and tools that watch a run; nothing is ever computed from it, so a line truncated by a kill
    costs that line only.
    """
    _LOGGER.debug("%s: %s %s", folder, kind, fields)
    line = json.dumps(
        {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": kind, **with_addresses(fields)}, default=str
    )
    append_line(folder / "log.jsonl", line)


def append_line(path: Path, line: str) -> None:
    """Append a line to a regular file; one truncated by a kill before is ended first.

    Raises:
        GrapeError: The path cannot be written, is a link, or is no regular file; nothing waits for a FIFO's reader.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        with os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0) as handle:
            if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
                raise OSError("it is no regular file")
            size = handle.seek(0, os.SEEK_END)
            torn = size > 0 and os.pread(handle.fileno(), 1, size - 1) != b"\n"
            handle.write((("\n" if torn else "") + line + "\n").encode("utf-8", "backslashreplace"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise GrapeError(f"{path} cannot be written: {reason}.", "Remove it, or choose another folder.") from error
