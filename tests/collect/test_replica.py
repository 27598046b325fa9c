"""What replicas and the driver say to each other: threads stand in for Ray's actors, local workers for remote ones."""

import contextlib
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grape.cluster.links import Invitation, connect
from grape.cluster.releases import releases
from grape.cluster.session import Cluster
from grape.cluster.workers import WorkerShare
from grape.collect import CollectSettings, ray_launcher, replica, run_collect
from grape.collect.ray_launcher import RayLauncher
from grape.collect.shares import Shares
from grape.core.errors import CompatibilityError, PolicyError, SettingsError, SimulatorError
from grape.envs.messages import send
from grape.envs.worker_process import Exit, LocalStarter, WorkerProcess
from tests.collect.test_collect import Still
from tests.reporters import Hearing

MIXED: dict[str, Any] = {
    **{"suite": "toy", "initial_states": "0-7", "tasks": "0,1", "operators": "sloppy"},
    **{"samples": 4, "mixed_episodes": 36, "lanes": 4, "workers": 2},
}


class ThreadActor:
    """Runs an actor in a thread of this process."""

    def __init__(self, kind: type, *arguments: Any, **share: Any) -> None:
        self._ends: list[str] = []
        self._thread = threading.Thread(target=lambda: self._ends.append(kind().run(*arguments)), daemon=True)
        self._thread.start()

    def exit(self, seconds: float = 0.0) -> Exit | None:
        self._thread.join(seconds)
        return Exit(self._ends[0]) if self._ends else None

    def kill(self) -> None:
        """Closing its connection ends it."""


class IdleActor:
    """An actor that does nothing; it ends when it is told to."""

    made: list["IdleActor"]

    def __init__(self, kind: type, *arguments: Any, **share: Any) -> None:
        self.invitation: Invitation = arguments[0]
        self.end: Exit | None = None
        IdleActor.made.append(self)

    def exit(self, seconds: float = 0.0) -> Exit | None:
        return self.end

    def kill(self) -> None:
        """There is nothing to end."""


class NearStarter(LocalStarter):
    """Starts workers of this machine in place of actors."""

    started = 0
    is_open = False

    def __init__(self, suite_name: str, python: None, share: WorkerShare, suite_versions: dict[str, str]) -> None:
        assert suite_versions == {"toy's toy": "1"}
        super().__init__(suite_name, python)
        NearStarter.started, NearStarter.is_open = 0, True

    def start(self) -> WorkerProcess:
        NearStarter.started += 1
        return super().start()

    def close(self) -> None:
        NearStarter.is_open = False


@pytest.fixture(autouse=True)
def _actors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_launcher, "ActorProcess", ThreadActor)
    monkeypatch.setattr(replica, "RayStarter", NearStarter)
    monkeypatch.setattr(replica, "node_address", lambda: "10.0.0.7")


@contextlib.contextmanager
def launched(
    settings: CollectSettings, replicas: int, reporter: Hearing | None = None, workers: int = 1
) -> Iterator[RayLauncher]:
    shares = Shares(replicas, workers, 0.0, 0.0, WorkerShare(0.0), os.environ.get("OMP_NUM_THREADS"))
    launcher = RayLauncher(Cluster("", "127.0.0.1"), settings, shares, reporter or Hearing())
    try:
        launcher.open()
        yield launcher
    finally:
        launcher.close()


def store_bytes(out: Path) -> dict[str, str]:
    files = sorted((out / "store" / "episodes").glob("*.parquet"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_further_rounds_are_played_by_the_same_replicas(tmp_path: Path) -> None:
    first = run_collect(CollectSettings(out=tmp_path / "local", **MIXED))
    settings = CollectSettings(out=tmp_path / "ray", launcher="ray", **MIXED)
    with launched(settings, replicas=2) as launcher:
        again = run_collect(settings, launcher=launcher)
        other = replace(settings, out=tmp_path / "other", execute=2, mixed_episodes=0, samples=1)
        run_collect(other, launcher=launcher)
    assert again["mixed"] == first["mixed"]
    assert store_bytes(tmp_path / "ray") == store_bytes(tmp_path / "local")
    run_collect(replace(other, out=tmp_path / "other-local", launcher="local"))
    assert store_bytes(tmp_path / "other") == store_bytes(tmp_path / "other-local")


def test_a_later_collection_with_more_groups_has_more_workers(tmp_path: Path) -> None:
    given: dict[str, Any] = {"suite": "toy", "tasks": "0", "lanes": 1, "max_steps": 2, "launcher": "ray"}
    one = CollectSettings(out=tmp_path / "one", initial_states="0", **given)
    with launched(one, 1, workers=3) as launcher:
        run_collect(one, launcher=launcher)
        assert NearStarter.started == 1
        run_collect(replace(one, out=tmp_path / "two", initial_states="0-4"), launcher=launcher)
        assert NearStarter.started == 3
        (served,) = launcher._replicas.values()
    assert served.actor.exit(60.0) == Exit("the driver closed the connection")
    assert not NearStarter.is_open


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (SettingsError("Policy runs/p: no such checkpoint folder.", "Give a folder."), "no such", "Give a folder."),
        (MemoryError(), "failed with MemoryError", "fewer --lanes"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "Tried to allocate", "fewer --lanes"),
    ],
)
def test_what_a_replica_cannot_do_is_told_with_its_node(
    error: Exception, message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(replica, "open_policy", refuse)
    kind = SettingsError if isinstance(error, SettingsError) else PolicyError
    with pytest.raises(kind, match=message) as refusal, launched(CollectSettings(out=tmp_path, suite="toy"), 1):
        raise AssertionError
    assert "(The replica on 10.0.0.7.)" in refusal.value.message
    assert hint in refusal.value.hint


def test_replicas_of_different_policies_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = iter(["one", "two"])
    monkeypatch.setattr(replica, "open_policy", lambda settings, reporter: Still(next(hashes)))
    settings = CollectSettings(out=tmp_path / "run", suite="toy", policy="policy", initial_states="0-9", lanes=1)
    with (
        pytest.raises(CompatibilityError, match=r"policy_hash is '(one|two)' on 10\.0\.0\.7 and '(one|two)' on other"),
        launched(settings, 2) as launcher,
    ):
        run_collect(settings, launcher=launcher)


def test_a_replica_with_other_releases_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "releases", lambda: {"grape": "0.1.0"})
    with (
        pytest.raises(CompatibilityError, match=r"10\.0\.0\.7 has other releases.*: grape 0\.1\.0 \(here "),
        launched(CollectSettings(out=tmp_path, suite="toy"), 1),
    ):
        raise AssertionError


def test_replicas_compute_with_the_same_releases_as_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "open_policy", lambda settings, reporter: Still("one"))
    monkeypatch.setattr(replica, "policy_releases", lambda: {"torch": "2.1.0"})
    monkeypatch.setattr(ray_launcher, "policy_releases", lambda: {"torch": "2.9.0"})
    settings = CollectSettings(out=tmp_path, suite="toy", policy="policy", lanes=1)
    message = r"10\.0\.0\.7 has other releases.*: torch 2\.1\.0 \(here 2\.9\.0\)"
    with pytest.raises(CompatibilityError, match=message), launched(settings, 1):
        raise AssertionError
    monkeypatch.setattr(replica, "open_policy", lambda settings, reporter: None)
    with launched(replace(settings, policy="expert"), 1) as launcher:
        assert "torch" not in launcher._releases


def test_replicas_compute_with_the_same_releases_as_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter(["2.1.0", "2.9.0"])
    monkeypatch.setattr(replica, "open_policy", lambda settings, reporter: Still("one"))
    monkeypatch.setattr(replica, "policy_releases", lambda: {"torch": next(given)})
    monkeypatch.setattr(ray_launcher, "policy_releases", dict)
    settings = CollectSettings(out=tmp_path, suite="toy", policy="policy", initial_states="0-9", lanes=1)
    with (
        pytest.raises(CompatibilityError, match=r"torch 2\.(1|9)\.0 \(here 2\.(1|9)\.0\)"),
        launched(settings, 2) as launcher,
    ):
        run_collect(settings, launcher=launcher)


def test_warnings_of_replicas_are_heard_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(settings: CollectSettings, reporter: Any) -> Still:
        reporter.warn("This checkpoint does not say how it was trained.")
        return Still("one")

    monkeypatch.setattr(replica, "open_policy", opened)
    reporter = Hearing()
    given: dict[str, Any] = {"suite": "toy", "tasks": "0", "initial_states": "0-3", "lanes": 1, "max_steps": 2}
    settings = CollectSettings(out=tmp_path / "run", policy="policy", **given)
    with launched(settings, 2, reporter) as launcher:
        run_collect(settings, launcher=launcher)
        assert launcher.spec == Still("one").spec
    assert reporter.warnings == ["This checkpoint does not say how it was trained."]
    run_collect(replace(settings, out=tmp_path / "local"), policy=Still("one"))
    assert store_bytes(tmp_path / "run") == store_bytes(tmp_path / "local")


@contextlib.contextmanager
def idle(replicas: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayLauncher]:
    """A launcher whose replicas connect and say nothing."""
    IdleActor.made = []
    monkeypatch.setattr(ray_launcher, "ActorProcess", IdleActor)
    monkeypatch.setattr(ray_launcher, "_CHECK_SECONDS", 0.0)
    shares = Shares(replicas, 1, 0.0, 0.0, WorkerShare(0.0), None)
    launcher = RayLauncher(Cluster("", "127.0.0.1"), CollectSettings(out=tmp_path, suite="toy"), shares, Hearing())
    for _ in range(replicas):
        launcher._start()
    try:
        yield launcher
    finally:
        launcher.close()


def lose_all(launcher: RayLauncher) -> None:
    for actor in IdleActor.made:
        actor.end = Exit("was lost: its node", lost=True)
    launcher._check_replicas()


def turn_on(launcher: RayLauncher) -> None:
    while True:
        launcher._turn()


def introduce(launcher: RayLauncher, actor: IdleActor) -> socket.socket:
    """Let a replica say hello."""
    link = connect(actor.invitation)
    send(link, {"kind": "hello", "spec": None, "warnings": [], "node": "10.0.0.7", "releases": releases()})
    while not launcher._replicas[actor.invitation.number].is_ready:
        launcher._turn()
    return link


def test_a_node_with_many_replicas_is_one_loss_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with idle(8, tmp_path, monkeypatch) as launcher:
        for _ in range(3):
            lose_all(launcher)
        assert len(IdleActor.made) == 32
        with pytest.raises(SimulatorError, match="4 replicas were lost one after the other"):
            lose_all(launcher)


def test_losses_in_one_place_end_nothing_while_another_replica_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with idle(2, tmp_path, monkeypatch) as launcher, introduce(launcher, IdleActor.made[0]):
        for _ in range(6):
            IdleActor.made[-1].end = Exit("was lost: memory", lost=True)
            launcher._check_replicas()
        assert len(IdleActor.made) == 8


def test_replicas_without_room_end_it_where_none_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"kind": "no-room", "error": "SimulatorError", "message": "No node had room.", "hint": "Add nodes."}
    with idle(2, tmp_path, monkeypatch) as launcher:
        first, second = (introduce(launcher, actor) for actor in tuple(IdleActor.made))
        send(first, {**facts, "node": "10.0.0.7"})
        while len(IdleActor.made) < 3:
            launcher._turn()
        third = introduce(launcher, IdleActor.made[2])
        send(second, {**facts, "node": "10.0.0.8"})
        with pytest.raises(SimulatorError, match=r"No node had room\. \(The replica on 10\.0\.0\.8\.\)"):
            turn_on(launcher)
        for link in (first, second, third):
            link.close()
