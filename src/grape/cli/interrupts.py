"""Ctrl-C and SIGTERM end a verb in the same orderly way, however often and whenever they come.

The first one raises an exception, so that workers end and temporary files go. A second one during that is answered by
a line; a third one ends the process at once.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from grape.cli import leave_early

__all__ = ["Interrupted", "interruptible"]

_WORDS = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells count it."""
        return 128 + self.number

    @property
    def word(self) -> str:
        """What happened, as a sentence begins."""
        return _WORDS[signal.Signals(self.number)]


class _Handler:
    """Counts signals; see the module."""

    def __init__(self) -> None:
        self.count = 0
        self.over = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.over or self.count > 2:
            os._exit(128 + number)
        if self.count == 2:
            os.write(2, b"Stopping what runs. Once more ends at once, and may leave temporary files.\n")
            return
        raise Interrupted(number)


@contextlib.contextmanager
def interruptible(whole_process: bool) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into :class:`Interrupted` within the block.

    Signals that are ignored, or handled by someone else, stay as they are.

    Args:
        whole_process: The process ends after the block: signals that come until then end it without a traceback.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _Handler()
    before = {}
    for number in _WORDS:
        current = signal.getsignal(number)
        if current in (signal.SIG_DFL, signal.default_int_handler, leave_early):
            before[number] = current
            signal.signal(number, handler)
    hook = sys.unraisablehook
    sys.unraisablehook = lambda raised: None if _lost(raised, handler) else hook(raised)
    try:
        yield
    finally:
        if whole_process:
            handler.over = True
        else:
            sys.unraisablehook = hook
            for number, current in before.items():
                signal.signal(number, current)


def _lost(raised: "sys.UnraisableHookArgs", handler: _Handler) -> bool:
    """Whether an interruption fell into a place that drops exceptions (a destructor); the next signal then counts."""
    if isinstance(raised.exc_value, Interrupted):
        handler.count = 0
        return True
    return False
