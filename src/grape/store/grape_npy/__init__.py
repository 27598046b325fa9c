"""Rollout files of the first public implementation, read without running what they contain."""

from grape.store.grape_npy.rollouts import FLAVOURS, Flavour, Rollout, read_rollout

__all__ = ["FLAVOURS", "Flavour", "Rollout", "read_rollout"]
