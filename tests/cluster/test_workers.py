"""Worker actors before they connect: they are started again, refused, or waited for, by what Ray says of them."""

import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from grape.cluster import workers
from grape.cluster.links import Invitation, connect
from grape.cluster.workers import NoRoomError, RayStarter, SimulatorWorker, WorkerShare
from grape.core.errors import SimulatorError
from grape.envs.worker_process import Exit


class ScriptedActor:
    """Stands in for an actor; ends when it is told to."""

    made: list["ScriptedActor"]

    def __init__(self, kind: type, invitation: Invitation, *arguments: Any, **share: Any) -> None:
        self.invitation, self.share = invitation, share
        self.end: Exit | None = None
        self.killed = False
        ScriptedActor.made.append(self)

    def exit(self, seconds: float = 0.0) -> Exit | None:
        return self.end

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def starter(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayStarter]:
    ScriptedActor.made = []
    monkeypatch.setattr(workers, "ActorProcess", ScriptedActor)
    monkeypatch.setattr(workers, "node_address", lambda: "127.0.0.1")
    starter = RayStarter("toy", None, WorkerShare(0.5, "simulator"), {"toy's toy": "1"})
    yield starter
    starter.close()


def admitted(starter: RayStarter, worker: Any) -> socket.socket:
    while worker.link is None:
        starter.admit()
    return worker.link


def test_a_worker_is_connected_once_it_was_placed(starter: RayStarter) -> None:
    worker = starter.start()
    (actor,) = ScriptedActor.made
    assert actor.share == {"cpus": 0.5, "resource": "simulator"}
    starter.admit()
    assert worker.link is None
    connect(actor.invitation).sendall(b"hello")
    assert admitted(starter, worker).recv(5) == b"hello"
    worker.kill()
    assert actor.killed


def test_one_that_ends_before_it_connects_is_started_again(starter: RayStarter) -> None:
    worker = starter.start()
    ScriptedActor.made[0].end = Exit("was lost: its node", lost=True)
    starter.admit()
    first, second = (actor.invitation for actor in ScriptedActor.made)
    late = connect(first)
    end = connect(second)
    admitted(starter, worker)
    assert worker.link is not None
    end.sendall(b"second")
    assert worker.link.recv(6) == b"second"
    while late.recv(1):
        starter.admit()
    worker.kill()


def test_what_always_ends_is_given_up_with_its_reason(starter: RayStarter) -> None:
    starter.start()
    for _ in range(3):
        ScriptedActor.made[-1].end = Exit("ran on 10.0.0.2, which has other releases: numpy 1 (here 2)")
        starter.admit()
    ScriptedActor.made[-1].end = Exit("ran on 10.0.0.2, which has other releases: numpy 1 (here 2)")
    with pytest.raises(SimulatorError, match=r"10\.0\.0\.2, which has other releases: numpy 1"):
        starter.admit()


def test_workers_that_start_on_a_node_that_is_lost_are_started_again(starter: RayStarter) -> None:
    for _ in range(6):
        starter.start()
    for losses in range(3):
        for actor in ScriptedActor.made[-6:]:
            actor.end = Exit("was lost: its node", lost=True)
        starter.admit()
        assert len(ScriptedActor.made) == 6 * (losses + 2)
    for actor in ScriptedActor.made[-6:]:
        actor.end = Exit("was lost: its node", lost=True)
    with pytest.raises(SimulatorError, match="was lost: its node"):
        starter.admit()


def test_losses_in_one_place_end_nothing_while_another_worker_is_connected(starter: RayStarter) -> None:
    worker = starter.start()
    connect(ScriptedActor.made[0].invitation)
    admitted(starter, worker)
    starter.start()
    for _ in range(6):
        ScriptedActor.made[-1].end = Exit("was lost: memory", lost=True)
        starter.admit()
    assert len(ScriptedActor.made) == 8
    worker.kill()


def test_a_cluster_without_room_is_given_up_after_minutes(starter: RayStarter, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=lambda: now))
    worker = starter.start()
    starter.admit()
    now = 100.0
    connect(ScriptedActor.made[0].invitation)
    admitted(starter, worker)
    now = 1000.0
    starter.admit()  # one is there
    worker.kill()
    starter.start()
    starter.admit()
    now = 1181.0
    with pytest.raises(NoRoomError, match=r"asks for 0\.5 CPUs on a node with the resource 'simulator'"):
        starter.admit()


def test_a_node_that_joined_with_other_releases_plays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "node_address", lambda: "10.0.0.2")
    invitation = Invitation("127.0.0.1", 1, b"", 0)
    end = SimulatorWorker().run(invitation, "toy", None, str(Path.cwd()), {"grape": "9.9", "toy's toy": "7"})
    assert end.startswith("ran on 10.0.0.2, which has other releases: grape ")
    assert "toy's toy 1 (here 7)" in end
