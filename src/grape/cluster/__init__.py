"""Ray: a cluster to run in, what its nodes must have in common, and worker processes as actors.

Ray places processes on nodes, reserves what they need and tells when one is gone. What these processes say to each
other are messages of our own (:mod:`grape.envs.messages`) over connections between them, so that images never pass
through Ray's object store. Nothing of Ray is imported before a cluster is opened.
"""

from grape.cluster.actors import ActorProcess
from grape.cluster.links import Door, connect
from grape.cluster.nodes import check_nodes
from grape.cluster.session import Cluster, node_address, open_cluster
from grape.cluster.workers import RayStarter

__all__ = ["ActorProcess", "Cluster", "Door", "RayStarter", "check_nodes", "connect", "node_address", "open_cluster"]
