"""One worker program, and who starts them: the seam between a pool and the machine that its workers run on."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from grape.core.child_processes import ChildProcess
from grape.envs.external_python import worker_command

__all__ = ["Exit", "LocalStarter", "WorkerProcess", "WorkerProgram", "WorkerStarter"]

_EXIT_SECONDS = 5.0


@dataclass(frozen=True)
class Exit:
    """How a worker ended.

    Attributes:
        description: In words, to follow "The simulator of ...", with the end of its standard error.
        lost: Whether it was taken away together with what it ran in, e.g. its node: no fault of the simulator.
    """

    description: str
    lost: bool = False


class WorkerProcess(Protocol):
    """A worker that was started, on this machine or on another one."""

    @property
    def link(self) -> socket.socket | None:
        """The connection to the worker program; None until it is there."""

    def exit(self) -> Exit:
        """How it ended, after its connection closed; call before :meth:`kill`."""

    def kill(self) -> None:
        """End it at once."""


class WorkerStarter(Protocol):
    """Starts the workers of a pool."""

    @property
    def doors(self) -> Sequence[socket.socket]:
        """One is readable when a worker may have connected; none where workers are connected from their start on."""

    def start(self) -> WorkerProcess:
        """Start a worker; returns at once."""

    def admit(self) -> None:
        """Take the connections that arrived and see to workers that ended before they connected.

        Raises:
            SimulatorError: Workers cannot be started.
        """


class WorkerProgram(ChildProcess):
    """The worker program as a process of this machine, which ends with this process.

    It is :mod:`grape.envs.worker`, in this interpreter or in an external one.

    Args:
        suite_name: Registered name of the suite.
        python: Another interpreter, or None for this one.
        worker_end: A connected socket that the program takes over; it is closed here.
    """

    def __init__(self, suite_name: str, python: Path | None, worker_end: socket.socket) -> None:
        command, environment = worker_command(python, worker_end.fileno(), suite_name)
        with worker_end:
            super().__init__(command, environment, worker_end.fileno())


class _LocalWorker:
    """A worker program of this machine, connected by a pair of sockets."""

    def __init__(self, suite_name: str, python: Path | None) -> None:
        self.link, worker_end = socket.socketpair()
        self.program = WorkerProgram(suite_name, python, worker_end)

    def exit(self) -> Exit:
        return Exit(self.program.wait(_EXIT_SECONDS))

    def kill(self) -> None:
        self.program.kill()
        self.link.close()


class LocalStarter:
    """Starts workers as processes of this machine.

    Args:
        suite_name: Registered name of the suite.
        python: Another interpreter for the workers, see :mod:`grape.envs.external_python`; None for this one.
    """

    doors = ()

    def __init__(self, suite_name: str, python: Path | None = None) -> None:
        self._suite_name = suite_name
        self._python = python

    def start(self) -> WorkerProcess:
        """Start a worker; it is connected at once."""
        return _LocalWorker(self._suite_name, self._python)

    def admit(self) -> None:
        """Do nothing: workers are connected from their start on."""
