"""Rollouts: many environments in worker processes, one batched policy, every step recorded.

``settings`` says what is collected, ``plan`` turns that into groups of episodes, ``recorder`` holds an episode while
it happens, ``rollout`` plays the groups, ``collect`` is the verb.
"""

from grape.collect.collect import open_policy, run_collect
from grape.collect.settings import CollectSettings

__all__ = ["CollectSettings", "open_policy", "run_collect"]
