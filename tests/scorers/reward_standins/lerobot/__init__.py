"""Stands in for LeRobot's reward models: their functions, arguments and shapes, as arrays, over arithmetic on images.

How it misbehaves is the variable REWARD_STANDIN: ``weights``, ``memory-at-load``, or at the task in REWARD_STANDIN_TASK
``nan``, ``shape``, ``memory``, or ``memory-once``, until the file REWARD_STANDIN_MARK is there.
"""
