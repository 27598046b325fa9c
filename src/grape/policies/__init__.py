"""Policies: the interfaces that the verbs speak, their types, and native implementations."""

from grape.policies.base import ActionBatch, ImitationPolicy, Policy, PolicySpec, TrainablePolicy
from grape.policies.types import CheckpointInfo, NewPolicy, OpeningOptions, PolicyType

__all__ = [
    "ActionBatch",
    "CheckpointInfo",
    "ImitationPolicy",
    "NewPolicy",
    "OpeningOptions",
    "Policy",
    "PolicySpec",
    "PolicyType",
    "TrainablePolicy",
]
