"""Programs that this process starts and that end with it: their environment, their end, and what they wrote before it.

Both sides import this module, a program in an external interpreter, too (see :mod:`grape.envs.external_main`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

__all__ = ["SINGLE_THREADED", "ChildProcess", "how_it_ended", "leave_with_parent", "search_path"]

SINGLE_THREADED = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Variables of a program that shares the cores with others of its kind."""

_QUOTED = 2000  # characters of standard error
_PARENT_CHECK_SECONDS = 1.0


def search_path() -> dict[str, str]:
    """The variable with which a program in this interpreter finds the modules that this process finds."""
    return {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}


def how_it_ended(code: int) -> str:
    """A process's return code in words, to follow its name."""
    return f"was killed by signal {-code}" if code < 0 else f"left with code {code}"


def leave_with_parent(parent: int) -> None:
    """End this process from now on when its parent ends, whatever its other threads do.

    Args:
        parent: Process id of the parent.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os._exit(1)


class ChildProcess:
    """A program that answers on a connection of its own; its standard error is kept for the case that it ends.

    Args:
        command: Its argument vector.
        environment: All of its variables.
        descriptor: The connection's end that it takes over.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], descriptor: int) -> None:
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill
        self._process = subprocess.Popen(
            command,
            pass_fds=[descriptor],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # simulators print banners to stdout; standard output belongs to results
            stderr=self._stderr,
        )

    @property
    def pid(self) -> int:
        """The process's id, for who measures its time and memory."""
        return self._process.pid

    def wait(self, seconds: float | None = None) -> str:
        """How the process ended and the end of what it wrote to standard error.

        Args:
            seconds: How long to wait for its end; None for ever.
        """
        try:
            ended = how_it_ended(self._process.wait(timeout=seconds))
        except subprocess.TimeoutExpired:
            ended = "closed its connection"
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _QUOTED))
        words = self._stderr.read().decode(errors="replace").strip()
        return f"{ended}; end of its stderr: {words}" if words else ended

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        self._stderr.close()
