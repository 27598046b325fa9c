"""A process that holds environments: ``python -m grape.envs.worker <socket> <suite> <parent>``.

:class:`~grape.envs.pool.WorkerPool` starts it as a program of its own rather than by ``multiprocessing``: it inherits
neither torch nor threads from its parent, and does not import the parent's main module. It serves one group of
episodes of one task at a time and keeps environments for the next group of that task. Results do not depend on what
it served before, because a reset leaves no trace.
"""

from __future__ import annotations

import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.child_processes import leave_with_parent
from grape.core.errors import GrapeError
from grape.core.tasks import Task
from grape.envs.base import BlindEnvironment, Environment, Expert, Snapshot, SuiteBase
from grape.envs.messages import receive, send, snapshot_to_wire
from grape.envs.registry import get_suite

__all__ = ["Group", "main"]


class Group:
    """Episodes of one task that run in lock-step, one a lane.

    Args:
        suite: The suite.
        task: The task.
        environments: One a lane.
        initial_states: One a lane.
        experts: Operator and seed a lane, or None where a policy acts.
    """

    def __init__(
        self,
        suite: SuiteBase,
        task: Task,
        environments: Sequence[Environment],
        initial_states: Sequence[int],
        experts: Sequence[tuple[str, int]] | None,
    ) -> None:
        self._dim = suite.action_space.dim
        self._environments = environments
        self._experts: list[Expert] | None = None
        if experts is not None:
            self._experts = [suite.make_expert(task, operator, seed) for operator, seed in experts]
        self.snapshots: list[Snapshot] = [
            environment.reset(state)
            for environment, state in zip(environments, initial_states)  # noqa: B905 - strict came with Python 3.10
        ]

    def step(
        self, actions: npt.NDArray[np.float32] | None, active: Sequence[bool]
    ) -> tuple[list[Snapshot | None], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None]:
        """Step the active lanes.

        Args:
            actions: ``(lanes, D)``; None to let the experts act.
            active: One flag a lane.

        Returns:
            New snapshots (None for lanes at rest), and the experts' executed and clean actions ``(lanes, D)`` (zero
            for lanes at rest) or None.
        """
        executed = np.zeros((len(active), self._dim), dtype=np.float32)
        clean = executed.copy()
        answer: list[Snapshot | None] = []
        for lane, moves in enumerate(active):
            if not moves:
                answer.append(None)
                continue
            if actions is not None:
                executed[lane] = actions[lane]
            elif self._experts is not None:
                executed[lane], clean[lane] = self._experts[lane].act(self.snapshots[lane])
            else:
                raise ValueError("no actions were given and the group has no experts")
            self.snapshots[lane] = self._environments[lane].step(executed[lane])
            answer.append(self.snapshots[lane])
        return answer, None if actions is not None else (executed, clean)

    def play(
        self, actions: npt.NDArray[np.float32] | None, counts: Sequence[int], until: str
    ) -> tuple[list[list[Snapshot]], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None]:
        """Execute several actions a lane, one after another, and look once, at the end.

        Args:
            actions: ``(lanes, n, D)``; None to let the experts act, each in the state that its last action led to.
            counts: How many of them to execute a lane; 0 leaves it at rest.
            until: ``"success"`` ends a lane's part at its first success, ``"last-step"`` does not. Where the simulator
                ends an episode it ends in either case.

        Returns:
            The states of each lane in order, of which only the last one has images; and the experts' executed and
            clean actions ``(lanes, max(counts), D)``, zero where none acted, or None.
        """
        passed: list[list[Snapshot]] = []
        executed = np.zeros((len(counts), max(counts, default=0), self._dim), dtype=np.float32)
        clean = executed.copy()
        for lane, count in enumerate(counts):
            environment, states = self._environments[lane], list[Snapshot]()
            blind = environment if isinstance(environment, BlindEnvironment) else None
            for number in range(count):
                if actions is not None:
                    executed[lane, number] = actions[lane, number]
                elif self._experts is not None:
                    snapshot = states[-1] if states else self.snapshots[lane]
                    executed[lane, number], clean[lane, number] = self._experts[lane].act(snapshot)
                else:
                    raise ValueError("no actions were given and the group has no experts")
                action = executed[lane, number]
                states.append(environment.step(action) if blind is None else blind.advance(action))
                if states[-1].terminated or (until == "success" and states[-1].success):
                    break
            if states:
                if blind is not None:
                    states[-1] = blind.look(states[-1])
                self.snapshots[lane] = states[-1]
            passed.append(states)
        return passed, None if actions is not None else (executed, clean)


def main(arguments: Sequence[str]) -> None:
    """Serve requests until the parent process ends.

    Args:
        arguments: File descriptor of a connected socket, name of the suite, process id of the parent.
    """
    descriptor, suite_name, parent = int(arguments[0]), arguments[1], int(arguments[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent; this process ends with it
    leave_with_parent(parent)  # even while a simulator hangs
    with socket.socket(fileno=descriptor) as link:
        try:
            _serve(link, suite_name)
        except (EOFError, ConnectionError):
            return  # the pool was closed, or its process ended


def _serve(link: socket.socket, suite_name: str) -> None:
    suite: SuiteBase | None = None
    environments: dict[str, list[Environment]] = {}
    group: Group | None = None
    while True:
        request, arrays = receive(link)
        try:
            if suite is None:
                suite = get_suite(suite_name)
            if request["kind"] == "start":
                group = _start(suite, environments, request)
                _answer(link, group.snapshots, None)
            elif group is not None and request["kind"] == "play":
                passed, acted = group.play(arrays.get("actions"), request["counts"], request["until"])
                _answer(link, [states[-1] if states else None for states in passed], acted, passed)
            elif group is not None:
                _answer(link, *group.step(arrays.get("actions"), request["active"]))
        except (EOFError, ConnectionError):
            raise
        except Exception as error:  # whatever a simulator raises becomes the group's failure, not this process's end
            traceback.print_exc()
            text = str(error) if isinstance(error, GrapeError) else f"{type(error).__name__}: {error}"
            send(link, {"failure": text})


def _start(suite: SuiteBase, environments: dict[str, list[Environment]], request: Mapping[str, Any]) -> Group:
    task = suite.tasks[request["task"]]
    ready = environments.setdefault(task.name, [])
    states = request["initial_states"]
    while len(ready) < len(states):
        ready.append(suite.make_environment(task))
    return Group(suite, task, ready[: len(states)], states, request["experts"])


def _answer(
    link: socket.socket,
    snapshots: Sequence[Snapshot | None],
    acted: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None,
    passed: Sequence[Sequence[Snapshot]] | None = None,
) -> None:
    lanes: list[dict[str, Any] | None] = []
    arrays: dict[str, npt.NDArray[Any]] = {}
    for lane, snapshot in enumerate(snapshots):
        if snapshot is None:
            lanes.append(None)
            continue
        header, images = snapshot_to_wire(snapshot)
        if passed is not None:
            header["passed"] = [snapshot_to_wire(state)[0] for state in passed[lane][:-1]]
        lanes.append(header)
        arrays |= {f"{lane}.{name}": image for name, image in images.items()}
    if acted is not None:
        arrays["executed"], arrays["clean"] = acted
    send(link, {"failure": None, "lanes": lanes}, arrays)


if __name__ == "__main__":
    main(sys.argv[1:])
