"""A worker process: ``python -m grape.mapping.worker <descriptor> <parent>``.

It is a program of its own, as simulator processes are: it inherits no threads from its parent and does not import the
parent's main module, so scripts and notebooks need no guard. It ends with its connection, or with its parent.
"""

import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection

from grape.core.child_processes import leave_with_parent
from grape.mapping.attempt import attempt

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Receive functions and shards until the connection closes; send the outcome of each shard."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    descriptor, parent = map(int, arguments)
    leave_with_parent(parent)  # also in the middle of a shard
    try:
        with Connection(descriptor) as link:
            _, function = link.recv()
            while True:
                kind, value = link.recv()
                if kind == "function":
                    function = value
                else:
                    link.send(attempt(function, value))
    except (EOFError, ConnectionError):
        return


if __name__ == "__main__":
    main(sys.argv[1:])
