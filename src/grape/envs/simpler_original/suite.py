"""The suite ``simpler_widowx-v0``: the four WidowX tasks of the original SimplerEnv (Li et al. 2024, arXiv 2405.05941).

SimplerEnv depends on SAPIEN 2 and a numpy before 2: with numpy 2 poses are wrong and images black, without an error.
So its workers run in an external interpreter, and the modules of this folder keep to Python 3.9 and numpy 1.26.
Names, instructions and limits of the tasks, keypoints and signals are those of ``simpler_widowx``, the same tasks in
ManiSkill 3, so that costs and protocols serve both. Importing this imports no simulator.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib import metadata

from grape.core.errors import SettingsError
from grape.core.tasks import ActionSpace, GripperConvention, RotationConvention, Task
from grape.envs.base import Environment, Expert, SuiteBase

__all__ = ["N_INITIAL_STATES", "ORIGINAL_NAMES", "OriginalSuite"]

N_INITIAL_STATES = 24
"""Initial states a task."""

ORIGINAL_NAMES = {
    "carrot-on-plate": "widowx_carrot_on_plate",
    "stack-cubes": "widowx_stack_cube",
    "spoon-on-cloth": "widowx_spoon_on_towel",
    "eggplant-in-basket": "widowx_put_eggplant_in_basket",
}
"""What ``simpler_env.make`` takes, by the task's name."""

_NAME = "simpler_widowx-v0"
_LIMIT, _SINK_LIMIT = 60, 120
_TASKS = (
    Task(_NAME, 0, "carrot-on-plate", "put carrot on plate", _LIMIT),
    Task(_NAME, 1, "stack-cubes", "stack the green block on the yellow block", _LIMIT),
    Task(_NAME, 2, "spoon-on-cloth", "put the spoon on the towel", _LIMIT),
    Task(_NAME, 3, "eggplant-in-basket", "put eggplant into yellow basket", _SINK_LIMIT),
)
_BOUND = (1.0,) * 3 + (1.5707963267948966,) * 3
_ACTION_SPACE = ActionSpace(
    names=("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"),
    low=(*(-bound for bound in _BOUND), 0.0),
    high=(*_BOUND, 1.0),
    gripper=GripperConvention.ONE_OPENS,
    rotation=RotationConvention.AXIS_ANGLE,
    control_hz=5.0,
    notes=(  # compared with the contract of recorded stores: the wording stays
        "translation in metres along the axes of the robot's base, which is turned by half a turn in the world",
        "rotation in radians about the same axes",
        "the gripper is binarised at 0.5; the simulator's -1 closes as well",
    ),
)
# Distribution by the name under which its version is recorded.
_PACKAGES = {"simpler_env": "simpler_env", "mani_skill2_real2sim": "mani_skill2_real2sim", "sapien": "sapien"}
_HINT = (
    "Name the Python of an environment that has SimplerEnv: --env-python /path/to/python. How to make one: "
    "docs/simpler-original.md."
)


class OriginalSuite(SuiteBase):
    """See :class:`~grape.envs.base.SuiteBase`."""

    @property
    def name(self) -> str:
        return _NAME

    @property
    def tasks(self) -> tuple[Task, ...]:
        return _TASKS

    @property
    def action_space(self) -> ActionSpace:
        """SimplerEnv's convention, with OpenVLA's gripper."""
        return _ACTION_SPACE

    @property
    def proprio_dim(self) -> int:
        return 8

    @property
    def operators(self) -> tuple[str, ...]:
        """No experts."""
        return ()

    def n_initial_states(self, task: Task) -> int:
        return N_INITIAL_STATES

    def versions(self) -> Mapping[str, str]:
        versions = {}
        for name, distribution in _PACKAGES.items():
            try:
                versions[name] = metadata.version(distribution)
            except metadata.PackageNotFoundError as error:
                raise SettingsError(
                    f"Suite '{_NAME}' runs in the original SimplerEnv, and package {name!r} is not installed.", _HINT
                ) from error
        versions["numpy"] = metadata.version("numpy")
        if int(versions["numpy"].partition(".")[0]) >= 2:
            raise SettingsError(
                f"The original SimplerEnv gives wrong poses and black images with numpy {versions['numpy']}.",
                "In its environment: python -m pip install 'numpy<2'",
            )
        return versions

    def load(self) -> None:
        try:
            importlib.import_module("simpler_env")
        except ModuleNotFoundError as error:
            raise SettingsError(f"SimplerEnv cannot be imported: {error}.", _HINT) from error

    def make_environment(self, task: Task) -> Environment:
        """New environment; the first reset of each takes tens of seconds without a GPU."""
        from grape.envs.simpler_original.environment import OriginalEnvironment

        return OriginalEnvironment(task)

    def make_expert(self, task: Task, operator: str, seed: int) -> Expert:
        """There are no scripts for these tasks.

        Raises:
            SettingsError: Always.
        """
        raise SettingsError(f"Suite '{_NAME}' has no scripted experts.", "Give --policy with a checkpoint.")
