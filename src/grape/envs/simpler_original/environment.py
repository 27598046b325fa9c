"""One task of the original SimplerEnv as an :class:`~grape.envs.base.Environment`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import SettingsError, SimulatorError
from grape.core.images import simpler_openvla_v1
from grape.core.tasks import Task
from grape.envs.base import Snapshot
from grape.envs.simpler_original.suite import N_INITIAL_STATES, ORIGINAL_NAMES

__all__ = ["OriginalEnvironment", "axis_angle", "rotation_matrix", "simulator_action"]

_CAMERA = "3rd_view_camera"
_TOOL = "ee_gripper_link"
_FINGERS = ("left_finger_link", "right_finger_link")
_CLOSED, _OPEN = 0.015, 0.037  # meters of a finger joint
_SEED = 0  # of SimplerEnv's random numbers, which nothing here depends on
_LEAST_IMPULSE = 1e-5  # newton seconds from which a contact counts: 0.01 N over a step of the physics
_MOST_TRANSLATION, _MOST_ROTATION = 1.0, np.pi / 2

Float64 = npt.NDArray[np.float64]


def simulator_action(action: npt.NDArray[np.float32]) -> Float64:
    """A policy's action as SimplerEnv takes it: meters, axis-angle, gripper 1 to open and -1 to close, ``(7,)``.

    Args:
        action: float32 ``(7,)``, gripper in [0, 1]; clipped.
    """
    policy_action = np.asarray(action, dtype=np.float64)
    shift = np.clip(policy_action[:3], -_MOST_TRANSLATION, _MOST_TRANSLATION)
    turn = np.clip(policy_action[3:6], -_MOST_ROTATION, _MOST_ROTATION)
    return np.concatenate([shift, turn, [1.0 if policy_action[6] > 0.5 else -1.0]])


@dataclass(frozen=True, eq=False)
class _Thing:
    """An object's center in the world, its axes and half extents along them, meters."""

    position: Float64
    rotation: Float64
    half_extents: Float64

    @property
    def ends(self) -> tuple[Float64, Float64]:
        """The two ends of the longest axis."""
        longest = int(np.argmax(self.half_extents))
        reach = self.half_extents[longest] * self.rotation[:, longest]
        return self.position - reach, self.position + reach


class OriginalEnvironment:
    """One episode at a time of one task.

    Proprioception is the tool's position in meters (3) and orientation as axis-angle in radians (3), both relative to
    the robot's base, and the two finger joints in meters (2).

    Args:
        task: A task of the suite.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._wrapped: Any = None
        self._start: tuple[Float64, float] | None = None  # where the source was, and how far its goal

    def reset(self, initial_state: int) -> Snapshot:
        """Start from one of the 24 initial states, in a newly built scene, since an earlier one shifts objects.

        Raises:
            SettingsError: There is no such initial state.
            SimulatorError: SimplerEnv cannot build the scene.
        """
        if not 0 <= initial_state < N_INITIAL_STATES:
            raise SettingsError(
                f"Task {self._task.id} has no initial state {initial_state}.",
                f"Choose from 0 to {N_INITIAL_STATES - 1}.",
            )
        if self._wrapped is None:
            self._wrapped = self._make()
        options = {"obj_init_options": {"episode_id": initial_state}, "reconfigure": True}
        observation, _ = self._wrapped.reset(seed=_SEED, options=options)
        source, target = self._things()
        self._start = (source.position, float(np.linalg.norm(source.position - _rest(source, target))))
        snapshot = self._snapshot(observation, self._world.evaluate())
        return replace(snapshot, extra=self._facts(observation, source, target))

    def step(self, action: npt.NDArray[np.float32]) -> Snapshot:
        """Apply one decision, float32 ``(7,)``; see :func:`simulator_action`.

        Raises:
            RuntimeError: ``reset`` was not called.
        """
        if self._start is None:
            raise RuntimeError("reset must be called before step")
        observation, _, _, _, info = self._wrapped.step(simulator_action(action))
        return self._snapshot(observation, info)

    def close(self) -> None:
        """Release the simulator."""
        if self._wrapped is not None:
            self._wrapped.close()
        self._wrapped = self._start = None

    @property
    def _world(self) -> Any:
        return self._wrapped.unwrapped

    def _make(self) -> Any:
        simpler_env: Any = importlib.import_module("simpler_env")
        try:
            return simpler_env.make(ORIGINAL_NAMES[self._task.name])
        except Exception as error:  # SAPIEN, gymnasium and asset loaders fail each in their own way
            raise SimulatorError(
                f"SimplerEnv cannot build {self._task.name}: {type(error).__name__}: {error}",
                "Are its assets complete and is there a Vulkan device? See docs/simpler-original.md.",
            ) from error

    def _facts(self, observation: Any, source: _Thing, target: _Thing) -> dict[str, Any]:
        names = [str(thing.name) for thing in self._world.episode_objs]
        things = {
            role: {"model": name, "half_extents": thing.half_extents.round(6).tolist()}
            for role, name, thing in (("object", names[0], source), ("goal", names[1], target))
        }
        camera = observation["camera_param"][_CAMERA]
        to_camera = np.eye(4)
        to_camera[:3] = np.asarray(camera["extrinsic_cv"], dtype=np.float64)[:3]
        return {
            "things": things,
            "camera": {
                "name": _CAMERA,
                "size": list(observation["image"][_CAMERA]["rgb"].shape[:2]),
                "intrinsic": np.asarray(camera["intrinsic_cv"], dtype=np.float64).round(6).tolist(),
                "pose": np.linalg.inv(to_camera).round(9).tolist(),
            },
        }

    def _things(self) -> tuple[_Thing, _Thing]:
        """Source and target."""
        world = self._world
        poses = (world.source_obj_pose, world.target_obj_pose)
        turns = (world.episode_source_obj.pose.q, world.episode_target_obj.pose.q)
        source, target = (
            _Thing(
                np.asarray(pose.p, dtype=np.float64),
                rotation_matrix(turn),
                np.asarray(size, dtype=np.float64) / 2.0,
            )
            for pose, turn, size in zip(poses, turns, world.episode_model_bbox_sizes)  # noqa: B905 - Python 3.9
        )
        return source, target

    def _snapshot(self, observation: Any, info: Any) -> Snapshot:
        assert self._start is not None
        world = self._world
        links = {link.name: link for link in world.agent.robot.get_links()}
        base, tool = world.agent.robot.pose, links[_TOOL].pose
        to_base = rotation_matrix(base.q).T
        fingers = np.asarray(world.agent.robot.get_qpos(), dtype=np.float64)[-2:]
        proprio = [*(to_base @ (np.asarray(tool.p) - np.asarray(base.p)))]
        proprio += [*axis_angle(to_base @ rotation_matrix(tool.q)), *fingers]
        source, target = self._things()
        left, right = (np.asarray(links[name].pose.p) for name in _FINGERS)
        first, second = source.ends
        keypoints = {
            "gripper": tool.p,
            "finger_left": left,
            "finger_right": right,
            "object": source.position,
            "object_end_1": first,
            "object_end_2": second,
            "object_start": self._start[0],
            "goal": _rest(source, target),
            "target": target.position,
        }
        display = np.asarray(observation["image"][_CAMERA]["rgb"], dtype=np.uint8)
        success = bool(info["success"])
        return Snapshot(
            image=simpler_openvla_v1(display),
            proprio=np.array(proprio, dtype=np.float32),
            keypoints={name: np.asarray(point, dtype=np.float32) for name, point in keypoints.items()},
            signals=self._signals(info, source, target, fingers, set(links)),
            success=success,
            display=display,
        )

    def _signals(
        self, info: Any, source: _Thing, target: _Thing, fingers: Float64, links: set[str]
    ) -> dict[str, float]:
        assert self._start is not None
        names = [str(thing.name) for thing in self._world.episode_objs]
        pairs = [
            {contact.actor0.name, contact.actor1.name}
            for contact in self._world._scene.get_contacts()
            if np.linalg.norm(np.sum([point.impulse for point in contact.points], axis=0)) > _LEAST_IMPULSE
        ]
        distance = float(np.linalg.norm(source.position - _rest(source, target)))
        return {
            "gripper_opening": float(np.clip((fingers.mean() - _CLOSED) / (_OPEN - _CLOSED), 0.0, 1.0)),
            "grasped": float(info["is_src_obj_grasped"]),
            "consecutive_grasp": float(info["episode_stats"]["consecutive_grasp"]),
            "touching": float(any({finger, names[0]} in pairs for finger in _FINGERS)),
            "collision": float(any(pair & links and not pair <= links | set(names[:2]) for pair in pairs)),
            "opened": float(np.clip(1.0 - distance / max(self._start[1], 1e-6), 0.0, 1.0)),
            "object_to_goal": distance,
            "moved_correct_obj": float(info["moved_correct_obj"]),
            "moved_wrong_obj": float(info["moved_wrong_obj"]),
            "src_on_target": float(info["src_on_target"]),
            "success": float(info["success"]),
        }


def _rest(source: _Thing, target: _Thing) -> Float64:
    """Where the source's center is when it lies on the middle of the target, meters ``(3,)``."""
    height = source.half_extents[2] + target.half_extents[2]
    return np.asarray(target.position + np.array([0.0, 0.0, height]))


def rotation_matrix(quaternion: npt.ArrayLike) -> Float64:
    """Rotation of a unit quaternion ``(w, x, y, z)``, float64 ``(3, 3)``."""
    w, x, y, z = np.asarray(quaternion, dtype=np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def axis_angle(rotation: Float64) -> Float64:
    """Axis times angle in radians, of length at most pi, float64 ``(3,)``.

    Args:
        rotation: ``(3, 3)``.
    """
    # The largest of the four components of the quaternion is found first, so that nothing is divided by almost zero.
    trace = float(np.trace(rotation))
    squares = np.array([trace, *np.diag(rotation)])
    largest = int(np.argmax(squares))
    quaternion = np.empty(4)
    if largest == 0:
        quaternion[0] = 1.0 + trace
        quaternion[1:] = [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    else:
        i = largest - 1
        j, k = (i + 1) % 3, (i + 2) % 3
        quaternion[0] = rotation[k, j] - rotation[j, k]
        quaternion[1 + i] = 1.0 - trace + 2.0 * rotation[i, i]
        quaternion[1 + j] = rotation[j, i] + rotation[i, j]
        quaternion[1 + k] = rotation[k, i] + rotation[i, k]
    quaternion /= np.linalg.norm(quaternion)
    if quaternion[0] < 0:
        quaternion = -quaternion
    length = float(np.linalg.norm(quaternion[1:]))
    if length < 1e-12:
        return np.zeros(3)
    return np.asarray(quaternion[1:] * (2.0 * np.arctan2(length, quaternion[0]) / length))
