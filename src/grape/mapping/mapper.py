"""Opening a mapper: in this process, in processes of this machine, or in a Ray cluster."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from grape.cluster.session import refuse_unused_address
from grape.core.errors import SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.settings import check_ranges
from grape.mapping.dispatch import WorkerPool, WorkerStarter, dispatch
from grape.mapping.settings import MappingSettings

__all__ = ["HERE", "Mapper", "open_mapper"]

Item = TypeVar("Item")
Shard = TypeVar("Shard")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Mapper:
    """Maps functions over shards.

    Attributes:
        workers: Processes that share the shards; 1 without ``pool`` is this process.
        pool: The workers; None for this process.
        reporter: Hears of workers that were lost.
    """

    workers: int = 1
    pool: WorkerPool | None = None
    reporter: Reporter = SILENT

    @property
    def is_here(self) -> bool:
        """Whether shards are computed in this process."""
        return self.pool is None

    def shards(self, items: Sequence[Item], size: int) -> list[Sequence[Item]]:
        """The items in their order, in parts of ``size``; one by one in this process, where progress shows each."""
        size = 1 if self.is_here else size
        return [items[start : start + size] for start in range(0, len(items), size)]

    def map(self, function: Callable[[Shard], Result], shards: Sequence[Shard]) -> Iterator[Result]:
        """Results of the function for all shards, in their order, as they come.

        Args:
            function: A pure function of one shard: defined in a module, or an object of a class that is. It travels to
                the workers once.
            shards: Small values, e.g. paths and ids of episodes: what is large is read where it is computed.

        Raises:
            GrapeError: A shard's processes were lost again and again; or what the function raised, as in one process.
        """
        if self.pool is None or len(shards) == 1:  # a process would take longer to start than to share nothing
            return map(function, shards)
        return dispatch(function, shards, self.pool, self.workers, self.reporter.warn)


HERE = Mapper()
"""The mapper of this process."""


@contextlib.contextmanager
def open_mapper(settings: MappingSettings, reporter: Reporter = SILENT) -> Iterator[Mapper]:
    """Open the mapper that the settings name.

    Raises:
        SettingsError: The launcher cannot be used, or the cluster is too small.
        CompatibilityError: Nodes have different releases.
    """
    check_ranges(settings)
    if settings.launcher == "ray":
        with _ray_mapper(settings, reporter) as mapper:
            yield mapper
        return
    refuse_unused_address(settings.ray_address)
    workers = settings.workers or os.cpu_count() or 1
    if workers == 1:
        yield HERE
        return
    from grape.mapping.local import LocalStarter

    with _pool(LocalStarter()) as pool:
        yield Mapper(workers, pool, reporter)


@contextlib.contextmanager
def _ray_mapper(settings: MappingSettings, reporter: Reporter) -> Iterator[Mapper]:
    from grape.cluster import check_nodes, open_cluster
    from grape.cluster.calls import CallStarter
    from grape.mapping.attempt import attempt

    with open_cluster(settings.ray_address) as cluster:
        cpus = int(cluster.total("CPU"))
        workers = settings.workers or max(cpus, 1)
        if not cluster.is_local and workers > cpus:
            raise SettingsError(
                f"The cluster has {cpus} CPUs; --workers {workers} needs one for each.", "Give fewer --workers."
            )
        check_nodes(cluster, "", None)
        # On this machine alone CPUs are not reserved, so that there may be more processes than cores.
        with _pool(CallStarter(attempt, 0.0 if cluster.is_local else 1.0)) as pool:
            yield Mapper(workers, pool, reporter)


def _pool(starter: WorkerStarter[Any]) -> contextlib.closing[WorkerPool]:
    return contextlib.closing(WorkerPool(starter))
