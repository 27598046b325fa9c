"""Rollout files of the first public implementation, read without running what they contain."""

from grape.store.grape_npy.rollouts import FLAVOURS, MAX_FILE_BYTES, Flavour, Rollout, read_rollout

__all__ = ["FLAVOURS", "MAX_FILE_BYTES", "Flavour", "Rollout", "read_rollout"]
