"""Consoles that escape control characters, and a reporter that shows progress on standard error."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from grape.core.errors import printable, shortened
from grape.core.events import Progress

__all__ = ["ConsoleReporter", "SafeConsole"]

# Without a terminal a line replaces the bar; one every so many seconds keeps logs of CI short.
PLAIN_INTERVAL_SECONDS = 15.0

# Tables in files and pipes: wide enough for the longest names, so that no line breaks within one.
PLAIN_WIDTH = 200

_LOGGER = logging.getLogger("grape")


class SafeConsole(Console):
    """A rich console that prints untrusted text safely.

    Strings, also in tables, are printed as they are: control characters escaped, no markup, no emoji codes, no
    highlighting. Styles are given as styles.

    Args:
        stderr: Whether to print on standard error instead of standard output.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)
        if not self.is_terminal and not os.environ.get("COLUMNS"):
            self.width = PLAIN_WIDTH

    def render_str(self, text: str, **options: Any) -> Text:
        """The text with control characters escaped."""
        return super().render_str(printable(text), **options)


class ConsoleReporter:
    """Draws progress bars on a terminal and plain lines otherwise; messages go to the logger ``grape``, too (debug).

    Args:
        console: Where to draw; normally standard error.
    """

    def __init__(self, console: SafeConsole) -> None:
        self._console = console

    @contextlib.contextmanager
    def progress(self, title: str, total: int, done: int = 0) -> Iterator[Progress]:
        """Bar of ``total`` units of which ``done`` were there already."""
        if not self._console.is_terminal:
            line = _PlainProgress(self._console, title, total, done)
            yield line
            line.close()
            return
        columns = (
            TextColumn("{task.description:<24}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with RichProgress(*columns, console=self._console) as bars:
            yield _BarProgress(bars, title, total, done)

    def info(self, message: str) -> None:
        """Tell the user something."""
        _LOGGER.debug("%s", message, extra={"on_console": True})
        self._console.print(shortened(message), soft_wrap=True)

    def warn(self, message: str) -> None:
        """Warn the user."""
        _LOGGER.debug("warning: %s", message, extra={"on_console": True})
        self._console.print(f"warning: {shortened(message)}", style="yellow", soft_wrap=True)


class _BarProgress:
    def __init__(self, bars: RichProgress, title: str, total: int, done: int) -> None:
        self._bars = bars
        self._task = bars.add_task(printable(title), total=total, completed=done, note="")

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Move the bar."""
        self._bars.update(self._task, advance=amount, note=printable(note))


class _PlainProgress:
    def __init__(self, console: SafeConsole, title: str, total: int, done: int) -> None:
        self._console, self._title, self._total, self._done = console, title, total, done
        self._began = self._last = time.monotonic()
        self._note = ""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Print a line now and then."""
        self._done += amount
        self._note = note
        now = time.monotonic()
        if now - self._last >= PLAIN_INTERVAL_SECONDS:
            self._last = now
            self._print(now)

    def close(self) -> None:
        """Print the last line."""
        self._print(time.monotonic())

    def _print(self, now: float) -> None:
        self._console.print(
            f"{self._title}: {self._done}/{self._total}  {now - self._began:.0f} s  {self._note}".rstrip(),
            soft_wrap=True,
        )
