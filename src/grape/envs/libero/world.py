"""One LIBERO task in the simulator: model, robot and renderer, shared by all episodes of a process.

A process of this size (about 2 GB) cannot hold a simulator an episode, so it holds one a task; each
:class:`Episode` owns only what differs between episodes and is swapped in before it is used. Physics, placement of
furniture and images are LIBERO's to the bit (tests compare); its observations are not computed, and images are
rendered only when needed.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import SettingsError, SimulatorError
from grape.core.tasks import Task
from grape.envs.libero.control import ArmControl
from grape.envs.libero.drawing import RENDER_SIZE, DrawnState, FastDrawing, LiberoDrawing, TaskDrawing
from grape.envs.libero.goals import Part, geoms_below, goal_parts
from grape.envs.libero.initial_states import read_initial_states
from grape.envs.libero.installation import load_libero, loading_error, quiet
from grape.envs.libero.tasks import base_suite, nano_cameras
from grape.envs.offscreen import load_mujoco

__all__ = [
    "WAITING_STEPS",
    "Episode",
    "SampleClock",
    "TaskWorld",
    "shared_world",
]

WAITING_STEPS = 10
"""Steps with the null action before an episode begins: objects are let fall and come to rest."""

ENVIRONMENT_SEED = 0
"""Seed of LIBERO's own placement of furniture, as in OpenVLA's evaluation."""

_NULL_ACTION = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
_PHYSICS_STEP = 0.002
_PHYSICS_STEPS = 25  # a decision
_PERIOD = 1.0 / 20.0  # seconds between decisions
_MOST_TRIES = 1000  # LIBERO tries for ever to place its objects
Float64 = npt.NDArray[np.float64]


@dataclass
class SampleClock:
    """When robosuite samples the observation: every 50 ms, but not at the end of an environment step.

    Which of the 25 physics steps it is follows from how often the clock was read at the reset; in OpenVLA's
    evaluation it is the one before the last. Images taken at the end of the step would differ from the ones that
    published policies are evaluated with.

    Attributes:
        elapsed: Seconds since the period began.
        sampled: Whether this period's look was taken.
    """

    elapsed: float = 0.0
    sampled: bool = False

    def tick(self, force: bool = False) -> bool:
        """Advance by a physics step; whether to sample now. With robosuite's own arithmetic, rounding included."""
        self.elapsed += _PHYSICS_STEP
        look = force or (not self.sampled and self.elapsed <= _PERIOD)
        self.sampled |= look
        if self.elapsed >= _PERIOD:
            look |= not self.sampled
            self.elapsed %= _PERIOD
            self.sampled = False
        return look


@dataclass(frozen=True, eq=False)
class SensorReadings:
    """Content of robosuite's observation.

    Attributes:
        proprio: Hand position in meters (3), axis-angle in radians (3), finger joints in meters (2).
        drawn: What an image of this moment depends on; None where nothing can be drawn.
    """

    proprio: Float64
    drawn: DrawnState | None


@dataclass(eq=False)
class Episode:
    """What differs between episodes of a task.

    Attributes:
        data: The ``mujoco.MjData``.
        controller: The arm's controller; it remembers the orientation it holds.
        gripper: Position that the gripper is driven to; it moves a little every step.
        body_pos: Positions of bodies in the model, ``(nbody, 3)``: LIBERO places furniture through them.
        body_quat: Their orientations, ``(nbody, 4)``.
        site_rgba: Colors of sites, ``(nsite, 4)``: a burner glows.
        clock: When observations are taken.
        look: The last observation.
    """

    data: Any
    controller: Any
    gripper: Float64
    body_pos: Float64
    body_quat: Float64
    site_rgba: npt.NDArray[np.float32]
    clock: SampleClock
    look: SensorReadings


_worlds: dict[tuple[str, str, bool, bool], "TaskWorld"] = {}


def shared_world(task: Task, images: bool) -> "TaskWorld":
    """The process's world of a task, made on first use (5 to 15 s); that of another task is given up for it.

    Args:
        task: The task.
        images: Whether it can draw.
    """
    key = (base_suite(task.suite), task.name, images, nano_cameras(task.suite) is not None)
    if key not in _worlds:
        for world in _worlds.values():
            world.close()
        _worlds.clear()
        _worlds[key] = TaskWorld(task, images)
    return _worlds[key]


class TaskWorld:
    """Simulator and renderer of one task.

    Args:
        task: The task; its suite decides which renderer.
        images: Whether to make one; without it no graphics library is needed.

    Raises:
        SettingsError: LIBERO is not installed.
        SimulatorError: No graphics library can be used, or LIBERO cannot load the task.
        DataError: The task's initial states are damaged.
    """

    def __init__(self, task: Task, images: bool) -> None:
        self.task = task
        self._fast = nano_cameras(task.suite) is not None
        libero = load_libero()
        self._mujoco = load_mujoco("libero", "libero")
        self.initial_states = read_initial_states(libero.initial_states, base_suite(task.suite), task.name)
        path = libero.task_files / base_suite(task.suite) / f"{task.name}.bddl"
        if not path.is_file():
            raise SimulatorError(
                f"{libero.distribution} {libero.version} has no task {task.id} ({path}).",
                "Install the release that is tested: pip install 'grape-vla[libero]'",
            )
        self.domain: Any = self._load(libero.control_env, str(path), images)
        self.domain._observables = {}  # nobody reads them
        self.domain._update_observables = self._after_physics_step
        self._episode: Episode | None = None
        self._robot: Any = self.domain.robots[0]
        self.model: Any = self.domain.sim.model._model
        self._control = ArmControl(self._mujoco, self.domain)
        self.drawing: TaskDrawing | None = None
        if images:
            self.drawing = FastDrawing(self.model) if self._fast else LiberoDrawing(self.domain)
        if self.initial_states.shape[1] != 1 + self.model.nq + self.model.nv:
            raise SimulatorError(
                f"The initial states of {task.id} have {self.initial_states.shape[1]} numbers, its model needs "
                f"{1 + self.model.nq + self.model.nv}.",
                "Tasks and initial states are of different releases of LIBERO: install one of them again.",
            )
        self.parts: tuple[Part, ...] = goal_parts(self.domain, self.model)
        self.grip_site = int(self.model.site("gripper0_grip_site").id)
        self.hand_body = int(self.model.body("robot0_right_hand").id)
        self.finger_joints = [int(self.model.joint(f"gripper0_finger_joint{side}").qposadr[0]) for side in (1, 2)]
        self.finger_pads = [int(self.model.geom(f"gripper0_finger{side}_pad_collision").id) for side in (1, 2)]
        self.finger_geoms = [geoms_below(self.model, self.model.geom_bodyid[pad]) for pad in self.finger_pads]
        self.robot_geoms = geoms_below(self.model, int(self.model.body("robot0_base").id))
        things = [geoms_below(self.model, body) for body in self.domain.obj_body_id.values()]
        self.room_geoms = ~np.logical_or.reduce([self.robot_geoms, *things])

    def _load(self, control_env: Any, path: str, images: bool) -> Any:
        try:
            with quiet():
                wrapper = control_env(
                    bddl_file_name=path,
                    use_camera_obs=False,
                    has_offscreen_renderer=images and not self._fast,
                    hard_reset=False,
                    ignore_done=True,
                    camera_heights=RENDER_SIZE,
                    camera_widths=RENDER_SIZE,
                )
        except Exception as error:  # LIBERO's loading runs through several packages, and each fails in its own way
            raise loading_error(self.task, images, error) from error
        return wrapper.env

    def close(self) -> None:
        """Give up simulator and renderer; episodes of this world can no longer be stepped."""
        if self.drawing is not None:
            self.drawing.close()
        self.domain.close()
        self.domain = None

    def start(self, initial_state: int) -> Episode:
        """New episode in an initial state after the waiting steps, swapped in.

        Raises:
            SettingsError: There is no such initial state.
        """
        if not 0 <= initial_state < len(self.initial_states):
            raise SettingsError(
                f"Task {self.task.id} has no initial state {initial_state}.",
                f"Choose from 0 to {len(self.initial_states) - 1}.",
            )
        self._reset(initial_state)
        sim = self.domain.sim
        sim.set_state_from_flattened(self.initial_states[initial_state])
        sim.forward()
        self.domain._check_success()
        self.domain._post_process()
        episode = Episode(
            data=sim.data._data,
            controller=self._robot.controller,
            gripper=self._robot.gripper.current_action,
            body_pos=self.model.body_pos.copy(),
            body_quat=self.model.body_quat.copy(),
            site_rgba=self.model.site_rgba.copy(),
            clock=SampleClock(),
            look=SensorReadings(np.zeros(8), None),
        )
        for _ in range(2):  # robosuite looks at the end of a reset, LIBERO when the state is set
            episode.clock.tick(force=True)
        for _ in range(WAITING_STEPS):
            self.advance(episode, _NULL_ACTION)
        return episode

    @functools.cached_property
    def _random_states(self) -> list[Any]:
        """States of LIBERO's random numbers before the reset of each initial state, as far as known."""
        return [np.random.RandomState(ENVIRONMENT_SEED).get_state()]

    def _reset(self, initial_state: int) -> None:
        """LIBERO's reset with the furniture where OpenVLA's evaluation finds it.

        Furniture is placed at random within a centimeter and is no part of an initial state. That evaluation seeds
        the random numbers once and then resets before each initial state in turn, so the resets before are made up
        for here, once a task and process.
        """
        outside = np.random.get_state()
        try:
            random_states = self._random_states
            for state in range(min(initial_state, len(random_states) - 1), initial_state + 1):
                np.random.set_state(random_states[state])
                self._reset_once()
                if state + 1 == len(random_states):
                    random_states.append(np.random.get_state())
        finally:
            np.random.set_state(outside)

    def _reset_once(self) -> None:
        sim = self.domain.sim
        sim.data._data = self._mujoco.MjData(self.model)
        self._robot.gripper.current_action = np.zeros_like(np.asarray(self._robot.gripper.current_action, float))
        for _ in range(_MOST_TRIES):
            try:
                self.domain.reset()
            except Exception as error:
                if type(error).__name__ != "RandomizationError":
                    raise
            else:
                return
        raise SimulatorError(f"LIBERO found no room for the objects of {self.task.id}.")

    def swap_in(self, episode: Episode) -> None:
        """Load an episode's state into the simulator that all episodes share."""
        if self.domain is None:
            raise RuntimeError("the world of this episode was given up for another task: reset first")
        self.domain.sim.data._data = episode.data
        self._robot.controller = episode.controller
        self._robot.gripper.current_action = episode.gripper
        self.model.body_pos[:], self.model.body_quat[:] = episode.body_pos, episode.body_quat
        self.model.site_rgba[:] = episode.site_rgba

    def advance(self, episode: Episode, action: Float64) -> bool:
        """One step of LIBERO (50 ms) of the episode swapped in; its look is renewed.

        Args:
            episode: The episode.
            action: Simulator's convention: deltas of position and axis-angle in [-1, 1], gripper -1 opens.

        Returns:
            Whether the task's goal holds.
        """
        self._episode = episode
        success = self._step(action)
        self._episode = None
        episode.gripper = self._robot.gripper.current_action
        episode.site_rgba = self.model.site_rgba.copy()
        return success

    def _step(self, action: Float64) -> bool:
        """What LIBERO's ``step`` does to the world; whether the goal holds.

        It computes each physics step three times over: for itself, for its controller and to integrate. Positions and
        velocities come out equal each time, so once is enough; the constraint solver starts from its last solution,
        so it has to run three times for the same bits. Only the first physics step brings the action to the arm.
        """
        mujoco, model = self._mujoco, self.model
        domain, data = self.domain, self.domain.sim.data._data
        forward, domain.sim.forward = domain.sim.forward, lambda: mujoco.mj_fwdConstraint(model, data)
        try:
            for physics_step in range(_PHYSICS_STEPS):
                mujoco.mj_step1(model, data)
                mujoco.mj_fwdActuation(model, data)
                mujoco.mj_fwdAcceleration(model, data)
                mujoco.mj_fwdConstraint(model, data)
                if physics_step == 0:
                    domain._pre_action(action, policy_step=True)  # the controller solves again
                else:
                    mujoco.mj_fwdConstraint(model, data)
                    self._control.hold(data, action[6:])
                mujoco.mj_step2(model, data)
                self._after_physics_step()
        finally:
            domain.sim.forward = forward
        success = bool(domain._check_success())
        domain._post_process()
        return success

    def _after_physics_step(self, force: bool = False) -> None:
        """Stands in for robosuite's method of reading all sensors."""
        episode = self._episode
        if episode is not None and episode.clock.tick():
            drawn = None if self.drawing is None else DrawnState(self.model, self.domain.sim.data._data)
            episode.look = SensorReadings(self.proprioception(), drawn)

    def proprioception(self) -> Float64:
        """Hand position (3), axis-angle of its orientation (3) and finger joints (2) of the episode swapped in."""
        data: Any = self.domain.sim.data._data
        fingers = [data.qpos[joint] for joint in self.finger_joints]
        return np.concatenate([data.site_xpos[self.grip_site], axis_angle(data.xquat[self.hand_body]), fingers])

    def holds(self, part: Part) -> bool:
        """Whether the predicate of a part holds in the episode swapped in."""
        predicate = part.predicate
        words = [predicate.word, predicate.subject, *([predicate.place] if predicate.place else [])]
        return bool(self.domain._eval_predicate(words))

    @functools.cached_property
    def _canvas(self) -> Any:
        """A ``mujoco.MjData`` that is drawn and never advanced."""
        return self._mujoco.MjData(self.model)

    def image(self, episode: Episode, camera: str) -> npt.NDArray[np.uint8]:
        """The episode's last look as a camera sees it: upright and mirrored, RGB uint8 ``(size, size, 3)``.

        Args:
            episode: The episode.
            camera: LIBERO's name of the camera.

        Raises:
            RuntimeError: This world cannot draw.
        """
        if self.drawing is None or episode.look.drawn is None:
            raise RuntimeError("this world was made without a renderer")
        episode.look.drawn.restore(self.model, self._canvas)
        try:
            return self.drawing.image(self._canvas, camera)
        finally:
            self.model.site_rgba[:] = episode.site_rgba


def axis_angle(quaternion: Float64) -> Float64:
    """Axis times angle in radians ``(3,)`` of a unit quaternion ``(w, x, y, z)``, the angle in [0, 2 pi).

    As robosuite's ``quat2axisangle``, which keeps the quaternion's sign.
    """
    w = float(np.clip(quaternion[0], -1.0, 1.0))
    sine = float(np.sqrt(1.0 - w * w))
    if np.isclose(sine, 0.0):
        return np.zeros(3)
    return np.asarray(quaternion[1:] * 2.0 * np.arccos(w) / sine)
