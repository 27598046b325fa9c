"""Which of a launcher's processes this one is: ``torchrun`` and ``accelerate launch`` say it in the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["LaunchedProcess", "launched_process"]


@dataclass(frozen=True)
class LaunchedProcess:
    """One of several processes that do one work together.

    Attributes:
        rank: Number of this process.
        count: Number of all; 1 where there is no launcher.
    """

    rank: int
    count: int

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0


_ALONE = LaunchedProcess(0, 1)


def launched_process(environment: Mapping[str, str] | None = None) -> LaunchedProcess:
    """This process among those of a launcher; alone where the environment does not say all that a launcher does.

    Variables of such names also come from schedulers and containers that have started one process only.

    Args:
        environment: Where to look; the process's own by default.
    """
    known = os.environ if environment is None else environment
    try:
        found = LaunchedProcess(int(known["RANK"]), int(known["WORLD_SIZE"]))
    except (KeyError, ValueError):
        return _ALONE
    return found if 0 <= found.rank < found.count and found.count > 1 and known.get("MASTER_ADDR") else _ALONE
