"""Constraint functions that a model wrote in Python, read as text and translated into the constraint language.

ReKep (arXiv 2409.01652) and GRAPE (arXiv 2411.19309) let a model write ``stage1_subgoal_constraint1(end_effector,
keypoints)`` and call it. Here the syntax tree is matched against known patterns of arithmetic on keypoints. Nothing of
the file is compiled, imported or called; what does not match is listed with its line and reason.
"""
