"""The suite ``metaworld``: importing it imports no simulator."""

from collections.abc import Mapping
from importlib import metadata

from grape.core.errors import SettingsError
from grape.core.tasks import ActionSpace, GripperConvention, RotationConvention, Task
from grape.envs.base import Environment, Expert, SuiteBase
from grape.envs.expert_styles import OPERATORS
from grape.envs.metaworld.experts import ScriptedExpert
from grape.envs.metaworld.tasks import TASK_MODELS, TASKS, TaskModel
from grape.envs.metaworld.world import N_INITIAL_STATES, MetaWorldEnvironment

__all__ = ["MetaWorldSuite"]

_ACTION_SPACE = ActionSpace(
    names=("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"),
    low=(-1.0,) * 7,
    high=(1.0,) * 7,
    gripper=GripperConvention.PLUS_ONE_CLOSES,
    rotation=RotationConvention.NONE,
    control_hz=10.0,
    notes=("translation in units of 8 cm a decision (1 cm a simulator step)", "each decision holds for 8 steps"),
)


class MetaWorldSuite(SuiteBase):
    """Nine Meta-World tasks with a Sawyer arm; see :class:`~grape.envs.base.SuiteBase`.

    Images are 64 x 64; proprioception is the gripper's x, y, z in meters and its opening in [0, 1].
    """

    @property
    def name(self) -> str:
        return "metaworld"

    @property
    def tasks(self) -> tuple[Task, ...]:
        return TASKS

    @property
    def action_space(self) -> ActionSpace:
        """Seven dimensions of which the three rotations are ignored."""
        return _ACTION_SPACE

    @property
    def proprio_dim(self) -> int:
        return 4

    @property
    def operators(self) -> tuple[str, ...]:
        return OPERATORS

    def n_initial_states(self, task: Task) -> int:
        return N_INITIAL_STATES

    def versions(self) -> Mapping[str, str]:
        try:
            return {package: metadata.version(package) for package in ("metaworld", "mujoco")}
        except metadata.PackageNotFoundError as error:
            raise SettingsError(
                f"Suite 'metaworld' needs package {error.name!r}.", "pip install 'grape-vla[metaworld]'"
            ) from error

    def make_environment(self, task: Task) -> Environment:
        """New environment; the first of a task in a process takes a second, the others milliseconds.

        Raises:
            SettingsError: The packages are not installed.
            SimulatorError: No graphics library can be used.
        """
        return MetaWorldEnvironment(self._model(task))

    def make_expert(self, task: Task, operator: str, seed: int) -> Expert:
        return ScriptedExpert(self._model(task), operator, seed)

    def _model(self, task: Task) -> TaskModel:
        return TASK_MODELS[task.index]
