"""The command line: ``main`` picks a verb, ``verb`` parses and runs it, ``verbs/`` has one short module a verb."""

import os
import signal
import sys
from types import FrameType


def leave_early(number: int, frame: FrameType | None) -> None:
    """Answer Ctrl-C while the command is still being imported; :mod:`grape.cli.main` takes over from here."""
    os.write(2, b"error: Interrupted.\n")
    os._exit(128 + number)


# The command itself, not a program that imports it.
_IS_COMMAND = os.path.basename(sys.argv[0]) == "grape" or sys.argv[0].endswith("grape/__main__.py")
if _IS_COMMAND and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave_early)
