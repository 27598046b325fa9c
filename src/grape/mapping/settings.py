"""Settings of verbs that share recorded episodes among processes."""

from dataclasses import dataclass
from typing import Literal

from grape.core.settings import Range, setting

__all__ = ["MappingSettings"]

_GROUP = "Where episodes are read"


@dataclass(frozen=True)
class MappingSettings:
    """Processes that share recorded episodes; changes the speed, not the results.

    Attributes:
        workers: Processes that share the episodes: 1 is this one alone, 0 means one a core, with Ray one for each CPU
            of the cluster.
        launcher: local for processes of this machine, ray for processes on the nodes of a Ray cluster, which must find
            the episodes, and what is written, at the same path.
        ray_address: host:port of the cluster's head, of which this machine is a node; empty starts Ray on this machine
            alone.
    """

    workers: int = setting(1, group=_GROUP, range=Range(0), identity=False)
    launcher: Literal["local", "ray"] = setting("local", group=_GROUP, identity=False)
    ray_address: str = setting("", group=_GROUP, identity=False)
