"""Functions mapped over shards of episodes: in this process, in processes of this machine, or in actors of a cluster.

What is mapped is a pure function of one shard. Where it runs, in which order and how often does not show in what comes
of it: results come in the order of the shards, and a shard whose process was lost is computed again.
"""

from grape.mapping.mapper import HERE, Mapper, open_mapper
from grape.mapping.settings import MappingSettings

__all__ = ["HERE", "Mapper", "MappingSettings", "open_mapper"]
