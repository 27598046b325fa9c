"""Shared types and utilities: tasks, trajectories, scores, pairs, errors, seeds, settings, files, run folders.

Independent of simulators, models and file formats of episodes; only numpy and PyYAML are imported.
"""
