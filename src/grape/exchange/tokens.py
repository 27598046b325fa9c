"""Action tokens for actions that a policy did not sample: its own encoding of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from grape.core.errors import CompatibilityError
from grape.core.files import read_json, write_json
from grape.core.tasks import RotationConvention
from grape.policies.action_conventions import roll_pitch_yaw_from_axis_angle
from grape.policies.base import ActionEncoder
from grape.policies.opening import crop_of
from grape.policies.registry import read_policy, recognize_policy
from grape.policies.types import OpeningOptions
from grape.store.rlds.standardize import gripper_from_loader

__all__ = ["STATISTICS_FILE", "PolicyReader", "keep_statistics", "kept_statistics", "open_reader"]

STATISTICS_FILE = "dataset_statistics.json"
"""Where an import keeps the statistics of its data, in the layout of OpenVLA's ``norm_stats``."""

_DIM = 7


class PolicyReader:
    """A policy as an :class:`~grape.store.imported.ActionReader` of actions in the published loaders' convention.

    Args:
        policy: The policy; its weights are not needed.
        rotation: How the data say that they say a rotation. An axis-angle is put into the words of a policy that
            speaks of roll, pitch and yaw; where data say nothing (empty), they are taken to be in its words already.

    Raises:
        CompatibilityError: The policy decides another number of dimensions than 7.
    """

    def __init__(self, policy: ActionEncoder, rotation: str = "") -> None:
        spec = policy.spec
        if spec.action_dim != _DIM:
            raise CompatibilityError(
                f"The data's actions have {_DIM} dimensions, the policy decides {spec.action_dim}.",
                "Give a policy of the same robot.",
            )
        self._policy = policy
        self._spec = spec
        self._converts_rotation = (rotation, spec.rotation) == (
            RotationConvention.AXIS_ANGLE,
            RotationConvention.ROLL_PITCH_YAW,
        )
        self.preprocessing_hash = spec.preprocessing_hash

    @property
    def unnorm_key(self) -> str:
        """Name of the statistics in use."""
        return self._spec.unnorm_key

    def prompt(self, instruction: str) -> str:
        """The text that the policy reads for an instruction."""
        return self._policy.prompt(instruction)

    def action_tokens(self, actions: npt.NDArray[np.float32], /) -> npt.NDArray[np.int32]:
        """Tokens of un-normalized actions whose gripper is 1 = open, 0 = closed, int32 ``(N, 7)``.

        Rotation and gripper are first put into the policy's own convention, as far as data and policy state theirs.

        Raises:
            SettingsError: The policy's convention is unknown.
        """
        if self._converts_rotation:
            actions = roll_pitch_yaw_from_axis_angle(actions)
        gripper = self._spec.gripper
        return self._policy.action_tokens(gripper_from_loader(actions, gripper) if gripper else actions)


def open_reader(
    policy: Path,
    unnorm_key: str,
    center_crop: Literal["auto", "yes", "no"],
    norm_stats: Mapping[str, Any],
    rotation: str = "",
) -> PolicyReader:
    """Open a policy without its weights, to encode actions as tokens.

    Args:
        policy: A folder or a name on the hub.
        unnorm_key: Statistics to use; empty takes those of ``norm_stats``, unless the policy holds some of that name.
        center_crop: Whether the policy crops images, which belongs to what episodes are compared by.
        norm_stats: The data's own statistics under its name.
        rotation: As for :class:`PolicyReader`.

    Raises:
        SettingsError: There is no such policy, it holds no such statistics, or the extra ``train`` is not installed.
        CompatibilityError: The policy is of another robot.
    """
    options = OpeningOptions(unnorm_key=unnorm_key, center_crop=crop_of(center_crop), norm_stats=norm_stats)
    takes_statistics = "norm_stats" in recognize_policy(policy)[0].takes
    opened: object = read_policy(policy, options) if takes_statistics else None
    if not isinstance(opened, ActionEncoder) or opened.spec.chunk > 1:
        raise CompatibilityError(
            f"{policy} gives no tokens to single actions, which imported trajectories need.",
            "Give a policy that decides on one action at a time, e.g. OpenVLA's, or import without --policy.",
        )
    return PolicyReader(opened, rotation)


def kept_statistics(folder: Path, name: str, compute: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The data's statistics under its name: those that an earlier start of the same import wrote, or new ones.

    Whether the data is still the same is found by what identifies the import, not here.

    Args:
        folder: The import's folder.
        name: Name of the data set.
        compute: Reads all actions.
    """
    path = folder / STATISTICS_FILE
    if path.exists() and name in (recorded := read_json(path)):
        statistics: Mapping[str, Any] = recorded
        return statistics
    return {name: compute()}


def keep_statistics(folder: Path, statistics: Mapping[str, Any]) -> None:
    """Write the statistics for :func:`kept_statistics`."""
    write_json(folder / STATISTICS_FILE, dict(statistics))
