"""Tasks as Gymnasium environments: ``gymnasium.make("grape/toy-reach-red-v0")`` after ``import grape.gymnasium``."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from grape.core.errors import GrapeError, SettingsError
from grape.core.selections import parse_numbers
from grape.envs.base import Snapshot, SuiteBase
from grape.envs.registry import get_suite, missing_state_hint, select_tasks, suite_names

__all__ = ["environment_id", "make_task_environment", "register_environments"]

_ID = re.compile(r"grape/[\w:.-]+-v0")


def environment_id(suite: str, task: str) -> str:
    """Gymnasium's id of a task, e.g. ``"grape/toy-reach-red-v0"``."""
    return f"grape/{suite}-{task}-v0"


def register_environments() -> None:
    """Register the tasks of all suites, built in or from plug-ins, with Gymnasium; no simulator is imported.

    Suites of Gymnasium environments are left out: they are there already. A plug-in that cannot be loaded is warned of.

    Raises:
        SettingsError: Gymnasium is not installed.
    """
    try:
        import gymnasium
    except ModuleNotFoundError as error:
        raise SettingsError(
            "The package 'gymnasium' is missing.", "pip install 'grape-vla[gymnasium]', or [metaworld]."
        ) from error
    from grape.envs.gymnasium_suite import GymnasiumSuite

    for name in suite_names():
        try:
            suite = get_suite(name)
            tasks = () if isinstance(suite, GymnasiumSuite) else suite.tasks
        except GrapeError as error:
            warnings.warn(f"The tasks of suite {name!r} are left out: {error.message}", stacklevel=2)
            continue
        for task in tasks:
            identity = environment_id(name, task.name)
            if _ID.fullmatch(identity) and identity not in gymnasium.registry:
                gymnasium.register(
                    identity,
                    entry_point=f"{__name__}:{make_task_environment.__name__}",
                    max_episode_steps=task.max_steps,
                    kwargs={"suite": name, "task": task.name},
                )


def make_task_environment(suite: str, task: str, initial_states: str = "", render_mode: str | None = None) -> Any:
    """A task as ``gymnasium.Env``.

    Observations are a Dict of ``image`` (uint8 ``(H, W, 3)``), ``proprio`` (float32 ``(P,)``) and further cameras by
    name; actions those of the suite. The reward is 1 in a state that is solved, else 0; such a state ends the episode.
    ``info`` holds ``success``, ``signals``, ``keypoints`` (meters, world frame), ``instruction``, ``initial_state``.

    ``reset(seed=n)`` starts from the n-th of the initial states (modulo their number), ``reset()`` from one that is
    drawn, ``reset(options={"initial_state": n})`` from state ``n``.

    Args:
        suite: Registered name of the suite.
        task: The task's name.
        initial_states: Indices to start from, e.g. ``"0-47"``; all by default.
        render_mode: ``"rgb_array"`` (the larger image for people, where there is one) or None.

    Raises:
        SettingsError: Suite, task or initial states are unknown, or a package is missing.
        SimulatorError: The simulator or a graphics library is missing.
    """
    return _environment_class()(suite, task, initial_states, render_mode)


@functools.cache
def _environment_class() -> Any:
    """The class, whose base is Gymnasium's: it is made where Gymnasium is needed, not where this module is imported."""
    import gymnasium
    from gymnasium import spaces

    class TaskEnvironment(gymnasium.Env):  # type: ignore[misc]
        """See :func:`make_task_environment`."""

        def __init__(self, suite: str, task: str, initial_states: str, render_mode: str | None) -> None:
            described_suite = get_suite(suite)
            (self._task,) = select_tasks(described_suite, task)
            self._states = _states(described_suite, self._task, initial_states)
            actions = described_suite.action_space
            self.metadata = {"render_modes": ["rgb_array"], "render_fps": actions.control_hz}
            self.render_mode = render_mode
            self.instruction = self._task.instruction
            self.action_space = spaces.Box(
                np.array(actions.low, np.float32), np.array(actions.high, np.float32), dtype=np.float32
            )
            described_suite.check()
            self._environment: Any = described_suite.make_environment(self._task)
            self._snapshot: Snapshot = self._environment.reset(self._states[0])
            self._initial_state = self._states[0]
            self.observation_space = spaces.Dict({name: _space(value) for name, value in self._observation().items()})

        def reset(
            self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
        ) -> tuple[dict[str, Any], dict[str, Any]]:
            super().reset(seed=seed)
            place = seed % len(self._states) if seed is not None else int(self.np_random.integers(len(self._states)))
            self._initial_state = int((options or {}).get("initial_state", self._states[place]))
            self._snapshot = self._environment.reset(self._initial_state)
            return self._observation(), self._info()

        def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
            self._snapshot = self._environment.step(np.asarray(action, np.float32))
            solved = bool(self._snapshot.success)
            return self._observation(), float(solved), solved or self._snapshot.terminated, False, self._info()

        def render(self) -> Any:
            if self.render_mode is None:
                return None
            image = self._snapshot.image if self._snapshot.display is None else self._snapshot.display
            return np.array(image)

        def close(self) -> None:
            if self._environment is not None:
                self._environment.close()
                self._environment = None

        def _observation(self) -> dict[str, Any]:
            now = self._snapshot
            return {name: np.array(value) for name, value in _parts(now).items()}

        def _info(self) -> dict[str, Any]:
            return {
                "success": self._snapshot.success,
                "signals": {name: float(value) for name, value in self._snapshot.signals.items()},
                "keypoints": {name: np.array(point) for name, point in self._snapshot.keypoints.items()},
                "instruction": self.instruction,
                "initial_state": self._initial_state,
            }

    def _space(value: Any) -> Any:
        if value.dtype == np.uint8:
            return spaces.Box(0, 255, value.shape, np.uint8)
        return spaces.Box(-np.inf, np.inf, value.shape, np.float32)

    return TaskEnvironment


def _parts(snapshot: Snapshot) -> dict[str, Any]:
    return {"image": snapshot.image, "proprio": snapshot.proprio, **snapshot.cameras}


def _states(suite: SuiteBase, task: Any, selection: str) -> range | tuple[int, ...]:
    """Initial states to start from.

    Raises:
        SettingsError: One does not exist.
    """
    available = suite.n_initial_states(task)
    if not selection:
        return range(available)
    states = parse_numbers(selection, "initial states")
    if max(states) >= available:
        raise SettingsError(
            f"Initial state {max(states)} of {task.id} does not exist.", missing_state_hint(suite, task)
        )
    return tuple(states)
