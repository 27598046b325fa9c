"""A Ray cluster of two nodes on this machine, and its processes, for tests of the Ray launcher."""

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # nodes on the loopback interface
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0" * 64,
    "RAY_enable_worker_prestart": "0",
}


@contextlib.contextmanager
def two_nodes(**environment: str) -> Iterator[Any]:
    """A head with 2 CPUs, on which the driver runs, and a node with 2 CPUs and the resource ``second``."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="grape-ray-test-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.environ.update(_ENVIRONMENT | {"RAY_TMPDIR": folder} | environment)
        try:
            from ray.cluster_utils import Cluster

            cluster = Cluster()
            try:
                _add(cluster)
                add_second(cluster)
                yield cluster
            finally:
                cluster.shutdown()
        finally:
            os.environ.clear()
            os.environ.update(before)


def add_second(cluster: Any) -> None:
    """Add a node with the resource ``second``."""
    _add(cluster, resources={"second": 1})


def _add(cluster: Any, **arguments: Any) -> None:
    """Add a node; on a busy machine one may not be up within the half minute that Ray gives it."""
    for tries_left in (2, 1, 0):
        try:
            cluster.add_node(num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, **arguments)
            return
        except Exception as error:
            if not tries_left or "timed out" not in str(error):
                raise


def descendants(process: int) -> dict[int, str]:
    """Command lines of all processes that a process of this machine has started, and these in turn, by id."""
    commands: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            for child in map(int, children.read_text().split()):
                commands[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                commands |= descendants(child)
    return commands


def processes(text: str) -> list[int]:
    """Descendants of this process whose command line holds a text, e.g. ``ray::Replica.run``."""
    return sorted(process for process, command in descendants(os.getpid()).items() if text in command)


def wait_for_the_end_of(*texts: str) -> None:
    """Wait until no such process is left: what Ray ends is gone a moment after the command."""
    deadline = time.monotonic() + 600
    while alive := [process for text in texts for process in processes(text)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def kill_one(text: str) -> int:
    """Kill such a process as soon as there is one; returns its id."""
    deadline = time.monotonic() + 600
    while not (ids := processes(text)):
        assert time.monotonic() < deadline, f"no process {text}"
        time.sleep(0.02)
    os.kill(ids[0], signal.SIGKILL)
    return ids[0]
