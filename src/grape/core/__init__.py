"""The nouns of the project: tasks, trajectories, scores, pairs, errors, seeds.

Nothing here knows a simulator, a model or a file format of episodes; only numpy and PyYAML are imported.
"""
