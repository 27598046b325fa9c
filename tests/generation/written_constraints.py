"""Constraint functions in the manner of published prompts, with keypoints in meters; the tests run and import them.

The importer reads this file's text; the tests call the functions themselves and compare the numbers.
"""

import numpy as np


def get_grasping_cost_by_keypoint_idx(index):
    return 0.0


num_stages = 9


def stage1_subgoal_constraint1(end_effector, keypoints):
    """Bring the end effector to the handle."""
    return np.linalg.norm(end_effector - keypoints[0]) - 0.05


def stage1_subgoal_constraint2(end_effector, keypoints):
    """Above the handle, seen from above."""
    handle = keypoints[0]
    offset = end_effector[:2] - handle[:2]
    return np.sqrt(np.sum(offset**2)) - 0.02


def stage1_path_constraint1(end_effector, keypoints):
    """Keep away from the cup."""
    clearance = 0.12
    return clearance - np.linalg.norm(keypoints[1] - end_effector)


def stage2_subgoal_constraint1(end_effector, keypoints):
    """The spout 10 cm above the cup's opening."""
    target = keypoints[2] + np.array([0, 0, 0.1])
    return np.linalg.norm(keypoints[1] - target) - 0.03


def stage2_subgoal_constraint2(end_effector, keypoints):
    """Between two points, and a little to the side."""
    middle = np.mean([keypoints[1], keypoints[2]], axis=0)
    middle += np.array([0.02, -0.01, 0.0])
    return np.linalg.norm(end_effector - middle) - 0.04


def stage3_subgoal_constraint1(end_effector, keypoints):
    """Higher by at least 5 cm."""
    return keypoints[2][2] + 0.05 - keypoints[1][2]


def stage3_subgoal_constraint2(end_effector, keypoints):
    """Not more than 20 cm higher."""
    return keypoints[1][-1] - keypoints[2, 2] - 0.2


def stage3_path_constraint1(end_effector, keypoints):
    """To the side of it."""
    return -2 * (keypoints[0][1] - keypoints[1][1]) + 0.06


def stage4_subgoal_constraint1(end_effector, keypoints):
    """At the same height within 2 cm."""
    return abs(keypoints[0][2] - keypoints[1][2]) - 0.02


def stage4_subgoal_constraint2(end_effector, keypoints):
    """At the same place along x, 3 cm beside."""
    return np.abs(end_effector[0] - keypoints[2][0] - 0.03) - 0.01


def stage5_subgoal_constraint1(end_effector, keypoints):
    """Both close and high: the worse of the two counts."""
    return max(np.linalg.norm(keypoints[0] - keypoints[1]) - 0.1, 0.0)


def stage5_subgoal_constraint2(end_effector, keypoints):
    """Twice as dear."""
    return 2.0 * np.linalg.norm(keypoints[0] - keypoints[2]) - 0.2


def stage5_path_constraint1(end_effector, keypoints):
    """Two costs, each counted where it is above 0."""
    sideways = np.linalg.norm(keypoints[0][:2] - keypoints[1][:2])
    height = keypoints[0][2] - keypoints[1][2]
    return max(sideways - 0.08, 0) + max(0.1 - height, 0)


def stage5_path_constraint2(end_effector, keypoints):
    """The middle of two keypoints by their numbers."""
    offsetted_point = np.mean(keypoints[np.array([1, 2])], axis=0) + np.array([0.0, 0.0, 0.02])
    return np.linalg.norm(end_effector - offsetted_point) - 0.05


def stage5_path_constraint3(end_effector, keypoints):
    """Over a place, at a height."""
    sideways = np.linalg.norm(keypoints[0][:2] - keypoints[1][:2])
    return sideways + abs(keypoints[0][2] - np.mean(keypoints[1:3], axis=0)[2] - 0.05)


def stage6_subgoal_constraint1(end_effector, keypoints):
    """Upright within 20 degrees."""
    axis = keypoints[1] - keypoints[0]
    axis = axis / np.linalg.norm(axis)
    angle = np.arccos(np.clip(np.dot(axis, np.array([0, 0, 1])), -1.0, 1.0))
    return angle - np.deg2rad(20)


def stage6_path_constraint1(end_effector, keypoints):
    """Upright by the cosine."""
    axis = keypoints[1] - keypoints[0]
    return 0.9 - np.dot(axis, [0, 0, 1]) / (np.linalg.norm(axis) + 1e-9)


def stage7_subgoal_constraint1(end_effector, keypoints):
    """Parallel within 0.5 rad."""
    first = keypoints[1] - keypoints[0]
    second = keypoints[2] - keypoints[1]
    cosine = np.dot(first, second) / (np.linalg.norm(first) * np.linalg.norm(second))
    return np.arccos(cosine) - 0.5


def stage7_path_constraint1(end_effector, keypoints):
    """Level: at right angles to the vertical."""
    axis = keypoints[1] - keypoints[0]
    axis /= np.linalg.norm(axis)
    return abs(axis @ np.array([0, 0, 1])) - 0.1


def stage8_subgoal_constraint1(end_effector, keypoints):
    """Anti-parallel directions."""
    first = (keypoints[1] - keypoints[0]) / np.linalg.norm(keypoints[1] - keypoints[0])
    second = (keypoints[0] - keypoints[2]) / np.linalg.norm(keypoints[0] - keypoints[2])
    return np.dot(first, second) + 0.8


def stage8_path_constraint1(end_effector, keypoints):
    """Held all the time."""
    return get_grasping_cost_by_keypoint_idx(0)


def stage9_subgoal_constraint1(end_effector, keypoints):
    """Released close to the goal, two distances at once."""
    return np.linalg.norm(keypoints[0] - keypoints[2]) + np.linalg.norm(keypoints[1] - keypoints[2])


grasp_keypoints = [0, -1, -1, -1, -1, -1, -1, -1, -1]
release_keypoints = [-1, -1, -1, -1, -1, -1, -1, -1, 0]
