"""One Meta-World task as an :class:`~grape.envs.base.Environment`.

A process holds one Meta-World environment, one model and one renderer a task (:class:`TaskWorld`); each
:class:`MetaWorldEnvironment` owns only what differs between episodes, and is swapped in before it is used. Physics is
Meta-World's to the bit (a test compares), but rewards, observations and gymnasium's bookkeeping, which took two thirds
of the time, are left out; so is its limit of 500 steps.
"""

import copy
import dataclasses
import functools
import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import SettingsError
from grape.core.seeds import derive_rng
from grape.envs.base import Snapshot
from grape.envs.fast_rendering import box_downsample
from grape.envs.ground_truth import SceneView
from grape.envs.metaworld.camera import DISPLAY_SIZE, SceneCamera, load_mujoco
from grape.envs.metaworld.tasks import Anchor, TaskModel

__all__ = ["N_INITIAL_STATES", "SIMULATOR_STEPS", "MetaWorldEnvironment", "TaskWorld", "shared_world"]

N_INITIAL_STATES = 1_000_000
"""Initial states a task; each is drawn from Meta-World's own range with a seed made of task and index."""

SIMULATOR_STEPS = 8
"""Meta-World steps a decision; each is 12.5 ms, so that decisions come at 10 Hz."""

_MINIMUM_TASK_DISTANCE = 0.15  # meters between object and goal in the plane; Meta-World redraws below it

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Episode:
    """What differs between episodes of a task.

    Attributes:
        data: The ``mujoco.MjData``.
        body_pos: Positions of bodies in the model, ``(nbody, 3)``: Meta-World places furniture through them.
        site_pos: Positions of sites in the model, ``(nsite, 3)``.
        target: Meta-World's target, meters ``(3,)``.
    """

    data: Any
    body_pos: Float64
    site_pos: Float64
    target: Float64


@functools.cache
def shared_world(model: TaskModel) -> "TaskWorld":
    """The process's world of a task, made on first use (0.5 to 1 s)."""
    return TaskWorld(model)


class TaskWorld:
    """Simulator and renderer of one task.

    Args:
        spec: The task.

    Raises:
        SettingsError: The packages are not installed.
        SimulatorError: No graphics library can be used.
    """

    def __init__(self, spec: TaskModel) -> None:
        self.spec = spec
        self._mujoco = load_mujoco()
        self.env: Any = getattr(importlib.import_module(f"metaworld.envs.{spec.module}"), spec.environment)()
        self.env._freeze_rand_vec = True
        self.model: Any = self.env.model
        self._pristine = (self.model.body_pos.copy(), self.model.site_pos.copy())
        self._settled = self._settle()
        self.env._reset_hand = self._restore_settled
        self.camera = SceneCamera(self.model, spec.show_goal)
        geoms = [self.model.body(body).name for body in self.model.geom_bodyid]
        self.object_geoms = np.array([body in spec.bodies for body in geoms])
        self.left_geoms = np.array([body in ("leftclaw", "leftpad") for body in geoms])
        self.right_geoms = np.array([body in ("rightclaw", "rightpad") for body in geoms])

    def _settle(self) -> Any:
        """State after Meta-World's 250 substeps of moving the hand to its start: the same for every episode."""
        self._mujoco.mj_resetData(self.model, self.env.data)
        self.env._reset_hand()
        return self.env.data

    def _restore_settled(self, steps: int = 50) -> None:
        """Stand-in for Meta-World's ``_reset_hand``: copies the outcome instead of simulating it again."""
        self.env.data = copy.copy(self._settled)
        self.env.init_tcp = self.env.tcp_center

    def initial_vector(self, initial_state: int) -> Float64:
        """Meta-World's random vector of an initial state: where the object, and the goal if any, are placed.

        Raises:
            SettingsError: There is no such initial state.
        """
        if not 0 <= initial_state < N_INITIAL_STATES:
            raise SettingsError(
                f"Task {self.spec.task.id} has no initial state {initial_state}.",
                f"Choose from 0 to {N_INITIAL_STATES - 1}.",
            )
        space = self.env._random_reset_space
        rng = derive_rng("metaworld", self.spec.task.name, "initial-state", initial_state)
        while True:
            vector: Float64 = rng.uniform(space.low, space.high)
            if vector.size < 6 or np.linalg.norm(vector[:2] - vector[3:5]) >= _MINIMUM_TASK_DISTANCE:
                return vector

    def start(self, vector: Float64) -> Episode:
        """New episode placed by Meta-World from its random vector, and swapped in."""
        self.model.body_pos[:], self.model.site_pos[:] = self._pristine
        self.env._last_rand_vec = vector.copy()
        self.env.reset_model()
        self._mujoco.mj_forward(self.model, self.env.data)
        return Episode(
            self.env.data, self.model.body_pos.copy(), self.model.site_pos.copy(), self.env._target_pos.copy()
        )

    def swap_in(self, episode: Episode) -> None:
        """Load an episode's state into the simulator that all episodes share."""
        self.env.data, self.env._target_pos = episode.data, episode.target
        self.model.body_pos[:], self.model.site_pos[:] = episode.body_pos, episode.site_pos

    def advance(self, data: Any, action: npt.NDArray[np.float32]) -> None:
        """One Meta-World step of the episode swapped in: what ``SawyerXYZEnv.step`` does to the physics.

        Args:
            data: The episode's data.
            action: Translation and gripper, float32 ``(4,)`` within [-1, 1].
        """
        position = data.mocap_pos + (action[:3] * self.env.action_scale)[None]
        data.mocap_pos = np.clip(position, self.env.mocap_low, self.env.mocap_high)
        data.ctrl[:] = (action[3], -action[3])
        self._mujoco.mj_step(self.model, data, nstep=self.env.frame_skip)
        self._mujoco.mj_forward(self.model, data)

    def gripper(self, data: Any) -> Float64:
        """Tool center between the finger tips, meters ``(3,)``."""
        center: Float64 = (data.site("rightEndEffector").xpos + data.site("leftEndEffector").xpos) / 2.0
        return center

    def object(self, data: Any) -> Float64:
        """The point that has to get to the goal, meters ``(3,)``."""
        anchor: Anchor | None = self.spec.anchor
        if anchor is None:
            return self.gripper(data)
        position: Float64 = getattr(data, anchor.kind)(anchor.name).xpos + np.array(anchor.offset)
        return position

    def solved(self, data: Any) -> bool:
        """Meta-World's criterion of success for the episode swapped in."""
        spec = self.spec
        measured_position = self.gripper(data) if spec.anchor is None else self.env._get_pos_objects()
        error = (measured_position + np.array(spec.success_offset) - self.env._target_pos) * np.array(spec.success_axes)
        return bool(np.linalg.norm(error) <= spec.success_radius)

    def touches(self, data: Any) -> tuple[bool, bool]:
        """Whether the left and the right finger press on the object: contacts with a positive normal force."""
        pairs = data.contact.geom
        candidates = np.nonzero(self.object_geoms[pairs].any(axis=1))[0]
        addresses = data.contact.efc_address
        pressing = [pairs[i] for i in candidates if addresses[i] >= 0 and data.efc_force[addresses[i]] > 0]
        left = any(self.left_geoms[pair].any() for pair in pressing)
        right = any(self.right_geoms[pair].any() for pair in pressing)
        return left, right


class MetaWorldEnvironment:
    """One episode at a time of one task; see :class:`~grape.envs.base.Environment`.

    A decision always takes 8 simulator steps with the same action. Success is latched over them: a snapshot is
    successful if the criterion held after any of its decision's steps, so that passing through the goal counts as it
    does in Meta-World's own evaluation.

    Args:
        spec: The task.

    Raises:
        SettingsError: The packages are not installed.
        SimulatorError: No graphics library can be used.
    """

    def __init__(self, spec: TaskModel) -> None:
        self._world = shared_world(spec)
        self._episode: Episode | None = None
        self._object_start: Float64 = np.zeros(3)
        self._goal: Float64 = np.zeros(3)

    def reset(self, initial_state: int) -> Snapshot:
        """Start from an initial state.

        Raises:
            SettingsError: There is no such initial state.
        """
        world, spec = self._world, self._world.spec
        self._episode = episode = world.start(world.initial_vector(initial_state))
        self._object_start = world.object(episode.data).copy()
        if spec.travel is not None:
            self._goal = self._object_start + np.array(spec.travel)
        else:
            self._goal = np.where(np.array(spec.goal_axes) > 0, episode.target, self._object_start)
        return self.look(self._snapshot(episode.data, world.solved(episode.data)))

    def step(self, action: npt.NDArray[np.float32]) -> Snapshot:
        """Apply one decision: translation, three ignored rotations, gripper; float32 ``(7,)``, clipped to [-1, 1].

        Raises:
            RuntimeError: ``reset`` was not called.
        """
        return self.look(self.advance(action))

    def advance(self, action: npt.NDArray[np.float32]) -> Snapshot:
        """As :meth:`step`, without images."""
        if self._episode is None:
            raise RuntimeError("reset must be called before step")
        clipped = np.clip(np.asarray(action, dtype=np.float32)[[0, 1, 2, 6]], -1.0, 1.0)
        data = self._episode.data
        self._world.swap_in(self._episode)
        success = False
        for _ in range(SIMULATOR_STEPS):
            self._world.advance(data, clipped)
            success |= self._world.solved(data)
        return self._snapshot(data, success)

    def look(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot of the state as it is, with images.

        Raises:
            RuntimeError: ``reset`` was not called.
        """
        if self._episode is None:
            raise RuntimeError("reset must be called before look")
        self._world.swap_in(self._episode)
        display = self._world.camera.image(self._episode.data)
        return dataclasses.replace(snapshot, image=box_downsample(display), display=display)

    def close(self) -> None:
        """Release the episode; the task's world stays for other environments of this process."""
        self._episode = None

    def scene_view(self, size: int = DISPLAY_SIZE) -> SceneView:
        """The state as people's image shows it, with depth, bodies and camera.

        Args:
            size: Height and width in pixels.

        Raises:
            RuntimeError: ``reset`` was not called.
        """
        if self._episode is None:
            raise RuntimeError("reset must be called before scene_view")
        self._world.swap_in(self._episode)
        return self._world.camera.view(self._episode.data, size)

    def _snapshot(self, data: Any, success: bool) -> Snapshot:
        world = self._world
        gripper, thing = world.gripper(data), world.object(data)
        observation = world.env._get_curr_obs_combined_no_goal()
        opening = float(observation[3])
        left, right = world.touches(data)
        distance = float(np.linalg.norm(thing - self._goal))
        way = float(np.linalg.norm(self._object_start - self._goal))
        keypoints = {
            "gripper": gripper,
            "finger_left": data.site("leftEndEffector").xpos,
            "finger_right": data.site("rightEndEffector").xpos,
            "object": thing,
            "object_start": self._object_start,
            "goal": self._goal,
        }
        if world.spec.articulated:
            keypoints["handle"] = thing
        return Snapshot(
            image=np.zeros((0, 0, 3), np.uint8),
            proprio=np.array([*gripper, opening], dtype=np.float32),
            keypoints={name: point.astype(np.float32) for name, point in keypoints.items()},
            signals={
                "gripper_opening": opening,
                "grasped": float(left and right),
                "touching": float(left or right),
                "opened": float(np.clip(1.0 - distance / way, 0.0, 1.0)),
                "object_to_goal": distance,
                "success": float(success),
            },
            success=success,
            privileged={"observation": np.hstack((observation, observation, world.env._target_pos))},
        )
