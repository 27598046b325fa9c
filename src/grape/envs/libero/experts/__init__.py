"""Scripted operators with privileged poses for LIBERO's tasks."""

from grape.envs.libero.experts.scripts import make_expert

__all__ = ["make_expert"]
