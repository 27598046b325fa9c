"""Scripted operators with privileged poses for the WidowX tasks."""

from grape.envs.simpler.experts.operator import make_expert

__all__ = ["make_expert"]
