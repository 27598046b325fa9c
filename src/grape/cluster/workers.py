"""Worker processes as actors: each runs the worker program, which speaks to its pool without going through Ray."""

import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grape.cluster.actors import ActorProcess, change_folder
from grape.cluster.links import Door, Invitation, connect
from grape.cluster.releases import differences, releases, suite_releases
from grape.cluster.session import node_address
from grape.core.errors import SimulatorError
from grape.envs.registry import get_suite
from grape.envs.worker_process import Exit, WorkerProcess, WorkerProgram

__all__ = ["NoRoomError", "RayStarter", "SimulatorWorker", "WorkerShare"]

_EXIT_SECONDS = 10.0
_ROOM_SECONDS = 180.0  # without a single connected worker; a new node takes a while
_MOST_FAILED_STARTS = 3
_MOST_LOSSES = 3  # of a worker and those in its place, while no worker is connected


class NoRoomError(SimulatorError):
    """No node has room for a worker."""


@dataclass(frozen=True)
class WorkerShare:
    """What Ray reserves for a worker.

    Attributes:
        cpus: CPUs; 0 reserves none.
        resource: A resource that its node must have; empty for any node.
    """

    cpus: float
    resource: str = ""


class SimulatorWorker:
    """The actor around one worker program."""

    def run(
        self, invitation: Invitation, suite_name: str, python: Path | None, folder: str, expected: Mapping[str, str]
    ) -> str:
        """Start the worker program on a connection to its pool, and wait for its end.

        Args:
            invitation: Where the pool is.
            suite_name: Registered name of the suite.
            python: Another interpreter, or None for this one.
            folder: Working directory, where this node has it.
            expected: Releases that this node must have: it may have joined after the nodes were looked at.

        Returns:
            How it ended.
        """
        change_folder(folder)
        own = releases() if python is not None else releases() | suite_releases(get_suite(suite_name))
        if text := differences(expected, own):
            return f"ran on {node_address()}, which has other releases: {text}"
        return WorkerProgram(suite_name, python, connect(invitation)).wait()


class _RayWorker:
    """A worker that a pool asked for."""

    def __init__(self, actor: ActorProcess) -> None:
        self.link: socket.socket | None = None
        self.actor = actor
        self.losses = 0

    @property
    def is_connected(self) -> bool:
        """Whether its pool can speak to it."""
        return self.link is not None and self.link.fileno() >= 0

    def exit(self) -> Exit:
        # Ray may take longer than that to notice that a node is gone.
        return self.actor.exit(_EXIT_SECONDS) or Exit("closed its connection", lost=True)

    def kill(self) -> None:
        self.actor.kill()
        if self.link is not None:
            self.link.close()


class RayStarter:
    """Starts the workers of a pool as actors; they may run on other nodes.

    Args:
        suite_name: Registered name of the suite.
        python: Another interpreter for the workers, at this path on every node; None for Ray's.
        share: What is reserved for each.
        suite_versions: The suite's releases, as :func:`~grape.cluster.releases.suite_releases` names them.
    """

    def __init__(
        self, suite_name: str, python: Path | None, share: WorkerShare, suite_versions: Mapping[str, str]
    ) -> None:
        self._door = Door(node_address())
        self._expected_releases = {**releases(), **suite_versions}
        self._suite_name, self._python, self._share = suite_name, python, share
        self._expected: dict[int, _RayWorker] = {}
        self._connected: list[_RayWorker] = []
        self._number = 0
        self._failed_starts = 0
        self._lonely_since: float | None = None

    @property
    def doors(self) -> Sequence[socket.socket]:
        """One is readable when a worker may have connected."""
        return self._door.sockets

    def start(self) -> WorkerProcess:
        """Start a worker; it connects when Ray has found room for it."""
        worker = _RayWorker(self._actor(self._number))
        self._expected[self._number] = worker
        self._number += 1
        return worker

    def admit(self) -> None:
        """Take the connections that arrived, and start again what ended before it connected.

        Raises:
            SimulatorError: Workers end before they connect, again and again.
            NoRoomError: No node has had room for a single one for minutes.
        """
        for number, link in self._door.admit().items():
            worker = self._expected.pop(number, None)
            if worker is None:
                link.close()
                continue
            worker.link = link
            self._connected.append(worker)
            self._failed_starts = 0
        for number, worker in list(self._expected.items()):
            end = worker.actor.exit()
            if end is None:
                continue
            if end.lost:  # a node takes all of its workers with it, which is one loss of each
                worker.losses += 1
            else:
                self._failed_starts += 1
            given_up = worker.losses > _MOST_LOSSES and not any(other.is_connected for other in self._connected)
            if self._failed_starts > _MOST_FAILED_STARTS or given_up:
                raise SimulatorError(
                    f"Workers end before they begin. The last one {end.description}",
                    "Look for the reason in the logs of Ray's nodes.",
                )
            del self._expected[number]
            worker.actor = self._actor(self._number)
            self._expected[self._number] = worker
            self._number += 1
        self._check_room()

    def close(self) -> None:
        """Listen no more; the workers are their pool's to end."""
        self._door.close()

    def _actor(self, number: int) -> ActorProcess:
        return ActorProcess(
            SimulatorWorker,
            self._door.invite(number),
            self._suite_name,
            self._python,
            os.getcwd(),
            self._expected_releases,
            cpus=self._share.cpus,
            resource=self._share.resource,
        )

    def _check_room(self) -> None:
        self._connected = [worker for worker in self._connected if worker.is_connected]
        if self._connected:
            self._lonely_since = None
            return
        now = time.monotonic()
        self._lonely_since = now if self._lonely_since is None else self._lonely_since
        if now - self._lonely_since > _ROOM_SECONDS:
            raise NoRoomError(
                f"No node had room for a worker for {_ROOM_SECONDS:g} s. A worker asks for {self._share.cpus:g} CPUs"
                + (f" on a node with the resource {self._share.resource!r}." if self._share.resource else "."),
                "Add nodes, or ask for less, e.g. --worker-cpus 0.5.",
            )
