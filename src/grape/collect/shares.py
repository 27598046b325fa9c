"""How a cluster is shared out: replicas, their workers, and what is reserved for each."""

import os
from dataclasses import dataclass

from grape.cluster.workers import WorkerShare
from grape.collect.settings import CollectSettings
from grape.core.errors import SettingsError
from grape.core.settings import check_ranges
from grape.policies.hardware import policy_threads

__all__ = ["Shares", "plan_shares"]


@dataclass(frozen=True)
class Shares:
    """How many processes a collection has, and what Ray reserves for each.

    Attributes:
        replicas: Number of replicas.
        workers: Number of workers of each.
        replica_cpus: CPUs of a replica.
        replica_gpus: GPUs of a replica.
        worker: What a worker has.
        threads: Threads of a replica's policy, as for :class:`~grape.collect.replica.Replica`.
    """

    replicas: int
    workers: int
    replica_cpus: float
    replica_gpus: float
    worker: WorkerShare
    threads: str | None


def plan_shares(
    settings: CollectSettings, cpus: float, gpus: float, *, local: bool, simulating: float | None = None
) -> Shares:
    """Share a cluster out.

    Args:
        settings: What was asked for.
        cpus: CPUs of all nodes together.
        gpus: GPUs of all nodes together.
        local: Whether the cluster is this machine alone; then CPUs are not reserved, so that there may be more
            processes than cores, as with the local launcher.
        simulating: CPUs of the nodes that may have workers; None where these are all nodes.

    Raises:
        SettingsError: The cluster is too small for it.
    """
    check_ranges(settings)
    policy = settings.policy != "expert"
    each_gpu = settings.replica_gpus
    if each_gpu < 0:
        each_gpu = 1.0 if policy and gpus >= 1 and settings.device != "cpu" else 0.0
    replicas = settings.replicas or (max(1, int(gpus // each_gpu)) if each_gpu else 1)
    each_cpu = 0.0 if local else float(settings.replica_cpus or 1)
    worker_cpus = 0.0 if local else settings.worker_cpus
    left = cpus - replicas * each_cpu
    if simulating is not None:
        left = min(left, simulating)
    if settings.workers:
        workers = settings.workers
    elif worker_cpus:
        workers = int(left // worker_cpus)
    else:
        workers = os.cpu_count() or 1
    workers = max(workers // replicas, 1) * replicas  # as many for each, and no more than there is room for
    if not local and (left < workers * worker_cpus or gpus < replicas * each_gpu):
        raise SettingsError(
            f"The cluster has {cpus:g} CPUs and {gpus:g} GPUs; {replicas} replicas with {each_cpu:g} CPUs and "
            f"{each_gpu:g} GPUs each and {workers} workers with {worker_cpus:g} CPUs each need "
            f"{replicas * each_cpu + workers * worker_cpus:g} CPUs and {replicas * each_gpu:g} GPUs."
            + ("" if simulating is None else f" Nodes that may have workers have {simulating:g} CPUs."),
            "Give fewer --workers or --replicas, or less to each, e.g. --worker-cpus 0.5.",
        )
    share = WorkerShare(worker_cpus, "" if local else settings.worker_resource)
    return Shares(replicas, workers // replicas, each_cpu, each_gpu, share, _threads(policy=policy))


def _threads(*, policy: bool) -> str | None:
    """Threads that the local launcher's policy would have; other nodes may have other numbers of cores."""
    if policy and (count := policy_threads()) is not None:
        return str(count)
    return os.environ.get("OMP_NUM_THREADS")
