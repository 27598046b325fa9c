"""The suites ``simpler_widowx``, its variations ``_subject``, ``_physical``, ``_semantic``, ``_held3`` and ``_nano``.

``_held3`` decides more slowly; ``_nano`` has small images, drawn fast, and initial states beyond the benchmark's.
Importing this imports no simulator.
"""

import dataclasses
from collections.abc import Mapping
from importlib import metadata

from grape.core.errors import SettingsError
from grape.core.tasks import ActionSpace, GripperConvention, RotationConvention, Task
from grape.envs.base import Environment, Expert, SuiteBase
from grape.envs.expert_styles import OPERATORS
from grape.envs.simpler.environment import MOST_ROTATION, MOST_TRANSLATION, WidowXEnvironment
from grape.envs.simpler.initial_states import about_initial_states, n_initial_states
from grape.envs.simpler.installation import asset_folder
from grape.envs.simpler.rendering import require_vulkan
from grape.envs.simpler.tasks import same_scene, steps_per_decision, suite_tasks

__all__ = ["CONTROL_HZ", "WidowXSuite"]

CONTROL_HZ = 5.0
"""Decisions a second; the physics runs at 500 Hz."""

_MEASURED = {"mani_skill": "3.0.1", "sapien": "3.0.3"}
_BOUND = (MOST_TRANSLATION,) * 3 + (MOST_ROTATION,) * 3

_ACTION_SPACE = ActionSpace(
    names=("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"),
    low=(*(-bound for bound in _BOUND), 0.0),
    high=(*_BOUND, 1.0),
    gripper=GripperConvention.ONE_OPENS,
    rotation=RotationConvention.AXIS_ANGLE,
    control_hz=CONTROL_HZ,
    notes=(  # compared with the contract of recorded stores: the wording stays
        "translation in metres along the axes of the robot's base, which is turned by half a turn in the world",
        "rotation in radians about the same axes",
        "the gripper is binarised at 0.5; the simulator's -1 closes as well",
    ),
)


class WidowXSuite(SuiteBase):
    """One of the suites; see :class:`~grape.envs.base.SuiteBase`.

    Args:
        name: One of :data:`grape.envs.simpler.tasks.SUITES`.
        images: Whether environments draw; see :class:`~grape.envs.simpler.environment.WidowXEnvironment`.
    """

    def __init__(self, name: str, images: bool = True) -> None:
        self._name = name
        self._images = images

    @property
    def name(self) -> str:
        return self._name

    @property
    def tasks(self) -> tuple[Task, ...]:
        return suite_tasks(self._name)

    @property
    def action_space(self) -> ActionSpace:
        """SimplerEnv's convention, with OpenVLA's gripper."""
        n_steps = steps_per_decision(self._name)
        if n_steps == 1:
            return _ACTION_SPACE
        notes = (*_ACTION_SPACE.notes, f"each decision is carried out over {n_steps} steps, an equal part in each")
        return dataclasses.replace(_ACTION_SPACE, control_hz=CONTROL_HZ / n_steps, notes=notes)

    @property
    def proprio_dim(self) -> int:
        return 8

    @property
    def operators(self) -> tuple[str, ...]:
        return OPERATORS

    def n_initial_states(self, task: Task) -> int:
        return n_initial_states(self._name)

    def about_initial_states(self, task: Task) -> str:
        """Why a task has fewer initial states than the simulator, in a sentence; empty where it does not."""
        return about_initial_states(task)

    def base_task(self, task: Task) -> tuple[str, str]:
        """ManiSkill's task where the scene is the same: slower decisions and other instructions do not change it."""
        return same_scene(task)

    def versions(self) -> Mapping[str, str]:
        try:
            return {name: metadata.version(name) for name in _MEASURED}
        except metadata.PackageNotFoundError as error:
            raise SettingsError(
                f"The SimplerEnv suites need package {error.name!r}.", "pip install 'grape-vla[simpler]'"
            ) from error

    def cautions(self) -> tuple[str, ...]:
        """What makes results differ from recorded ones, in sentences."""
        return tuple(
            f"{name} {version} was not compared with {_MEASURED[name]}, which the recorded results were made with."
            for name, version in self.versions().items()
            if version != _MEASURED[name]
        )

    def check(self) -> None:
        """Look for packages, assets and a Vulkan device.

        Raises:
            SettingsError: The packages are not installed.
            DataError: ManiSkill's assets are missing.
            SimulatorError: There is no Vulkan device that draws.
        """
        self.versions()
        asset_folder()
        if self._images:
            require_vulkan()

    def tasks_to_look_at(self) -> tuple[Task, ...]:
        return self.tasks if self._name == "simpler_widowx" else self.tasks[:1]

    def make_environment(self, task: Task) -> Environment:
        """New environment; the first one in a process takes up to 20 s, mostly imports."""
        return WidowXEnvironment(task, self._images)

    def make_expert(self, task: Task, operator: str, seed: int) -> Expert:
        from grape.envs.simpler.experts import make_expert

        return make_expert(task, operator, seed)
