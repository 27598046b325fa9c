"""Rollouts: many environments in worker processes, one batched policy, every decision recorded.

``episode`` is one episode in a straight line. For many, ``settings`` says what is collected, ``plan`` turns that into
groups of episodes, ``opening`` opens the policy, ``recorder`` holds an episode while it happens, ``rollout`` plays the
groups, ``launching`` says where, ``collect`` is the verb, ``seen`` recognizes initial states that a policy has seen.
``sharding`` divides a plan among machines, ``extending`` adds to a run, ``merge`` joins stores.
"""

from grape.collect.collect import plan_collect, run_collect
from grape.collect.episode import run_episode
from grape.collect.known_policy import KnownPolicy
from grape.collect.launching import Launcher, open_launcher
from grape.collect.merge import MergeSettings, run_merge
from grape.collect.opening import check_opened, check_unopened, executed_actions, inputs_of, open_policy
from grape.collect.seen import seen_states
from grape.collect.settings import CollectSettings
from grape.policies.base import Policy
from grape.policies.opening import opening_options
from grape.policies.registry import check_policy_place, provenance_of, read_checkpoint_info
from grape.policies.types import CheckpointInfo

__all__ = [
    "CheckpointInfo",
    "CollectSettings",
    "KnownPolicy",
    "Launcher",
    "MergeSettings",
    "Policy",
    "check_opened",
    "check_policy_place",
    "check_unopened",
    "executed_actions",
    "inputs_of",
    "open_launcher",
    "open_policy",
    "opening_options",
    "plan_collect",
    "provenance_of",
    "read_checkpoint_info",
    "run_collect",
    "run_episode",
    "run_merge",
    "seen_states",
]
