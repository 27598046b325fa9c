"""How long work tells what it is doing: progress for people, events for machines.

Rooms receive a :class:`Reporter` and never print. The command line hands in one that draws progress bars on
standard error; tests and libraries may leave the silent default.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

__all__ = ["SILENT", "Progress", "Reporter", "SilentReporter", "append_event"]


class Progress(Protocol):
    """One bar of work under way."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count ``amount`` units as done and show ``note`` beside the bar."""


class Reporter(Protocol):
    """Where a verb sends what it wants known."""

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


def append_event(folder: Path, kind: str, **fields: Any) -> None:
    """Append one event with the time of day to ``folder/log.jsonl``.

    The log is for people and tools that watch a run; nothing is ever computed from it, so a line torn by a kill
    costs that line only.
    """
    line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": kind, **fields}, default=str)
    with (folder / "log.jsonl").open("a", encoding="utf-8") as handle:
        handle.write(line + "\n")
