"""Interfaces of simulators: suites of tasks, environments with indexed initial states, scripted experts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from grape.core.errors import SettingsError
from grape.core.tasks import ActionSpace, Task

__all__ = ["BlindEnvironment", "Environment", "Expert", "Snapshot", "SuiteBase"]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One state of the world, as recorded and as given to the policy.

    Attributes:
        image: The policy's image, RGB uint8 ``(H, W, 3)``.
        proprio: Robot state, float32 ``(P,)``.
        keypoints: Named points in meters, world frame, float32 ``(3,)`` each.
        signals: Named scalars, e.g. ``gripper_opening`` in [0, 1], ``grasped`` 0 or 1, ``opened`` in [0, 1].
        success: Whether the task is solved in this state; None where the simulator does not tell.
        display: Larger image for people, uint8 ``(H2, W2, 3)``, or None.
        privileged: Raw simulator state for experts; never recorded, never shown to a policy.
        extra: Facts of the whole episode, JSON values only; recorded from the reset's snapshot, e.g. the camera.
        cameras: Images of further cameras by name, RGB uint8 ``(H, W, 3)`` each; the same names in every snapshot.
        terminated: Whether the simulator ended the episode in this state, solved or not: no step may follow.
    """

    image: npt.NDArray[np.uint8]
    proprio: npt.NDArray[np.float32]
    keypoints: Mapping[str, npt.NDArray[np.float32]]
    signals: Mapping[str, float]
    success: bool | None
    display: npt.NDArray[np.uint8] | None = None
    privileged: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    cameras: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    terminated: bool = False


class Environment(Protocol):
    """One world of one task. ``reset`` and ``step`` change it; equal calls give equal snapshots."""

    def reset(self, initial_state: int) -> Snapshot:
        """Start from the initial state with this index, independently of earlier episodes."""

    def step(self, action: npt.NDArray[np.float32]) -> Snapshot:
        """Apply one decision, float32 ``(D,)`` in the suite's action convention, clipped to its bounds."""

    def close(self) -> None:
        """Release the simulator."""


@runtime_checkable
class BlindEnvironment(Protocol):
    """What an environment offers beside that moves without drawing, for policies that look every few steps alone.

    :meth:`advance` and then :meth:`look` are equal to ``step``. Where these methods are absent, every step is drawn.
    """

    def advance(self, action: npt.NDArray[np.float32]) -> Snapshot:
        """As ``step``, without images: ``image`` is ``(0, 0, 3)``, ``display`` None, ``cameras`` empty."""

    def look(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot of the last :meth:`advance` with images."""


class Expert(Protocol):
    """A scripted operator with privileged knowledge; one object an episode."""

    def act(self, snapshot: Snapshot) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Choose the action of the next decision.

        Returns:
            The action to execute (with the operator's noise) and the clean action to learn, float32 ``(D,)`` each.
        """


class SuiteBase(ABC):
    """A family of tasks in one simulator. Constructing a suite imports no simulator.

    The methods from :meth:`versions` on look at what is installed; with a simulator in another Python interpreter they
    are called there.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Registered name."""

    @property
    @abstractmethod
    def tasks(self) -> tuple[Task, ...]:
        """All tasks by index."""

    @property
    @abstractmethod
    def action_space(self) -> ActionSpace:
        """The contract of actions."""

    @property
    def proprio_dim(self) -> int | None:
        """Numbers of the robot's state in every snapshot; None, the default, where the suite does not say.

        Policies that read another number are refused before the first episode, else at their first decision.
        """
        return None

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras whose images snapshots hold beside the main one's. By default there are none."""
        return ()

    @property
    def conventions(self) -> Mapping[str, Any]:
        """What the suite does of the conventions that a policy may state: ``idle_steps``, ``image_preprocessing``.

        A policy that states another value is warned of. By default nothing is compared.
        """
        return {}

    @property
    def operators(self) -> tuple[str, ...]:
        """Styles of expert that :meth:`make_expert` knows; the first is the default. By default there are none."""
        return ()

    @abstractmethod
    def n_initial_states(self, task: Task) -> int:
        """How many different initial states the task has."""

    def about_initial_states(self, task: Task) -> str:
        """Why a task has fewer initial states than the simulator offers, in a sentence; empty where it does not."""
        return ""

    def base_task(self, task: Task) -> tuple[str, str]:
        """Suite and name of the task whose initial states are this task's, as far as it has them: a scene's other name.

        A policy that has seen an initial state of the one has seen that of the other. By default a task is its own.
        """
        return self.name, task.name

    @property
    def cost_specifications(self) -> Path | None:
        """Folder of the suite's own cost specifications: ``TASK.yaml`` for each task that has one. By default None.

        ``grape score`` and ``grape costs`` take them for the tasks of this suite as they take the built-in ones.
        """
        return None

    def tasks_to_look_at(self) -> tuple[Task, ...]:
        """Tasks that ``grape doctor`` renders: one of each kind of scene. By default the first."""
        return self.tasks[:1]

    def check_expert(self, task: Task) -> None:
        """Make sure that a scripted expert knows a task. By default experts know all tasks.

        Raises:
            SettingsError: There is none for it.
        """
        return

    @abstractmethod
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that shape the physics and the images.

        Raises:
            SettingsError: They are not installed.
        """

    def cautions(self) -> tuple[str, ...]:
        """Sentences on what makes results on this machine differ from published ones."""
        return ()

    def check(self) -> None:
        """Check for what the simulator needs before the first episode.

        Raises:
            GrapeError: Something is missing.
        """
        self.versions()

    def load(self) -> None:
        """Import the simulator, which may take seconds.

        Raises:
            GrapeError: It cannot be imported.
        """
        return

    @abstractmethod
    def make_environment(self, task: Task) -> Environment:
        """New environment of a task.

        Raises:
            SimulatorError: The simulator or a graphics library is missing; the hint names what to install.
        """

    def make_expert(self, task: Task, operator: str, seed: int) -> Expert:
        """New expert for one episode.

        Args:
            task: The task to solve.
            operator: One of :attr:`operators`.
            seed: Seed of the operator's noise.

        Raises:
            SettingsError: There is none.
        """
        raise SettingsError(f"Suite '{self.name}' has no scripted experts.", "Give --policy with a checkpoint.")
