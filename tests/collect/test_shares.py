"""How a cluster is shared out among replicas and workers, and what is refused before anything starts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grape.collect import CollectSettings, run_collect
from grape.collect.shares import Shares, plan_shares
from grape.core.errors import SettingsError
from tests.collect.test_collect import Still

POLICY = CollectSettings(out=Path("out"), suite="toy", policy="policy", launcher="ray")


def shares(
    cpus: float, gpus: float = 0, *, local: bool = False, simulating: float | None = None, **changes: Any
) -> Shares:
    return plan_shares(replace(POLICY, **changes), cpus, gpus, local=local, simulating=simulating)


def test_by_default_each_gpu_has_a_replica_and_each_cpu_that_is_left_a_worker() -> None:
    given = shares(64, 8)
    assert (given.replicas, given.workers, given.replica_gpus, given.replica_cpus) == (8, 7, 1.0, 1.0)


@pytest.mark.parametrize("changes", [{"policy": "expert"}, {"device": "cpu"}])
def test_who_needs_no_gpu_gets_none(changes: dict[str, str]) -> None:
    given = shares(64, 8, **changes)
    assert (given.replicas, given.workers, given.replica_gpus) == (1, 63, 0.0)


def test_a_gpu_can_be_shared() -> None:
    given = shares(17, 1, replica_gpus=0.5, worker_cpus=0.5, workers=30)
    assert (given.replicas, given.workers, given.replica_gpus, given.worker.cpus) == (2, 15, 0.5, 0.5)


def test_on_one_machine_there_may_be_more_processes_than_cores() -> None:
    given = shares(2, local=True, workers=16, replicas=2, worker_resource="simulator")
    assert (given.workers, given.worker.cpus, given.worker.resource, given.replica_cpus) == (8, 0.0, "", 0.0)


@pytest.mark.parametrize(("cpus", "workers", "each"), [(7, 0, 1), (12, 0, 3), (64, 8, 2), (64, 2, 1)])
def test_replicas_share_workers_evenly_within_the_room_that_there_is(cpus: int, workers: int, each: int) -> None:
    given = shares(cpus, replicas=3, workers=workers)
    assert given.workers == each
    assert 3 * given.replica_cpus + 3 * given.workers * given.worker.cpus <= cpus


def test_workers_have_room_only_where_their_resource_is() -> None:
    assert shares(64, simulating=8.0, worker_resource="simulator").workers == 8
    assert shares(9, simulating=9.0, worker_resource="simulator").workers == 8
    with pytest.raises(SettingsError, match=r"16 workers .* Nodes that may have workers have 8 CPUs\."):
        shares(64, simulating=8.0, worker_resource="simulator", workers=16)


def test_a_policy_has_as_many_threads_as_with_the_local_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("grape.collect.shares.policy_threads", lambda: 3)
    assert shares(64).threads == shares(64, replica_cpus=8).threads == "3"
    assert shares(64, replica_cpus=8).replica_cpus == 8
    assert shares(64, policy="expert").threads is None
    monkeypatch.setattr("grape.collect.shares.policy_threads", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert shares(64).threads == "2"


@pytest.mark.parametrize(
    ("cpus", "gpus", "changes", "message"),
    [
        (4, 0, {"workers": 4}, r"The cluster has 4 CPUs and 0 GPUs; 1 replicas .* 4 workers .* need 5 CPUs and 0 GPUs"),
        (1, 0, {}, "need 2 CPUs"),
        (64, 1, {"replicas": 2}, "need .* and 2 GPUs"),
    ],
)
def test_a_cluster_that_is_too_small_is_refused_with_the_sum(
    cpus: int, gpus: int, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        shares(cpus, gpus, **changes)


def test_what_has_no_effect_or_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    here = replace(POLICY, out=tmp_path, launcher="local", policy="expert")
    with pytest.raises(SettingsError, match="no effect with --launcher local"):
        run_collect(replace(here, ray_address="10.0.0.1:6379"))
    with pytest.raises(SettingsError, match="cannot be sent to replicas"):
        run_collect(replace(here, launcher="ray"), policy=Still("one"))
    assert not list(tmp_path.iterdir())
