"""Worker processes of this machine."""

import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from grape.core.child_processes import SINGLE_THREADED, ChildProcess, search_path
from grape.mapping.attempt import Outcome

__all__ = ["LocalStarter"]

_EXIT_SECONDS = 5.0


class LocalWorker:
    """A worker process, connected by a pair of sockets."""

    def __init__(self) -> None:
        self.link, far_end = Pipe()
        with far_end:
            descriptor = far_end.fileno()
            command = [sys.executable, "-P", "-m", "grape.mapping.worker", str(descriptor), str(os.getpid())]
            self.program = ChildProcess(command, os.environ | SINGLE_THREADED | search_path(), descriptor)

    def begin(self, function: Callable[[Any], Any]) -> None:
        """Send the function of the shards that follow; it is found by its name there."""
        self._send("function", function)

    def give(self, shard: Any) -> None:
        """Send a shard; it is computed after those that were sent before."""
        self._send("shard", shard)

    def take(self) -> Outcome:
        """Wait for the outcome of the oldest shard.

        Raises:
            EOFError: The process is gone; the message says how it ended.
        """
        try:
            outcome = self.link.recv()
        except (EOFError, OSError) as error:
            raise EOFError(self.program.wait(_EXIT_SECONDS)) from error
        assert isinstance(outcome, Outcome)
        return outcome

    def kill(self) -> None:
        """End the process at once."""
        self.program.kill()
        self.link.close()

    def _send(self, kind: str, value: Any) -> None:
        try:
            self.link.send((kind, value))
        except OSError:
            return  # the process is gone: taking the outcome will say so


class LocalStarter:
    """Starts workers as processes of this machine."""

    def start(self) -> LocalWorker:
        """Start a worker."""
        return LocalWorker()

    def ready(self, workers: Sequence[LocalWorker], seconds: float) -> list[LocalWorker]:
        """Wait for the first of the workers whose outcome can be taken."""
        links: list[Connection] = [worker.link for worker in workers]
        readable = wait(links, seconds)
        return [worker for worker in workers if worker.link in readable]
