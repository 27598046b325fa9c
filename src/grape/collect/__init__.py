"""Rollouts: many environments in worker processes, one batched policy, every step recorded.

``settings`` says what is collected, ``plan`` turns that into groups of episodes, ``recorder`` holds an episode while
it happens, ``rollout`` plays the groups, ``collect`` is the verb, ``seen`` recognises
initial states that a policy has seen.
"""

from grape.collect.collect import inputs_of, open_policy, run_collect
from grape.collect.seen import seen_states
from grape.collect.settings import CollectSettings
from grape.policies.checkpoint_info import CheckpointInfo, read_checkpoint_info
from grape.policies.names import check_policy_name

__all__ = [
    "CheckpointInfo",
    "CollectSettings",
    "check_policy_name",
    "inputs_of",
    "open_policy",
    "read_checkpoint_info",
    "run_collect",
    "seen_states",
]
