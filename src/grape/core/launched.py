"""What a launcher tells the processes that it started: torchrun, ``accelerate launch`` or SLURM's ``srun``."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["LaunchedProcess", "first_host", "forget_launcher", "launched_process", "number_in", "variables_of_slurm"]

_FIRST_PORT, _PORTS = 20_000, 10_000  # below the ports that systems give to outgoing connections


@dataclass(frozen=True)
class LaunchedProcess:
    """One process of several that a launcher started.

    Attributes:
        rank: Number of this process.
        count: Number of all; 1 where there is no launcher.
        by_slurm: Whether they are tasks of one job step, and no launcher stands between.
    """

    rank: int
    count: int
    by_slurm: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def launcher(self) -> str:
        """Who started it, in words."""
        return "SLURM's srun" if self.by_slurm else "a launcher (torchrun, accelerate)"


_ALONE = LaunchedProcess(0, 1)


def launched_process(environment: Mapping[str, str] | None = None) -> LaunchedProcess:
    """Rank and world size of this process; a single process where the environment lacks what a launcher sets.

    Variables of such names also come from schedulers and containers that have started one process only: a launcher sets
    ``RANK``, ``WORLD_SIZE`` and ``MASTER_ADDR``. A batch script of SLURM has the number of its job's tasks but is one
    process; ``srun`` alone sets the number of a step's tasks.

    Args:
        environment: Where to look; the process's own by default.
    """
    variables = os.environ if environment is None else environment
    if variables.get("MASTER_ADDR"):
        launched = _numbered(variables, "RANK", "WORLD_SIZE")
        if launched is not None:
            return launched
    return _numbered(variables, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", by_slurm=True) or _ALONE


def _numbered(variables: Mapping[str, str], rank: str, count: str, *, by_slurm: bool = False) -> LaunchedProcess | None:
    """The process of these two variables; None where they are not there or make no sense."""
    try:
        launched = LaunchedProcess(int(variables[rank]), int(variables[count]), by_slurm)
    except (KeyError, ValueError):
        return None
    if not 0 <= launched.rank < launched.count:
        return None
    return launched if launched.count > 1 else _ALONE


def variables_of_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that torchrun would have set, for a task of a job step.

    All tasks meet at the step's first host, at a port that follows from the numbers of job and step. ``MASTER_ADDR``
    and ``MASTER_PORT`` win where they are set.

    Args:
        environment: The task's variables.
    """
    number = number_in(environment.get("SLURM_JOB_ID")) * 7 + number_in(environment.get("SLURM_STEP_ID"))
    hosts = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or ""
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": str(number_in(environment.get("SLURM_LOCALID"))),
        "LOCAL_WORLD_SIZE": str(number_in(environment.get("SLURM_STEP_TASKS_PER_NODE")) or 1),
        "MASTER_ADDR": environment.get("MASTER_ADDR") or first_host(hosts) or "127.0.0.1",
        "MASTER_PORT": environment.get("MASTER_PORT") or str(_FIRST_PORT + number % _PORTS),
    }


def first_host(hosts: str) -> str:
    """First name of a list of hosts as SLURM writes it: ``gpu[07-09,12],login1`` begins with ``gpu07``."""
    first = re.split(r",(?![^\[]*\])", hosts)[0]
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first)


def number_in(text: str | None) -> int:
    """The number that a variable begins with, else 0. SLURM writes ``4(x2)`` for two nodes of four tasks."""
    digits = re.match(r"[0-9]{1,18}", text or "")
    return int(digits[0]) if digits else 0


_OF_A_GROUP = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"),
    *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "SLURM_STEP_NUM_TASKS"),
)


def forget_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables without those that make a process one of several."""
    return {name: value for name, value in environment.items() if name not in _OF_A_GROUP}
