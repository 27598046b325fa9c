"""Processes that Ray places on a node: actors that run one function from their start to their end."""

import contextlib
import os
from typing import Any, Protocol

from grape.envs.worker_process import Exit

__all__ = ["ActorProcess", "Runner", "change_folder"]

_LONGEST_REASON = 1500  # characters of what Ray says about a process that is gone


class Runner(Protocol):
    """What an actor runs."""

    def run(self, *arguments: Any) -> str:
        """Work until the end; returns how it ended, in words."""


class ActorProcess:
    """One actor; where it runs is Ray's choice.

    It is never started again by Ray: who started it knows what it had to do.

    Args:
        kind: Class of the actor, made without arguments.
        arguments: What its ``run`` is given.
        cpus: CPUs to reserve.
        gpus: GPUs to reserve; it sees these alone.
        resource: A resource that its node must have; empty for any node.
        spread: Whether actors go to different nodes where they can.
    """

    def __init__(
        self,
        kind: type[Runner],
        *arguments: Any,
        cpus: float = 0.0,
        gpus: float = 0.0,
        resource: str = "",
        spread: bool = False,
    ) -> None:
        import ray

        options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0}
        if resource:
            options["resources"] = {resource: 0.001}  # the node must have it; any number of actors may share it
        if spread:
            options["scheduling_strategy"] = "SPREAD"
        self._ray = ray
        self._actor = ray.remote(kind).options(**options).remote()
        self._result = self._actor.run.remote(*arguments)

    def exit(self, seconds: float = 0.0) -> Exit | None:
        """How it ended; None if it has not within some seconds."""
        done, _ = self._ray.wait([self._result], timeout=seconds)
        if not done:
            return None
        try:
            return Exit(str(self._ray.get(self._result)))
        except self._ray.exceptions.RayTaskError as error:
            return Exit(f"failed: {_last_line(str(error))}")
        except self._ray.exceptions.RayError as error:
            return Exit(f"was lost: {' '.join(str(error).split())[:_LONGEST_REASON]}", lost=True)

    def kill(self) -> None:
        """End it at once; what it started ends with it."""
        self._ray.kill(self._actor)


def change_folder(folder: str) -> None:
    """Make the driver's working directory this process's, where this node has it: paths may be relative to it."""
    with contextlib.suppress(OSError):
        os.chdir(folder)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason is known"])[-1]
