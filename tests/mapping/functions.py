"""Functions that worker processes import by name."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from grape.core.errors import DataError


def doubled(shard: list[int]) -> list[int]:
    return [2 * number for number in shard]


def process_of(shard: int) -> int:
    return os.getpid()


def failing(shard: int) -> int:
    """Fails as a user's mistake does from 3 on, and as a fault of the program does at 5."""
    if shard == 5:
        raise ZeroDivisionError("five")
    if shard >= 3:
        raise DataError(f"Episode {shard} is damaged.", "Copy it again.")
    return shard


@dataclass(frozen=True)
class KilledOnce:
    """Kills its process at one shard, once or always."""

    marker: Path | None
    shard: int

    def __call__(self, shard: int) -> int:
        if shard == self.shard and (self.marker is None or not self.marker.exists()):
            if self.marker is not None:
                self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return shard * shard
