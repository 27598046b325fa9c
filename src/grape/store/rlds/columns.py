"""A recorded trajectory as the columns of an RLDS episode.

A trajectory has one observation more than it has actions. RLDS steps pair each action with the image seen BEFORE it,
so the last observation, which follows the last action, is not exported.
"""

import re
from collections.abc import Mapping
from typing import Literal

import numpy as np

from grape.core.trajectories import Trajectory
from grape.store.rlds.features import Column, FeatureTree, ImageFeature, Leaf, Tensor, Text
from grape.store.rlds.standardize import gripper_to_loader

__all__ = [
    "EMBEDDING",
    "ActionSource",
    "ImageEncoding",
    "flat_features",
    "pair_features",
    "stated_rotation",
    "to_columns",
]

ImageEncoding = Literal["png", "jpeg"]
ActionSource = Literal["executed", "labels"]

EMBEDDING = 512
"""Width of ``language_embedding`` in the published schema; zeros here, as no published loader reads it."""

_FACTS: Mapping[str, Leaf] = {
    "episode_metadata/file_path": Text("What the episode comes from: the pair's id in pair sets, else the episode's."),
}
_FLAT_FACTS: Mapping[str, Leaf] = {
    **_FACTS,
    "episode_metadata/initial_state": Tensor("int32", description="Index of the initial state within its task."),
    "episode_metadata/success": Tensor("bool", description="Whether the task was solved."),
    "episode_metadata/task": Text("Name of the task within its suite."),
}
_UNKNOWN_OUTCOMES: Mapping[str, Leaf] = {
    "episode_metadata/success_known": Tensor("bool", description="False where nobody knows if it was solved."),
}
_STEPS: Mapping[str, Leaf] = {
    "discount": Tensor("float32", description="Always 1."),
    "is_first": Tensor("bool", description="True on the first step."),
    "is_last": Tensor("bool", description="True on the last step."),
    "is_terminal": Tensor("bool", description="True on the last step of a success; failures were cut off."),
    "language_instruction": Text("The task in words."),
    "reward": Tensor("float32", description="1 on the last step of a success, else 0."),
}
_ACTION = "Un-normalised; gripper 1 = open, 0 = closed."
_IMAGE = "What the policy saw before the action."
_ROTATION = re.compile(re.escape(_ACTION) + r" Rotation: ([a-z-]+)\.")


def pair_features(frame_shape: tuple[int, int, int], rotation: str = "") -> FeatureTree:
    """The schema of one side of a pair set, as the first public loader expects it.

    Args:
        frame_shape: ``(H, W, 3)``.
        rotation: How dimensions 3 to 5 of an action say a rotation, e.g. ``"axis-angle"``; it stands in the action's
            description, where :func:`stated_rotation` finds it. Empty if unknown, ``"none"`` if there are none.
    """
    stated = f" Rotation: {rotation}." if rotation not in ("", "none") else ""
    steps: dict[str, Leaf] = {
        "action": Tensor("float32", (7,), description=_ACTION + stated),
        "language_embedding": Tensor("float32", (EMBEDDING,), description="Zeros; kept for readers of this schema."),
        "observation/image": ImageFeature(frame_shape, "png", _IMAGE),
    }
    return FeatureTree({**_STEPS, **steps}, _FACTS)


def stated_rotation(features: FeatureTree) -> str:
    """Rotation convention stated by a pair set; empty where none is stated, as in sets of other software."""
    match = _ROTATION.fullmatch(getattr(features.steps.get("action"), "description", ""))
    return match[1] if match else ""


def flat_features(
    frame_shape: tuple[int, int, int],
    state: int,
    actions: int,
    encoding: ImageEncoding,
    *,
    outcomes_known: bool = True,
) -> FeatureTree:
    """The schema of a collection as one flat data set: names as in the modified LIBERO sets.

    Args:
        frame_shape: ``(H, W, 3)``.
        state: Numbers of robot state; 0 leaves the column out.
        actions: Dimensions of an action.
        encoding: How images are stored; JPEG loses a little.
        outcomes_known: Whether every episode is known as a success or a failure; otherwise a column says of which ones.
    """
    steps: dict[str, Leaf] = {
        "action": Tensor("float32", (actions,), description=_ACTION),
        "observation/image": ImageFeature(frame_shape, encoding, _IMAGE),
    }
    if state:
        steps["observation/state"] = Tensor("float32", (state,), description="Robot state as the suite documents it.")
    return FeatureTree({**_STEPS, **steps}, _FLAT_FACTS if outcomes_known else {**_FLAT_FACTS, **_UNKNOWN_OUTCOMES})


def to_columns(
    trajectory: Trajectory, features: FeatureTree, *, file_path: str, gripper: str, actions: ActionSource
) -> dict[str, Column]:
    """Columns by full path, for those of the features.

    Args:
        trajectory: With its frames.
        features: :func:`pair_features` or :func:`flat_features`.
        file_path: Value of ``episode_metadata/file_path``.
        gripper: The suite's gripper convention, see :func:`grape.store.rlds.standardize.gripper_to_loader`.
        actions: ``"executed"``: what moved the robot; ``"labels"``: what an imitator should learn.

    Raises:
        SettingsError: The gripper convention is unknown.
    """
    meta, steps = trajectory.meta, trajectory.steps
    last = np.arange(steps) == steps - 1
    solved = last & (meta.success is True)
    columns: dict[str, Column] = {
        "action": gripper_to_loader(trajectory.labels if actions == "labels" else trajectory.actions, gripper),
        "discount": np.ones(steps, dtype=np.float32),
        "is_first": np.arange(steps) == 0,
        "is_last": last,
        "is_terminal": solved,
        "language_embedding": np.zeros((steps, EMBEDDING), dtype=np.float32),
        "language_instruction": [meta.instruction] * steps,
        "observation/image": trajectory.each_state(trajectory.frames)[:steps],
        "observation/state": trajectory.proprio[:steps],
        "reward": solved.astype(np.float32),
    }
    facts: dict[str, Column] = {
        "episode_metadata/file_path": [file_path],
        "episode_metadata/initial_state": np.array([meta.initial_state], dtype=np.int32),
        "episode_metadata/success": np.array([meta.success is True]),
        "episode_metadata/success_known": np.array([meta.success is not None]),
        "episode_metadata/task": [meta.task],
    }
    return {f"steps/{path}": columns[path] for path in features.steps} | {
        path: facts[path] for path in features.episode
    }
