"""What all imports share: foreign steps as a trajectory of ours, and tokens from a policy that did not sample them."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.core.trajectories import EpisodeMeta, Trajectory

__all__ = ["ACTION_SPACE", "ActionReader", "foreign_trajectory", "task_name"]

ACTION_SPACE = {
    "names": ["dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"],
    "gripper": "1 opens, 0 closes",
}
"""Contract of imported actions: the published loaders' convention, in which the policies of this family speak."""


_LONGEST_NAME = 110


class ActionReader(Protocol):
    """A policy that says which tokens it would have used for actions that it did not sample."""

    @property
    def preprocessing_hash(self) -> str:
        """Hash of prompt, image preprocessing, tokenizer and normalization."""

    def prompt(self, instruction: str) -> str:
        """The text it reads for an instruction."""

    def action_tokens(self, actions: npt.NDArray[np.float32], /) -> npt.NDArray[np.int32]:
        """Tokens of un-normalized actions, int32 ``(N, D)``."""


def foreign_trajectory(
    meta: EpisodeMeta,
    images: npt.NDArray[np.uint8],
    actions: npt.NDArray[np.float32],
    *,
    pictures_after_action: bool,
    reader: ActionReader | None,
    proprio: npt.NDArray[np.float32] | None = None,
    cameras: Mapping[str, npt.NDArray[np.uint8]] | None = None,
) -> Trajectory:
    """A trajectory of what data sets hold: no keypoints, nothing sampled.

    Args:
        meta: Facts; ``steps``, ``actor``, ``prompt`` and ``preprocessing_hash`` are set here.
        images: uint8 ``(T, H, W, 3)``.
        actions: float32 ``(T, 7)``, gripper 1 = open, 0 = closed.
        pictures_after_action: Whether image ``t`` follows action ``t``. Then each action gets the image of the step
            before and the first action, which has none, is dropped. Otherwise the last image stands twice, since
            what followed the last action was not recorded.
        reader: Whose tokens are kept; None keeps none.
        proprio: Robot state, float32 ``(T, P)``, taken when the images were; None for none.
        cameras: Images of further cameras by name, ``T`` each.

    Raises:
        DataError: No step is left.
    """
    observed = {"": images, **(cameras or {})}
    if pictures_after_action:
        actions = actions[1:]
    else:
        proprio = None if proprio is None else _last_repeated(proprio)
        observed = {name: _last_repeated(frames) for name, frames in observed.items()}
    steps = len(actions)
    if not steps:
        raise DataError(f"Episode {meta.episode_id} has no step left.", "Leave it out.")
    facts: dict[str, Any] = {"steps": steps, "actor": "expert"}
    if reader is not None:
        facts |= {
            "actor": "policy",
            "preprocessing_hash": reader.preprocessing_hash,
            "prompt": reader.prompt(meta.instruction),
        }
    tokens = np.full(actions.shape, -1, dtype=np.int32) if reader is None else reader.action_tokens(actions)
    success = np.zeros(steps + 1, dtype=np.float32)
    if meta.success is None:
        success[:] = np.nan
    else:
        success[-1] = meta.success
    return Trajectory(
        meta=dataclasses.replace(meta, **facts),
        frames=np.ascontiguousarray(observed.pop("")),
        proprio=np.zeros((steps + 1, 0), dtype=np.float32) if proprio is None else proprio,
        actions=actions,
        labels=actions,
        action_tokens=tokens.astype(np.int32),
        token_logps=np.full(actions.shape, np.nan, dtype=np.float32),
        keypoints={},
        signals={"success": success},
        cameras=observed,
    )


def _last_repeated(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([values, values[-1:]])


def task_name(instruction: str) -> str:
    """Name of a task made from its instruction, usable as part of a file name.

    Words of Latin letters and digits keep their spelling in lower case. Wherever more than that is lost (signs, hyphens
    included, other scripts, what is longer than a name may be), a hash of the instruction keeps different ones apart.
    """
    words = " ".join(instruction.lower().split())
    name = re.sub(r"[^a-z0-9]+", "-", words).strip("-")[:_LONGEST_NAME].strip("-")
    if name and name.replace("-", " ") == words:
        return name
    return f"{name or 'task'}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
