"""The suite ``toy``: a flat world in numpy for fast tests of everything that does not need physics.

A gripper slides over a table of 40 x 40 cm and touches squares. It follows the conventions of the real suites (7-D
action, keypoints, signals, images, privileged state), resets and steps in a fraction of a millisecond and is exact.

Variants for policies that act in chunks or read two images: ``toy_fine`` moves a quarter as far in a control step and
takes four times as many; ``toy_wrist`` and ``toy_fine_wrist`` have a second camera, ``wrist``, above the gripper.

For tests of pools and retries the environment variable ``GRAPE_FAULT`` makes it misbehave once or always::

    GRAPE_FAULT=<crash|hang|error>:<task>:<initial state>:<decision>[:<marker file>]

Decision 0 is the reset. With a marker file the fault happens only while that file is absent, and creates it.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grape.core.errors import SettingsError
from grape.core.seeds import derive_rng
from grape.core.tasks import ActionSpace, GripperConvention, RotationConvention, Task
from grape.envs.base import Environment, Expert, Snapshot, SuiteBase
from grape.envs.expert_styles import OPERATORS, Operator

__all__ = ["SUITES", "ToyEnvironment", "ToyExpert", "ToySuite"]

SUITES: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "toy": (1, ()),
    "toy_fine": (4, ()),
    "toy_wrist": (1, ("wrist",)),
    "toy_fine_wrist": (4, ("wrist",)),
}
"""Control steps for the way of one in ``toy``, and cameras beside the main one, by suite."""

_N_INITIAL_STATES = 1_000_000
_MAX_STEPS = 8
_TABLE = 0.2  # half of the table's width, meters
_STEP = 0.08  # meters a decision at full action
_RADIUS = 0.03  # within which a goal counts as reached, meters
_BLOCK_HALF = 0.03  # half of the block's width, meters
_PUSH = 0.12  # how far the block has to go, meters
_HEIGHT = 0.02  # of everything, meters
_IMAGE = 64  # pixels
_WRIST_REACH = 0.06  # half of what the wrist's camera sees, meters
_DISPLAY_FACTOR = 2

_RED, _BLUE = (210, 40, 40), (40, 60, 210)
_GREEN, _GOAL = (60, 160, 60), (170, 210, 170)
_TABLE_COLOR, _OPEN, _CLOSED = (225, 220, 205), (20, 20, 20), (110, 110, 110)

_TASKS = (
    ("reach-red", "reach the red square"),
    ("reach-blue", "reach the blue square"),
    ("push-block", "push the block right"),
)

_ACTION_SPACE = ActionSpace(
    names=("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"),
    low=(-1.0,) * 7,
    high=(1.0,) * 7,
    gripper=GripperConvention.PLUS_ONE_CLOSES,
    rotation=RotationConvention.NONE,
    control_hz=10.0,
    notes=("dz and rotations are ignored", "translation in units of 8 cm a decision"),
)

Float64 = npt.NDArray[np.float64]


class ToyEnvironment:
    """One episode at a time; see :class:`~grape.envs.base.Environment`.

    Args:
        task: A task of the suite.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        rate, self._cameras = SUITES[task.suite]
        self._step = _STEP / rate
        self._fault = _Fault.from_environment(task)
        self._initial_state = self._decision = -1
        self._gripper: Float64 = np.zeros(2)
        self._opening = 1.0
        self._squares: dict[str, Float64] = {}
        self._start: Float64 = np.zeros(2)
        self._goal: Float64 = np.zeros(2)

    def reset(self, initial_state: int) -> Snapshot:
        """Start from an initial state.

        Raises:
            SettingsError: There is no such initial state.
        """
        if not 0 <= initial_state < _N_INITIAL_STATES:
            raise SettingsError(
                f"Task {self._task.id} has no initial state {initial_state}.",
                f"Choose from 0 to {_N_INITIAL_STATES - 1}.",
            )
        self._initial_state, self._decision = initial_state, 0
        self._fault.trigger(initial_state, 0)
        rng = derive_rng("toy", self._task.name, initial_state)
        self._opening = 1.0
        if self._task.name == "push-block":
            self._gripper = rng.uniform((-0.18, -0.15), (-0.12, 0.15))
            block = rng.uniform((-0.05, -0.12), (0.02, 0.12))
            self._squares = {"block": block}
            self._start, self._goal = block, block + np.array([_PUSH, 0.0])
        else:
            self._gripper = rng.uniform((-0.05, -0.18), (0.05, -0.12))
            left = rng.uniform((-0.18, 0.0), (-0.06, 0.18))
            right = rng.uniform((0.06, 0.0), (0.18, 0.18))
            red, blue = (left, right) if rng.random() < 0.5 else (right, left)
            self._squares = {"red": red, "blue": blue}
            self._start = self._gripper
            self._goal = red if self._task.name == "reach-red" else blue
        return self.look(self._snapshot())

    def step(self, action: npt.NDArray[np.float32]) -> Snapshot:
        """Apply one decision, float32 ``(7,)``; only dx, dy and the gripper matter.

        Raises:
            RuntimeError: ``reset`` was not called.
        """
        return self.look(self.advance(action))

    def advance(self, action: npt.NDArray[np.float32]) -> Snapshot:
        """As :meth:`step`, without images."""
        if self._decision < 0:
            raise RuntimeError("reset must be called before step")
        self._decision += 1
        self._fault.trigger(self._initial_state, self._decision)
        clipped = np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        before = self._gripper
        self._gripper = np.clip(before + self._step * clipped[:2], -_TABLE, _TABLE)
        self._opening = float(clipped[6] <= 0)
        if "block" in self._squares:
            self._squares["block"] = _pushed(self._squares["block"], before, self._gripper)
        return self._snapshot()

    def look(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot of the state as it is, with images."""
        image = self._draw(np.zeros(2), _TABLE)
        display = image.repeat(_DISPLAY_FACTOR, axis=0).repeat(_DISPLAY_FACTOR, axis=1)
        cameras = {name: self._draw(self._gripper, _WRIST_REACH) for name in self._cameras}
        return dataclasses.replace(snapshot, image=image, display=display, cameras=cameras)

    def close(self) -> None:
        """Nothing is held."""

    def _snapshot(self) -> Snapshot:
        thing = self._squares.get("block", self._gripper)
        distance = float(np.linalg.norm(thing - self._goal))
        way = float(np.linalg.norm(self._start - self._goal))
        gap = float(np.max(np.abs(self._gripper - thing)))
        touching = float("block" in self._squares and gap <= _BLOCK_HALF + 1e-6)
        success = distance <= _RADIUS
        finger: Float64 = np.array([0.0, 0.01 * (0.5 + self._opening)])
        keypoints = {
            "gripper": self._gripper,
            "finger_left": self._gripper + finger,
            "finger_right": self._gripper - finger,
            "object": thing,
            "object_start": self._start,
            "goal": self._goal,
        }
        return Snapshot(
            image=np.zeros((0, 0, 3), np.uint8),
            proprio=np.array([*self._gripper, _HEIGHT, self._opening], dtype=np.float32),
            keypoints={name: np.array([*point, _HEIGHT], dtype=np.float32) for name, point in keypoints.items()},
            signals={
                "gripper_opening": self._opening,
                "grasped": 0.0,
                "touching": touching,
                "opened": float(np.clip(1.0 - distance / way, 0.0, 1.0)),
                "object_to_goal": distance,
                "success": float(success),
            },
            success=success,
            privileged={"gripper": self._gripper, "object": thing, "goal": self._goal},
        )

    def _draw(self, middle: Float64, reach: float) -> npt.NDArray[np.uint8]:
        """The table around a point, ``reach`` meters to each side."""
        image = np.empty((_IMAGE, _IMAGE, 3), dtype=np.uint8)
        image[:] = _TABLE_COLOR

        def fill(center: Float64, half: float, color: tuple[int, int, int]) -> None:
            _fill(image, center - middle, half, color, reach)

        if "block" in self._squares:
            fill(self._goal, _BLOCK_HALF, _GOAL)
            fill(self._squares["block"], _BLOCK_HALF, _GREEN)
        else:
            fill(self._squares["red"], _RADIUS, _RED)
            fill(self._squares["blue"], _RADIUS, _BLUE)
        fill(self._gripper, 0.012, _OPEN if self._opening else _CLOSED)
        return image


def _pushed(block: Float64, before: Float64, after: Float64) -> Float64:
    """Where the block is after the gripper went from ``before`` to ``after``: moved along x if met from its left."""
    meets = abs(after[1] - block[1]) <= _BLOCK_HALF and before[0] <= block[0] - _BLOCK_HALF + 1e-9
    edge = after[0] + _BLOCK_HALF
    if meets and edge > block[0]:
        return np.array([min(edge, _TABLE), block[1]])
    return block


def _fill(
    image: npt.NDArray[np.uint8], center: Float64, half: float, color: tuple[int, int, int], reach: float
) -> None:
    """Draw a square around a point relative to the image's middle; x grows to the right, y upwards."""
    scale = _IMAGE / (2 * reach)
    left, right = (round((center[0] + sign * half + reach) * scale) for sign in (-1, 1))
    top, bottom = (round((reach - center[1] + sign * half) * scale) for sign in (-1, 1))
    image[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = color


class ToyExpert:
    """Scripted operator; see :class:`~grape.envs.base.Expert`.

    Args:
        task: The task.
        style: One of :data:`grape.envs.expert_styles.OPERATORS`.
        seed: Seed of the operator.
    """

    def __init__(self, task: Task, style: str, seed: int) -> None:
        self._pushes = task.name == "push-block"
        self._step = _STEP / SUITES[task.suite][0]
        self._operator = Operator(style, seed)

    def act(self, snapshot: Snapshot) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Executed action and label, float32 ``(7,)`` each."""
        offset = self._operator.aim_offset[:2]
        gripper = snapshot.privileged["gripper"] - offset
        aim = snapshot.privileged["goal"]
        if self._pushes:
            block = snapshot.privileged["object"]
            behind = block - np.array([_BLOCK_HALF + 0.01, 0.0])
            aligned = abs(gripper[1] - block[1]) <= _BLOCK_HALF / 2
            aim = aim - np.array([_BLOCK_HALF, 0.0]) if aligned else behind
        action = np.zeros(7)
        action[:2] = (aim - gripper) / self._step
        action[6] = 1.0 if self._pushes else -1.0
        return self._operator.perform(action)


class ToySuite(SuiteBase):
    """Three tasks on a flat table; see :class:`~grape.envs.base.SuiteBase`.

    Args:
        name: One of :data:`SUITES`.
    """

    def __init__(self, name: str = "toy") -> None:
        self._name = name
        self._rate, self._cameras = SUITES[name]

    @property
    def name(self) -> str:
        return self._name

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(Task(self._name, index, *task, _MAX_STEPS * self._rate) for index, task in enumerate(_TASKS))

    @property
    def action_space(self) -> ActionSpace:
        if self._rate == 1:
            return _ACTION_SPACE
        notes = (_ACTION_SPACE.notes[0], f"translation in units of {8 / self._rate:g} cm a control step")
        return dataclasses.replace(_ACTION_SPACE, control_hz=_ACTION_SPACE.control_hz * self._rate, notes=notes)

    @property
    def cameras(self) -> tuple[str, ...]:
        return self._cameras

    def base_task(self, task: Task) -> tuple[str, str]:
        """The task of ``toy``: variants start from the same initial states."""
        return "toy", task.name

    @property
    def proprio_dim(self) -> int:
        return 4

    @property
    def operators(self) -> tuple[str, ...]:
        return OPERATORS

    def n_initial_states(self, task: Task) -> int:
        return _N_INITIAL_STATES

    def versions(self) -> Mapping[str, str]:
        """Version of this world; it grows when trajectories change."""
        return {"toy": "1"}

    def make_environment(self, task: Task) -> Environment:
        return ToyEnvironment(task)

    def make_expert(self, task: Task, operator: str, seed: int) -> Expert:
        return ToyExpert(task, operator, seed)


class _Fault:
    """A fault asked for by ``GRAPE_FAULT``; see the module's docstring."""

    def __init__(self, kind: str = "", initial_state: int = -1, decision: int = -1, marker: Path | None = None) -> None:
        self._kind = kind
        self._when = (initial_state, decision)
        self._marker = marker

    @classmethod
    def from_environment(cls, task: Task) -> _Fault:
        kind, name, state, decision, *marker = (os.environ.get("GRAPE_FAULT", "") + ":::").split(":")[:5]
        if name != task.name:
            return cls()
        return cls(kind, int(state), int(decision), Path(marker[0]) if marker and marker[0] else None)

    def trigger(self, initial_state: int, decision: int) -> None:
        """Crash, hang or raise at the configured moment."""
        if (initial_state, decision) != self._when:
            return
        if self._marker is not None:
            if self._marker.exists():
                return
            self._marker.touch()
        if self._kind == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._kind == "hang":
            time.sleep(3600)
        raise RuntimeError(f"fault {self._kind!r} asked for by GRAPE_FAULT")
