"""The Ray launcher: replicas play groups on the nodes of a cluster, this process owns the plan and the store.

A group that a lost replica had is given to another one. Its episodes depend on nothing but the group, and an episode
that is in the store is never written again, so a loss costs time only.
"""

import contextlib
import dataclasses
import math
import os
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait as wait_readable
from pathlib import Path
from typing import Any

from grape.cluster import ActorProcess, Cluster, Door, check_nodes, open_cluster
from grape.cluster.releases import differences, releases, suite_releases
from grape.collect.known_policy import KnownPolicy, spec_from_json
from grape.collect.launching import Commit, Launcher
from grape.collect.opening import check_spec
from grape.collect.plan import Group
from grape.collect.replica import COLLECTION_FIELDS, Replica, group_to_wire
from grape.collect.rollout import RolloutLog
from grape.collect.settings import CollectSettings
from grape.collect.shares import Shares, plan_shares
from grape.core import errors
from grape.core.errors import CompatibilityError, GrapeError, SettingsError, SimulatorError
from grape.core.events import Reporter
from grape.envs.external_python import suite_of
from grape.envs.messages import receive, send
from grape.policies.base import PolicySpec
from grape.policies.hardware import policy_releases
from grape.store import EpisodeFile

__all__ = ["RayLauncher", "open_ray_launcher"]

_CHECK_SECONDS = 1.0
_MESSAGE_SECONDS = 120.0  # a replica sends without a pause once it has begun
_ROOM_SECONDS = 900.0  # until a replica is there: new nodes, and weights from a slow disk
_MOST_LOSSES = 3  # of a replica and those in its place, without a single group played by any replica


@contextlib.contextmanager
def open_ray_launcher(settings: CollectSettings, reporter: Reporter, out: Path | None) -> Iterator[Launcher]:
    """A launcher that connects to the cluster, looks at its nodes and starts replicas when that is needed.

    Args:
        settings: Which policy and suite, and where.
        reporter: Hears of warnings.
        out: Folder of a run that may be finished; then its policy is compared by its files, and nothing is started.

    Raises:
        SettingsError: There is no such cluster, it is too small, or a node cannot play episodes.
        CompatibilityError: Nodes have different releases, or the policy does not fit the suite.
    """
    suite_of(settings.suite, settings.env_python).check()
    with contextlib.ExitStack() as stack:
        yield _DeferredLauncher(stack, settings, reporter, out)


class _DeferredLauncher:
    """A launcher that is opened when there is something to play, or when its policy must be asked what it is."""

    def __init__(
        self, stack: contextlib.ExitStack, settings: CollectSettings, reporter: Reporter, out: Path | None
    ) -> None:
        self._stack, self._settings, self._reporter = stack, settings, reporter
        self._launcher: Launcher | None = None
        self._policy = None if settings.policy == "expert" else KnownPolicy(settings)
        self._recorded = None if self._policy is None or out is None else self._policy.recorded(out)
        if self._recorded is not None:
            check_spec(settings, self._recorded, suite_of(settings.suite, settings.env_python))

    @property
    def spec(self) -> PolicySpec | None:
        """Contract of the policy."""
        if self._policy is None or self._recorded is not None:
            return self._recorded
        return self._open().spec

    def play(self, groups: Sequence[Group], settings: CollectSettings, log: RolloutLog, commit: Commit) -> None:
        """Play every group to its end, see :class:`RayLauncher`.

        Raises:
            CompatibilityError: The policy is not what was recorded of it: it would be computed otherwise.
        """
        launcher = self._open()
        if self._recorded is not None and launcher.spec != self._recorded:
            raise CompatibilityError(
                f"{settings.out} holds results of another run: its policy was opened as {self._recorded}, now as "
                f"{launcher.spec}.",
                "Give it the same kind of processor, or choose another --out.",
            )
        launcher.play(groups, settings, log, commit)

    def finished(self, out: Path) -> None:
        """Record what tells the policy again, so that looking at the run starts no replica."""
        if self._policy is not None and self._launcher is not None and self._launcher.spec is not None:
            self._policy.record(out, self._launcher.spec)

    def _open(self) -> Launcher:
        if self._launcher is None:
            self._launcher = self._stack.enter_context(_opened(self._settings, self._reporter))
        return self._launcher


@contextlib.contextmanager
def _opened(settings: CollectSettings, reporter: Reporter) -> Iterator["RayLauncher"]:
    suite = suite_of(settings.suite, settings.env_python)
    with open_cluster(settings.ray_address) as cluster:
        resource = settings.worker_resource
        shares = plan_shares(
            settings,
            cluster.total("CPU"),
            cluster.total("GPU"),
            local=cluster.is_local,
            simulating=cluster.total("CPU", resource) if resource else None,
        )
        check_nodes(cluster, suite.name, settings.env_python, resource)
        launcher = RayLauncher(cluster, settings, shares, reporter)
        try:
            launcher.open()
            if launcher.spec is not None:
                check_spec(settings, launcher.spec, suite)
            yield launcher
        finally:
            launcher.close()


@dataclass
class _Replica:
    """A replica as this process sees it."""

    actor: ActorProcess
    link: socket.socket | None = None
    node: str = ""
    is_ready: bool = False
    waits: bool = False  # for a group, with none left of its own
    losses: int = 0  # of those in whose place it is, since a group was played
    groups: dict[int, Group] = field(default_factory=dict)


class RayLauncher:
    """Replicas in a cluster; :func:`open_ray_launcher` makes it."""

    def __init__(self, cluster: Cluster, settings: CollectSettings, shares: Shares, reporter: Reporter) -> None:
        self._settings = settings
        self._suite = suite_of(settings.suite, settings.env_python)
        self._shares = shares
        self._reporter = reporter
        self._door = Door(cluster.host)
        self._replicas: dict[int, _Replica] = {}
        self._number = 0
        self._last_check = self._last_sign = time.monotonic()
        self._collections = 0
        self._has_played = False
        self._spec: PolicySpec | None = None
        self._releases = releases() | (dict(policy_releases()) if settings.policy != "expert" else {})
        self._warned: set[str] = set()
        self._playing: _Playing | None = None

    @property
    def spec(self) -> PolicySpec | None:
        """Contract of the policy."""
        return self._spec

    def open(self) -> None:
        """Start the replicas and wait for the first one."""
        for _ in range(self._shares.replicas):
            self._start()
        while not any(replica.is_ready for replica in self._replicas.values()):
            self._turn()

    def play(self, groups: Sequence[Group], settings: CollectSettings, log: RolloutLog, commit: Commit) -> None:
        """Play every group to its end; the replicas stay for the next call."""
        values = {name: getattr(settings, name) for name in COLLECTION_FIELDS}
        self._collections += 1
        most = math.ceil(len(groups) / self._shares.replicas)
        request = {
            "kind": "collection",
            "number": self._collections,
            "workers": min(self._shares.workers, most),
            **values,
            "versions": dict(self._suite.versions()),
            "suite_releases": suite_releases(self._suite),
        }
        self._playing = _Playing(request, deque(groups), {group.number for group in groups}, log, commit)
        for replica in self._replicas.values():
            if replica.is_ready:
                replica.waits = False
                self._send(replica, request)
        while self._playing.left:
            self._turn()
        self._playing = None

    def finished(self, out: Path) -> None:
        """Nothing: who defers this launcher records."""

    def close(self) -> None:
        """End the replicas, and their workers with them."""
        for replica in self._replicas.values():
            replica.actor.kill()
            if replica.link is not None:
                replica.link.close()
        self._replicas.clear()
        self._door.close()

    def _start(self, losses: int = 0) -> None:
        shares = self._shares
        actor = ActorProcess(
            Replica,
            self._door.invite(self._number),
            self._settings,
            shares.worker,
            shares.threads,
            os.getcwd(),
            cpus=shares.replica_cpus,
            gpus=shares.replica_gpus,
            spread=True,
        )
        self._replicas[self._number] = _Replica(actor, losses=losses)
        self._number += 1

    def _turn(self) -> None:
        """Wait for messages, connections and losses, and see to them."""
        links = {replica.link: number for number, replica in self._replicas.items() if replica.link is not None}
        readable = wait_readable([*links, *self._door.sockets], _CHECK_SECONDS)
        for number, link in self._door.admit().items():
            if number in self._replicas:
                link.settimeout(_MESSAGE_SECONDS)
                self._replicas[number].link = link
            else:
                link.close()
        for link, number in links.items():
            if link in readable:
                self._read(number)
        if time.monotonic() - self._last_check >= _CHECK_SECONDS:
            self._check_replicas()
            self._last_check = time.monotonic()

    def _check_replicas(self) -> None:
        """See to replicas that ended before they connected, or whose node is gone without a word."""
        for number, replica in list(self._replicas.items()):
            end = replica.actor.exit()
            # One that ended by itself has closed its connection: its last message is read first.
            if end is not None and (replica.link is None or end.lost):
                self._lose(number, end.description)
        if any(replica.is_ready for replica in self._replicas.values()):
            self._last_sign = time.monotonic()
        elif time.monotonic() - self._last_sign > _ROOM_SECONDS:
            shares = self._shares
            raise SettingsError(
                f"No replica began within {_ROOM_SECONDS:g} s. Each asks for {shares.replica_cpus:g} CPUs and "
                f"{shares.replica_gpus:g} GPUs on one node.",
                "Add nodes, or ask for less by --replica-cpus and --replica-gpus.",
            )

    def _read(self, number: int) -> None:
        replica = self._replicas[number]
        assert replica.link is not None
        try:
            header, arrays = receive(replica.link)
        except (EOFError, OSError) as error:
            end = replica.actor.exit(_CHECK_SECONDS)
            self._lose(number, f"was lost: {error}" if end is None else end.description)
            return
        kind = header["kind"]
        # Where others have room, so does what this one had; one that is in a lost one's place may have none, too.
        others = any(other.is_ready and not other.losses for other in self._replicas.values() if other is not replica)
        if kind == "error" or (kind == "no-room" and not self._has_played and not others):
            _raise(header)
        if kind == "no-room":
            self._lose(number, f"found no room for its workers: {header['message']}")
            return
        if kind == "hello":
            self._greet(replica, header)
            return
        playing = self._playing
        if kind == "next":
            # One that was sent before the replica heard of this collection has that news as its answer.
            if playing is not None and header["collection"] == self._collections:
                self._answer(replica, playing, wait=header["wait"])
            return
        assert playing is not None
        if kind == "episode":
            group = replica.groups[header["group"]]
            if header["name"] not in playing.committed:
                playing.commit(group, EpisodeFile.parse(arrays["file"].tobytes(), header["name"]))
                playing.committed.add(header["name"])
        elif kind == "over":
            del replica.groups[header["group"]]
            playing.left.discard(header["group"])
            playing.log.add(header["log"])
            self._has_played = True
            for other in self._replicas.values():
                other.losses = 0

    def _greet(self, replica: _Replica, header: Mapping[str, Any]) -> None:
        if text := differences(self._releases, header["releases"]):
            raise CompatibilityError(
                f"The node {header['node']} has other releases, so equal settings would not give equal bytes: {text}.",
                "Install the same releases on all nodes.",
            )
        self._releases = header["releases"] | self._releases  # of what is not installed here, the first replica's
        spec = None if header["spec"] is None else spec_from_json(header["spec"])
        for sentence in header["warnings"]:
            if sentence not in self._warned:
                self._warned.add(sentence)
                self._reporter.warn(sentence)
        if self._spec is not None and spec != self._spec:
            differing = [
                f"{name} is {one!r} on {header['node']} and {other!r} on other nodes"
                for name in (item.name for item in dataclasses.fields(PolicySpec))
                if (one := getattr(spec, name, None)) != (other := getattr(self._spec, name))
            ]
            raise CompatibilityError(
                f"Replicas do not hold the same policy: {'; '.join(differing)}.",
                "Give all nodes the same checkpoint and the same kind of processor, e.g. by --device cpu.",
            )
        self._spec, replica.node, replica.is_ready = spec, header["node"], True
        if self._playing is not None:
            self._send(replica, self._playing.request)

    def _answer(self, replica: _Replica, playing: "_Playing", *, wait: bool) -> None:
        if playing.waiting:
            group = playing.waiting.popleft()
            replica.groups[group.number] = group
            self._send(replica, {"kind": "group", "group": group_to_wire(group)})
        elif wait:
            replica.waits = True  # another replica may be lost yet
        else:
            self._send(replica, {"kind": "none"})

    def _lose(self, number: int, reason: str) -> None:
        """Give a lost replica's groups to others, and start another one."""
        replica = self._replicas.pop(number)
        replica.actor.kill()
        if replica.link is not None:
            replica.link.close()
        losses = replica.losses + 1
        where = f"The replica on {replica.node}" if replica.node else "A replica"
        sentence = f"{where} {reason}"
        # A node takes all of its replicas with it; that is one loss of each, however many there are.
        others = any(other.is_ready and other.losses <= _MOST_LOSSES for other in self._replicas.values())
        if losses > _MOST_LOSSES and not others:
            raise SimulatorError(
                f"{losses} replicas were lost one after the other without playing anything. {sentence}",
                "A replica that needs more memory than its node has is lost so. What was finished is kept.",
            )
        if self._playing is not None:
            self._playing.log.losses.append(f"{sentence} ({len(replica.groups)} groups were under way)")
            self._playing.waiting.extendleft(reversed(replica.groups.values()))
            for other in self._replicas.values():
                if other.waits and self._playing.waiting:
                    other.waits = False
                    self._answer(other, self._playing, wait=True)
        self._start(losses)

    def _send(self, replica: _Replica, header: Mapping[str, Any]) -> None:
        assert replica.link is not None
        with contextlib.suppress(OSError):  # a lost replica: reading from it will say so
            send(replica.link, header)


@dataclass
class _Playing:
    """What is being played."""

    request: Mapping[str, Any]
    waiting: deque[Group]
    left: set[int]
    log: RolloutLog
    commit: Commit
    committed: set[str] = field(default_factory=set)


def _raise(header: Mapping[str, Any]) -> None:
    """Raise the error that a replica reported.

    Raises:
        GrapeError: Always.
    """
    kind = getattr(errors, header["error"], GrapeError)
    raise kind(f"{header['message']} (The replica on {header['node']}.)", header["hint"])
