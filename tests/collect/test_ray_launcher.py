"""The Ray launcher on a cluster of two nodes: the bytes of the local launcher, whatever is killed on the way."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grape.collect import CollectSettings, ray_launcher, run_collect
from grape.core.errors import DataError, SettingsError
from grape.evaluation import EvaluateSettings, run_evaluate
from grape.mapping import MappingSettings, open_mapper
from grape.store import EpisodeFile, EpisodeStore
from tests.collect.ray_cluster import add_second, descendants, kill_one, two_nodes, wait_for_the_end_of
from tests.mapping.functions import KilledOnce, failing
from tests.reporters import Hearing

pytestmark = [pytest.mark.needs("ray"), pytest.mark.slow]

REPLICA, WORKER = "ray::Replica.run", "ray::SimulatorWorker.run"
GIVEN: dict[str, Any] = {"suite": "toy", "initial_states": "0-9", "operators": "noisy", "lanes": 2, "workers": 2}


def store_bytes(out: Path) -> dict[str, str]:
    files = sorted((out / "store").rglob("*.parquet"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def losses(out: Path) -> list[str]:
    events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [sentence for event in events for sentence in event.get("losses", ())]


@pytest.fixture(scope="module")
def hangs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is there once a worker of the cluster hangs, which the initial state 50 makes it do, once."""
    return tmp_path_factory.mktemp("cluster") / "hangs"


@pytest.fixture(scope="module")
def cluster(hangs: Path) -> Iterator[Any]:
    with two_nodes(GRAPE_FAULT=f"hang:reach-red:50:1:{hangs}") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("local")
    run_collect(CollectSettings(out=out, **GIVEN))
    return store_bytes(out)


class Striking:
    """Does something once, when some episodes are in the store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int, strike: Callable[[], object]) -> None:
        self.episodes = 0
        write = EpisodeStore.write_file

        def write_file(store: EpisodeStore, file: EpisodeFile) -> None:
            write(store, file)
            self.episodes += 1
            if self.episodes == after:
                strike()

        monkeypatch.setattr(EpisodeStore, "write_file", write_file)


@pytest.mark.needs("train")
def test_a_policy_is_evaluated_to_the_same_bytes_though_a_replica_is_killed(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grape.policies.openvla import compute_norm_stats, create_nano, save_policy

    statistics = compute_norm_stats(np.random.default_rng(0).uniform(-1, 1, (50, 7)), tuple("abcdefg"))
    save_policy(create_nano(seed=0, norm_stats=statistics, gripper="+1 closes"), tmp_path / "policy")
    given: dict[str, Any] = {
        **{"policy": str(tmp_path / "policy"), "suite": "toy", "tasks": "0", "initial_states": "0-5"},
        **{"samples": 2, "temperature": 0.7, "max_steps": 4, "lanes": 2, "workers": 2},
    }
    run_evaluate(EvaluateSettings(out=tmp_path / "local", **given))
    Striking(monkeypatch, 1, lambda: kill_one(REPLICA))
    reporter = Hearing()
    with_ray = EvaluateSettings(
        out=tmp_path / "ray", launcher="ray", ray_address=cluster.address, replicas=2, worker_cpus=0.5, **given
    )
    run_evaluate(with_ray, reporter)
    assert len(store_bytes(tmp_path / "local" / "rollouts")) == 12
    assert store_bytes(tmp_path / "ray" / "rollouts") == store_bytes(tmp_path / "local" / "rollouts")
    assert (tmp_path / "ray" / "results.json").read_bytes() == (tmp_path / "local" / "results.json").read_bytes()
    assert any("The replica on 127.0.0.1 was lost" in warning for warning in reporter.warnings)
    wait_for_the_end_of(REPLICA, WORKER)
    monkeypatch.setattr(ray_launcher, "open_cluster", lambda address: pytest.fail("Ray was started"))
    assert run_evaluate(with_ray) == run_evaluate(EvaluateSettings(out=tmp_path / "local", **given)) | {
        "results": str(tmp_path / "ray" / "results.json")
    }


def test_a_killed_worker_costs_the_group_that_it_had(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: dict[str, str]
) -> None:
    Striking(monkeypatch, 5, lambda: kill_one(WORKER))
    run_collect(CollectSettings(out=tmp_path, launcher="ray", ray_address=cluster.address, **GIVEN))
    assert store_bytes(tmp_path) == local
    assert len(losses(tmp_path)) == 1
    assert "was lost" in losses(tmp_path)[0]


def test_a_killed_driver_leaves_nothing_behind_and_is_resumed(
    cluster: Any, tmp_path: Path, local: dict[str, str]
) -> None:
    settings = {**GIVEN, "out": tmp_path, "launcher": "ray"}
    flags = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    environment = os.environ | {"GRAPE_FAULT": f"hang:push-block:7:1:{tmp_path / 'hangs'}"}
    command = [sys.executable, "-m", "grape", "collect", *flags]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        deadline = time.monotonic() + 600
        while not (tmp_path / "hangs").exists():
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        started = descendants(driver.pid)
        assert sum("grape.envs.worker" in command for command in started.values()) == 2
        driver.send_signal(signal.SIGKILL)
    while alive := [command for process, command in started.items() if Path(f"/proc/{process}").exists()]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)
    finished = store_bytes(tmp_path)
    assert 0 < len(finished) < len(local)
    run_collect(CollectSettings(out=tmp_path, launcher="ray", ray_address=cluster.address, **GIVEN))
    assert store_bytes(tmp_path) == local


def test_actors_share_recorded_episodes_and_one_that_is_lost_is_replaced(
    cluster: Any, tmp_path: Path, local: dict[str, str]
) -> None:
    reporter = Hearing()
    settings = MappingSettings(workers=2, launcher="ray", ray_address=cluster.address)
    with open_mapper(settings, reporter) as mapper:
        squares = mapper.map(KilledOnce(tmp_path / "killed", 3), range(8))
        assert list(squares) == [number * number for number in range(8)]
        with pytest.raises(DataError, match="Episode 3 is damaged") as raised:
            list(mapper.map(failing, range(6)))
    assert raised.value.hint == "Copy it again."
    assert len(reporter.warnings) == 1
    assert reporter.warnings[0].startswith("A worker was lost: ")
    with pytest.raises(SettingsError, match="has 4 CPUs; --workers 5"), open_mapper(replace(settings, workers=5)):
        pass


def test_a_lost_node_costs_what_was_under_way_on_it_and_another_one_takes_its_place(
    cluster: Any, hangs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRAPE_FAULT")
    given = {**GIVEN, "initial_states": "47-52"}
    run_collect(CollectSettings(out=tmp_path / "local", **given))
    with_ray = CollectSettings(
        out=tmp_path / "ray", launcher="ray", ray_address=cluster.address, worker_resource="second", **given
    )
    (node,) = cluster.worker_nodes
    with ThreadPoolExecutor(1) as executor:  # nodes are started by the main thread alone
        collecting = executor.submit(run_collect, with_ray)
        while not hangs.exists():
            assert not collecting.done(), collecting.exception()
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)
        add_second(cluster)
        collecting.result()
    assert store_bytes(tmp_path / "ray") == store_bytes(tmp_path / "local")
    assert "was lost" in losses(tmp_path / "ray")[0]
