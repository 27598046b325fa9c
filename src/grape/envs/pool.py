"""Worker processes that step many environments at once; a crash or hang of one does not end the run."""

import contextlib
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_readable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.tasks import Task
from grape.envs.base import Snapshot
from grape.envs.messages import receive, send, snapshot_from_wire
from grape.envs.worker_process import Exit, LocalStarter, WorkerProcess, WorkerStarter

__all__ = ["GroupReply", "WorkerPool"]

_STARTUP_SECONDS = 60.0  # a new process imports its simulator first; added to its first deadline
_MOST_SECONDS = 1e6  # sockets refuse much longer timeouts
_JOIN_CHECK_SECONDS = 1.0  # between looks at workers that are not connected yet

Actions = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class GroupReply:
    """A worker's answer about its group.

    Attributes:
        group_id: The group.
        snapshots: One a lane; None for lanes that were not stepped, empty after a failure.
        failure: None, or what went wrong. The group is over then and its worker has been replaced; the caller may
            start the group again from its beginning.
        lost: Whether the worker was taken away, e.g. with its node: the failure says nothing about the simulator.
        expert_actions: Where the worker's experts acted: executed and clean actions, float32 ``(L, D)`` each, after
            :meth:`WorkerPool.play` ``(L, n, D)``; zero where none acted.
        passed: Where several actions were executed, the states before that of ``snapshots``, one sequence a lane,
            without images.
    """

    group_id: int
    snapshots: tuple[Snapshot | None, ...]
    failure: str | None = None
    lost: bool = False
    expert_actions: tuple[Actions, Actions] | None = None
    passed: tuple[tuple[Snapshot, ...], ...] = ()

    def states(self, lane: int) -> tuple[Snapshot, ...]:
        """New states of a lane in order, of which the last one has images; none for a lane that was not stepped."""
        latest = self.snapshots[lane]
        return () if latest is None else (*(self.passed[lane] if self.passed else ()), latest)


class _Worker:
    """A worker's process, and the group it serves."""

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        self.group_id: int | None = None
        self.about = ""
        self.deadline: float | None = None  # set while an answer is due
        self.patience = 0.0  # seconds between the last request and its deadline
        self.has_answered = False

    @property
    def link(self) -> socket.socket:
        """The connection of a worker that has a group."""
        assert self.process.link is not None
        return self.process.link

    @property
    def is_idle(self) -> bool:
        """Whether it is connected and has no group."""
        return self.group_id is None and self.process.link is not None

    def ask(self, timeout: float, header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]] | None = None) -> None:
        """Send a request and expect the answer within ``timeout`` seconds, later from a new process."""
        self.patience = timeout + (0.0 if self.has_answered else _STARTUP_SECONDS)
        self.deadline = time.monotonic() + self.patience
        self.link.settimeout(self.patience)
        with contextlib.suppress(OSError):  # a dead worker: reading the answer will say so
            send(self.link, header, arrays)


class WorkerPool:
    """Worker processes that each run one group of episodes at a time.

    A group is up to ``lanes`` episodes of one task that advance in lock-step in one worker. The pool never blocks but
    in :meth:`wait`. What a group yields depends on its task, initial states, experts and actions alone, not on the
    worker or on how many there are.

    Args:
        suite_name: Registered name of the suite.
        workers: Number of processes, at least 1.
        lanes: Most episodes a group may have, at least 1.
        timeout: Seconds of silence after which a worker counts as hung, for each control step that it was asked for; a
            new worker has 60 s more for its start.
        python: Another interpreter for the workers, see :mod:`grape.envs.external_python`; None for this one.
        starter: Starts the workers; by default as processes of this machine, in the interpreter ``python``.

    Raises:
        ValueError: ``workers`` or ``lanes`` is less than 1.
    """

    def __init__(
        self,
        suite_name: str,
        workers: int,
        lanes: int,
        timeout: float = 120.0,
        python: Path | None = None,
        starter: WorkerStarter | None = None,
    ) -> None:
        if workers < 1 or lanes < 1:
            raise ValueError(f"a pool needs at least one worker and one lane, not {workers} and {lanes}")
        self._lanes = lanes
        self._timeout = timeout
        self._starter = LocalStarter(suite_name, python) if starter is None else starter
        self._workers: list[_Worker] = []
        try:
            self.grow(workers)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def grow(self, workers: int) -> None:
        """Start workers until there are so many; nothing happens where there are."""
        while len(self._workers) < workers:
            self._workers.append(_Worker(self._starter.start()))

    @property
    def idle(self) -> int:
        """Number of connected workers without a group."""
        return sum(worker.is_idle for worker in self._workers)

    def start(
        self,
        group_id: int,
        task: Task,
        initial_states: Sequence[int],
        experts: Sequence[tuple[str, int]] | None = None,
    ) -> None:
        """Give a group to an idle worker; the answer holds the snapshots of the initial states.

        Args:
            group_id: Any number that no running group has.
            task: The task of all episodes.
            initial_states: One a lane, 1 to ``lanes``.
            experts: Operator and seed a lane where experts act; None where actions will be given.

        Raises:
            RuntimeError: No worker is idle.
            ValueError: The number of lanes does not fit, or the group is running already.
        """
        if not 1 <= len(initial_states) <= self._lanes or (experts is not None and len(experts) != len(initial_states)):
            raise ValueError(f"a group has 1 to {self._lanes} initial states and as many experts or none")
        if any(worker.group_id == group_id for worker in self._workers):
            raise ValueError(f"group {group_id} is running already")
        worker = next((worker for worker in self._workers if worker.is_idle), None)
        if worker is None:
            raise RuntimeError("no worker is idle")
        worker.group_id = group_id
        worker.about = f"task {task.id}, initial states {', '.join(map(str, initial_states))}"
        request = {
            "kind": "start",
            "task": task.index,
            "initial_states": [int(state) for state in initial_states],
            "experts": None if experts is None else [[operator, int(seed)] for operator, seed in experts],
        }
        worker.ask(self._timeout, request)

    def step(self, group_id: int, actions: Actions | None, active: Sequence[bool]) -> None:
        """Step the active lanes of a group by one decision.

        Args:
            group_id: A group whose last answer was received.
            actions: float32 ``(L, D)``; None to let the worker's experts act.
            active: One flag a lane.

        Raises:
            KeyError: The group is not running, e.g. because it failed.
            RuntimeError: An answer of the group is still due.
        """
        arrays = None if actions is None else {"actions": np.asarray(actions, dtype=np.float32)}
        self._ready(group_id).ask(self._timeout, {"kind": "step", "active": [bool(flag) for flag in active]}, arrays)

    def play(self, group_id: int, actions: Actions | None, counts: Sequence[int], until: str) -> None:
        """Execute several actions in each lane of a group; images are drawn after the last one alone.

        Args:
            group_id: A group whose last answer was received.
            actions: float32 ``(L, n, D)``; None to let the worker's experts act.
            counts: How many of them a lane executes; 0 leaves it at rest.
            until: ``"success"`` ends a lane's part at its first success, ``"last-step"`` does not.

        Raises:
            KeyError: The group is not running, e.g. because it failed.
            RuntimeError: An answer of the group is still due.
        """
        request = {"kind": "play", "counts": [int(count) for count in counts], "until": until}
        timeout = min(self._timeout * max(1, *map(int, counts)), _MOST_SECONDS)
        arrays = None if actions is None else {"actions": np.asarray(actions, dtype=np.float32)}
        self._ready(group_id).ask(timeout, request, arrays)

    def finish(self, group_id: int) -> None:
        """Free the worker of a group; nothing happens if the group failed and is over already.

        Raises:
            RuntimeError: An answer of the group is still due.
        """
        for worker in self._workers:
            if worker.group_id == group_id:
                if worker.deadline is not None:
                    raise RuntimeError(f"group {group_id} has not answered yet")
                worker.group_id = None

    def wait(self) -> list[GroupReply]:
        """Block until at least one worker answered, died or hung, or connected.

        Returns:
            The answers there are, in order of workers; none where a worker connected.

        Raises:
            RuntimeError: No answer is due, and no worker is to connect.
            SimulatorError: Workers cannot be started.
        """
        pending = [worker for worker in self._workers if worker.deadline is not None]
        joining = [worker for worker in self._workers if worker.process.link is None]
        if not pending and not joining:
            raise RuntimeError("no answer is due: start or step a group first")
        doors = self._starter.doors if joining else ()
        replies: list[GroupReply] = []
        while not replies:
            deadlines = [worker.deadline for worker in pending if worker.deadline is not None]
            patience = min(deadlines, default=_MOST_SECONDS + time.monotonic()) - time.monotonic()
            if joining:
                patience = min(patience, _JOIN_CHECK_SECONDS)
            readable = wait_readable([*(worker.link for worker in pending), *doors], max(0.0, patience))
            now = time.monotonic()
            for worker in pending:
                if worker.link in readable:
                    replies.append(self._read(worker))
                elif worker.deadline is not None and worker.deadline <= now:
                    replies.append(self._give_up(worker, Exit(f"gave no sign of life for {worker.patience:g} s")))
            if joining:
                self._starter.admit()
                if any(worker.process.link is not None for worker in joining):
                    break
        return replies

    def close(self) -> None:
        """End all workers at once; they hold no unsaved data."""
        for worker in self._workers:
            worker.process.kill()
        self._workers.clear()

    def _ready(self, group_id: int) -> _Worker:
        """The worker of a group that has answered."""
        for worker in self._workers:
            if worker.group_id == group_id:
                if worker.deadline is not None:
                    raise RuntimeError(f"group {group_id} has not answered yet")
                return worker
        raise KeyError(f"group {group_id} is not running")

    def _read(self, worker: _Worker) -> GroupReply:
        try:
            header, arrays = receive(worker.link)
        except EOFError:
            return self._give_up(worker, worker.process.exit())
        except TimeoutError:
            return self._give_up(worker, Exit(f"stopped in the middle of an answer for {worker.patience:g} s"))
        if header["failure"] is not None:
            return self._give_up(worker, Exit(f"failed: {header['failure']}"))
        worker.deadline = None
        worker.has_answered = True
        assert worker.group_id is not None
        snapshots = tuple(
            None
            if lane is None
            else snapshot_from_wire(lane, {name: arrays[key] for key, name in _images_of(index, arrays)})
            for index, lane in enumerate(header["lanes"])
        )
        passed = tuple(
            tuple(snapshot_from_wire(state, {}) for state in (lane or {}).get("passed", ())) for lane in header["lanes"]
        )
        acted = (arrays["executed"], arrays["clean"]) if "executed" in arrays else None
        return GroupReply(worker.group_id, snapshots, expert_actions=acted, passed=passed)

    def _give_up(self, worker: _Worker, end: Exit) -> GroupReply:
        """Replace a worker, and report its group as failed."""
        assert worker.group_id is not None
        worker.process.kill()
        self._workers[self._workers.index(worker)] = _Worker(self._starter.start())
        return GroupReply(
            worker.group_id, (), failure=f"The simulator of {worker.about} {end.description}", lost=end.lost
        )


def _images_of(lane: int, arrays: dict[str, npt.NDArray[Any]]) -> list[tuple[str, str]]:
    """Key and name of each image of a lane."""
    prefix = f"{lane}."
    return [(key, key.removeprefix(prefix)) for key in arrays if key.startswith(prefix)]
