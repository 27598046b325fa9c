"""A replica: an actor that holds the policy, plays groups with workers of its own, and hands in their episodes.

It is given a group when it asks for one, so that a fast replica plays more of them. What it does with a group is what
the local launcher does: the batches that its policy decides on are those of single groups.

Messages from a replica, each a header of :mod:`grape.envs.messages`:

``hello``   its policy's contract and warnings, its node and the releases there
``next``    asks for a group of a collection; with ``wait`` it has none left
``episode`` one episode of a group, as the bytes of its file
``over``    the group's episodes are all sent, or it failed twice; what was logged since the last one
``error``   why it cannot go on; ``no-room`` where no node has room for its workers

The driver says ``collection`` before the first group, and answers ``next`` with ``group``, with ``none``, or, once a
collection is over, with the next ``collection``.
"""

import contextlib
import dataclasses
import os
import socket
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from grape.cluster import RayStarter, connect, node_address
from grape.cluster.actors import change_folder
from grape.cluster.links import LEAST_TIMEOUT, Invitation
from grape.cluster.releases import releases
from grape.cluster.workers import NoRoomError, WorkerShare
from grape.collect.launching import make_actor
from grape.collect.opening import open_policy
from grape.collect.plan import Group, PlannedEpisode
from grape.collect.rollout import RolloutLog, play_groups
from grape.collect.settings import CollectSettings
from grape.core.errors import GrapeError, PolicyError
from grape.core.events import SilentReporter
from grape.core.trajectories import Trajectory
from grape.envs.base import SuiteBase
from grape.envs.external_python import suite_of
from grape.envs.messages import receive, send
from grape.envs.pool import WorkerPool
from grape.policies.base import Policy
from grape.policies.hardware import policy_releases
from grape.store import EpisodeFile

__all__ = ["COLLECTION_FIELDS", "Replica", "group_from_wire", "group_to_wire"]

COLLECTION_FIELDS = ("temperature", "execute", "display", "until")
"""Settings in which the collections of one launcher may differ."""

_THREADS = "OMP_NUM_THREADS"
_LESS_MEMORY = "It needs less memory with fewer --lanes, with --dtype bfloat16 or on a larger share of a GPU."


class Replica:
    """The actor."""

    def run(
        self, invitation: Invitation, settings: CollectSettings, share: WorkerShare, threads: str | None, folder: str
    ) -> str:
        """Serve the driver until it closes the connection.

        Args:
            invitation: Where the driver is.
            settings: The collection's settings.
            share: What is reserved for a worker.
            threads: Threads for the policy, as ``OMP_NUM_THREADS`` says it; None for what PyTorch chooses.
            folder: Working directory, where this node has it.

        Returns:
            How it ended.
        """
        change_folder(folder)
        # Ray says one thread; the last bits of what a CPU computes depend on their number. PyTorch is not there yet.
        os.environ.pop(_THREADS, None)
        if threads is not None:
            os.environ[_THREADS] = threads
        with connect(invitation) as link:
            try:
                _Session(link, settings, share).serve()
            except (EOFError, ConnectionError):
                return "the driver closed the connection"
            except NoRoomError as error:
                return _report(link, error, "no-room")
            except GrapeError as error:
                return _report(link, error)
            except Exception as error:
                text = f"{type(error).__name__}: {' '.join(str(error).split())}"
                return _report(link, PolicyError(f"A replica failed with {text}."))


def _report(link: socket.socket, error: GrapeError, kind: str = "error") -> str:
    short_of_memory = any(words in error.message.lower() for words in ("memoryerror", "outofmemory", "out of memory"))
    facts = {"error": type(error).__name__, "message": error.message, "node": node_address()}
    send(link, {"kind": kind, **facts, "hint": _LESS_MEMORY if short_of_memory else error.hint})
    return error.message


class _Warnings(SilentReporter):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def warn(self, message: str) -> None:
        self.sentences.append(message)


class _Session:
    """One replica's conversation with the driver; a source of groups."""

    def __init__(self, link: socket.socket, settings: CollectSettings, share: WorkerShare) -> None:
        self._link, self._settings = link, settings
        self._suite: SuiteBase = suite_of(settings.suite, settings.env_python)
        self._share = share
        self._log = RolloutLog()
        self._request: Mapping[str, Any] = {}
        self._playing = 0  # number of the collection

    def serve(self) -> NoReturn:
        """Play collections until the driver closes the connection."""
        warnings = _Warnings()
        policy = open_policy(self._settings, warnings)
        spec = None if policy is None else dataclasses.asdict(policy.spec)
        own = releases() if policy is None else {**releases(), **policy_releases()}
        facts = {"spec": spec, "warnings": warnings.sentences, "node": node_address(), "releases": own}
        send(self._link, {"kind": "hello", **facts})
        self._request, _ = receive(self._link)  # no worker is started before there is something to play
        python, versions = self._settings.env_python, self._request["suite_releases"]
        with (
            contextlib.closing(RayStarter(self._suite.name, python, self._share, versions)) as starter,
            WorkerPool(
                self._suite.name,
                self._request["workers"],
                self._settings.lanes,
                max(self._settings.timeout, LEAST_TIMEOUT),
                starter=starter,
            ) as pool,
        ):
            while True:
                self._play(policy, pool)

    def take(self, *, wait: bool) -> Group | None:
        """Ask the driver for a group."""
        if self._request["number"] != self._playing:
            return None
        send(self._link, {"kind": "next", "collection": self._playing, "wait": wait})
        answer, _ = receive(self._link)
        if answer["kind"] == "collection":
            self._request = answer
        return group_from_wire(answer["group"], self._suite) if answer["kind"] == "group" else None

    def _play(self, policy: Policy | None, pool: WorkerPool) -> None:
        request, self._playing = self._request, self._request["number"]
        pool.grow(request["workers"])
        settings = dataclasses.replace(self._settings, **{name: request[name] for name in COLLECTION_FIELDS})
        self._log = log = RolloutLog()

        def finished(group: Group, trajectories: list[Trajectory]) -> None:
            for trajectory in trajectories:
                file = EpisodeFile.encode(trajectory)
                header = {"kind": "episode", "group": group.number, "name": file.meta.episode_id}
                send(self._link, header, {"file": np.frombuffer(file.data, np.uint8)})
            self._over(group.number)

        play_groups(
            self,
            pool,
            make_actor(policy, settings, log, self._suite),
            versions=request["versions"],
            display=settings.display,
            log=log,
            until=settings.until,
            finished=finished,
            abandoned=lambda group: self._over(group.number),
        )

    def _over(self, group: int) -> None:
        """Say that a group is over, and what was logged since the last one was."""
        send(self._link, {"kind": "over", "group": group, "log": self._log.drain()})


def group_to_wire(group: Group) -> dict[str, Any]:
    """A group as JSON values."""
    return {
        "number": group.number,
        "task": group.task.index,
        "max_steps": group.task.max_steps,
        "episodes": [dataclasses.astuple(episode) for episode in group.episodes],
    }


def group_from_wire(header: Mapping[str, Any], suite: SuiteBase) -> Group:
    """Inverse of :func:`group_to_wire`."""
    task = dataclasses.replace(suite.tasks[header["task"]], max_steps=header["max_steps"])
    return Group(header["number"], task, tuple(PlannedEpisode(*episode) for episode in header["episodes"]))
