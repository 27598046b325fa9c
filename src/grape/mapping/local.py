"""Worker processes of this machine."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import IO, Any

from grape.mapping.attempt import Outcome

__all__ = ["LocalStarter"]

_SINGLE_THREADED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_EXIT_SECONDS = 5.0
_QUOTED = 2000  # characters of a lost worker's standard error


class LocalWorker:
    """A worker process, connected by a pair of sockets."""

    def __init__(self) -> None:
        self.link, far_end = Pipe()
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill
        environment = dict(os.environ) | dict.fromkeys(_SINGLE_THREADED, "1")
        environment["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with far_end:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "grape.mapping.worker", str(far_end.fileno()), str(os.getpid())],
                pass_fds=[far_end.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
            )

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
            raise EOFError(self._ending()) from error
        assert isinstance(outcome, Outcome)
        return outcome

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.wait()
        self.link.close()
        self._stderr.close()

    def _send(self, kind: str, value: Any) -> None:
        try:
            self.link.send((kind, value))
        except OSError:
            return  # the process is gone: taking the outcome will say so

    def _ending(self) -> str:
        try:
            code = self.process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        ended = f"was killed by signal {-code}" if code < 0 else f"left with code {code}"
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - _QUOTED))
        words = self._stderr.read().decode(errors="replace").strip()
        return f"{ended}; end of its stderr: {words}" if words else ended


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
