"""Shared types and utilities: tasks, trajectories, scores, pairs, errors, seeds, settings, files, run folders.

Nothing here knows a simulator, a model or a file format of episodes; only numpy and PyYAML are imported.
"""
