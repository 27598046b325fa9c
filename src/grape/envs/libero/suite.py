"""The suites ``libero_spatial``, ``libero_object``, ``libero_goal``, ``libero_10`` and ``libero_90``.

Each has variants whose names end in what differs, and nothing else does: ``_2hz`` holds its decisions, ``_nano`` has
small images that are drawn fast, ``_nano_wrist`` has them of the wrist's camera, too. Results of a suite and its
variants are not comparable.

Importing this imports no simulator.
"""

import dataclasses
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from grape.core.errors import SettingsError
from grape.core.tasks import ActionSpace, GripperConvention, RotationConvention, Task
from grape.envs.base import Environment, Expert, SuiteBase
from grape.envs.expert_styles import OPERATORS
from grape.envs.libero.environment import LiberoEnvironment
from grape.envs.libero.installation import installed_distribution, mujoco_caution
from grape.envs.libero.tasks import base_suite, nano_cameras, steps_per_decision, suite_tasks
from grape.envs.libero.world import WAITING_STEPS

__all__ = ["N_INITIAL_STATES", "LiberoSuite"]

N_INITIAL_STATES = 50
"""LIBERO's recorded initial states a task."""

_ACTION_SPACE = ActionSpace(
    names=("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"),
    low=(-1.0,) * 6 + (0.0,),
    high=(1.0,) * 7,
    gripper=GripperConvention.ONE_OPENS,
    rotation=RotationConvention.AXIS_ANGLE,
    control_hz=20.0,
    # Compared with the contract of recorded stores: the wording stays.
    notes=("translation in units of 5 cm", "rotation in units of 0.5 rad", "the gripper is binarised at 0.5"),
)


class LiberoSuite(SuiteBase):
    """One suite of LIBERO; see :class:`~grape.envs.base.SuiteBase`.

    Args:
        name: One of :data:`grape.envs.libero.tasks.SUITES`.
        images: Whether environments draw; see :class:`~grape.envs.libero.environment.LiberoEnvironment`.
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
        """OpenVLA's convention: the gripper's 1 opens."""
        n_steps = steps_per_decision(self._name)
        if n_steps == 1:
            return _ACTION_SPACE
        notes = (*_ACTION_SPACE.notes, f"each decision holds for {n_steps} steps")
        return dataclasses.replace(_ACTION_SPACE, control_hz=_ACTION_SPACE.control_hz / n_steps, notes=notes)

    @property
    def proprio_dim(self) -> int:
        return 8

    @property
    def cameras(self) -> tuple[str, ...]:
        return nano_cameras(self._name) or ()

    @property
    def conventions(self) -> Mapping[str, Any]:
        """OpenVLA's protocol; suites with images of their own follow it in the waiting steps alone."""
        images = {} if nano_cameras(self._name) is not None else {"image_preprocessing": "jpeg-lanczos"}
        return {"idle_steps": WAITING_STEPS, **images}

    @property
    def operators(self) -> tuple[str, ...]:
        return OPERATORS

    def n_initial_states(self, task: Task) -> int:
        return N_INITIAL_STATES

    def base_task(self, task: Task) -> tuple[str, str]:
        """LIBERO's task: variants start from the same initial states."""
        return base_suite(self._name), task.name

    def versions(self) -> Mapping[str, str]:
        distribution, version = installed_distribution()
        try:
            return {distribution: version} | {name: metadata.version(name) for name in ("robosuite", "mujoco")}
        except metadata.PackageNotFoundError as error:
            raise SettingsError(
                f"The LIBERO suites need package {error.name!r}.", "pip install 'grape-vla[libero]'"
            ) from error

    def cautions(self) -> tuple[str, ...]:
        caution = mujoco_caution(self.versions()["mujoco"])
        return (caution,) if caution else ()

    def make_environment(self, task: Task) -> Environment:
        """New environment; the first reset of a task in a process takes 5 to 15 s."""
        return LiberoEnvironment(task, self._images)

    def check_expert(self, task: Task) -> None:
        from grape.envs.libero.experts.scripts import check_script

        check_script(task)

    def make_expert(self, task: Task, operator: str, seed: int) -> Expert:
        from grape.envs.libero.experts import make_expert

        return make_expert(task, operator, seed)
