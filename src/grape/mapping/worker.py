"""A worker process: ``python -m grape.mapping.worker <descriptor> <parent>``.

It is a program of its own, as simulator processes are: it inherits no threads from its parent and does not import the
parent's main module, so scripts and notebooks need no guard. It ends with its connection, or with its parent.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from grape.mapping.attempt import attempt

__all__ = ["main"]

_PARENT_CHECK_SECONDS = 1.0


def main(arguments: Sequence[str]) -> None:
    """Receive functions and shards until the connection closes; send the outcome of each shard."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    descriptor, parent = map(int, arguments)
    threading.Thread(target=_leave_with_parent, args=(parent,), daemon=True).start()
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


def _leave_with_parent(parent: int) -> None:
    """End this process when its parent ends, also in the middle of a shard."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
