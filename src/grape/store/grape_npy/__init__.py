"""Rollout files of the first public implementation, read without running what they contain."""

from grape.store.grape_npy.rollouts import FLAVORS, MAX_FILE_BYTES, Flavor, Rollout, read_rollout

__all__ = ["FLAVORS", "MAX_FILE_BYTES", "Flavor", "Rollout", "read_rollout"]
