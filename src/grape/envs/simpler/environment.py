"""One WidowX task as an :class:`~grape.envs.base.Environment`."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from grape.core.images import simpler_openvla_v1
from grape.core.tasks import Task
from grape.envs.base import Snapshot
from grape.envs.fast_rendering import box_downsample
from grape.envs.simpler.installation import render_device
from grape.envs.simpler.tasks import is_nano, steps_per_decision
from grape.envs.simpler.world import Body, Pose, Verdict, World

__all__ = ["FINGERS", "MOST_ROTATION", "MOST_TRANSLATION", "TOOL", "WidowXEnvironment", "simulator_action"]

MOST_TRANSLATION = 1.0
"""Largest change of position along an axis that a decision may ask for, meters; ManiSkill's bound, far out of reach."""

MOST_ROTATION = np.pi / 2
"""Largest component of the axis-angle that a decision may ask for, radians; ManiSkill's bound."""

TOOL = "ee_gripper_link"
"""The robot's link between the finger tips; its x axis points out of the hand, its y axis from finger to finger."""

FINGERS = ("left_finger_link", "right_finger_link")
"""The links of the fingers."""

_CLOSED, _OPEN = 0.015, 0.037  # meters of a finger joint
_MOVED = 0.03  # meters after which a thing counts as moved, as in SimplerEnv
_BLANK = np.zeros((1, 1, 3), dtype=np.uint8)

Float64 = npt.NDArray[np.float64]


def simulator_action(action: npt.NDArray[np.float32], steps: int = 1) -> npt.NDArray[np.float32]:
    """A policy's action in ManiSkill's convention: gripper 1 opens, -1 closes, rotation as Euler angles.

    The gripper is binarized at one half, as in SimplerEnv's evaluation of OpenVLA. ManiSkill 3 takes the rotation as
    angles about the robot's x axis, then the turned y, then the turned z axis; SimplerEnv, and so this suite, as an
    axis-angle. Small rotations have almost equal numbers in both; here the rotation is exactly the one asked for.

    Args:
        action: float32 ``(7,)``: change of position in meters, axis-angle in radians, gripper in [0, 1]; clipped.
        steps: Over how many of the simulator's steps it is carried out: the answer is each one's, an equal part.
    """
    policy_action = np.asarray(action, dtype=np.float64)
    shift = np.clip(policy_action[:3], -MOST_TRANSLATION, MOST_TRANSLATION) / steps
    turn = Rotation.from_rotvec(np.clip(policy_action[3:6], -MOST_ROTATION, MOST_ROTATION) / steps).as_euler("XYZ")
    return np.concatenate([shift, turn, [1.0 if policy_action[6] > 0.5 else -1.0]]).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class _Start:
    """What later states are compared with."""

    source: Float64
    target: Float64
    way: float


class WidowXEnvironment:
    """One episode at a time of one task; see :class:`~grape.envs.base.Environment`.

    Proprioception is the tool's position in meters (3) and orientation as axis-angle in radians (3), both relative to
    the robot's base, and the two finger joints in meters (2).

    Args:
        task: The task.
        images: Whether to draw; without, images are blank (1 x 1), a step takes a third of the time and no graphics
            driver is needed.
    """

    def __init__(self, task: Task, images: bool = True) -> None:
        self._task = task
        self._images = images
        self._steps = steps_per_decision(task.suite)
        self._prepare = box_downsample if is_nano(task.suite) else simpler_openvla_v1
        self._world: World | None = None
        self._start: _Start | None = None

    def reset(self, initial_state: int) -> Snapshot:
        """Start from an initial state, after things came to rest; see :mod:`grape.envs.simpler.initial_states`.

        Raises:
            SettingsError: There is no such initial state, or ManiSkill is not installed.
            DataError: ManiSkill's assets are missing.
            SimulatorError: No Vulkan device draws, or the scene cannot be built.
        """
        if self._world is None:
            self._world = World(self._task, self._images)
        world = self._world
        verdict = world.start(initial_state)
        source, target = world.source_pose.position, world.target_pose.position
        self._start = _Start(source, target, float(np.linalg.norm(source - _rest(world, world.target_pose))))
        snapshot = self.look(self._snapshot(world, self._start, verdict))
        return dataclasses.replace(snapshot, extra=self._facts(world))

    def step(self, action: npt.NDArray[np.float32]) -> Snapshot:
        """Apply one decision, float32 ``(7,)``; see :func:`simulator_action`.

        Where a suite's decisions take several steps, only the last of them is drawn, and success at any of them counts.

        Raises:
            RuntimeError: ``reset`` was not called.
        """
        return self.look(self.advance(action))

    def advance(self, action: npt.NDArray[np.float32]) -> Snapshot:
        """As :meth:`step`, without images."""
        if self._world is None or self._start is None:
            raise RuntimeError("reset must be called before step")
        substep_action = simulator_action(action, self._steps)
        verdicts = [self._world.advance(substep_action) for _ in range(self._steps)]
        verdict = dataclasses.replace(verdicts[-1], success=any(verdict.success for verdict in verdicts))
        return self._snapshot(self._world, self._start, verdict)

    def look(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot of the state as it is, with images.

        Raises:
            RuntimeError: ``reset`` was not called.
        """
        if self._world is None:
            raise RuntimeError("reset must be called before look")
        if not self._images:
            return dataclasses.replace(snapshot, image=_BLANK)
        display = self._world.image()
        return dataclasses.replace(snapshot, image=self._prepare(display), display=display)

    def close(self) -> None:
        """Release the simulator."""
        if self._world is not None:
            self._world.close()
        self._world = self._start = None

    def _facts(self, world: World) -> dict[str, Any]:
        things = {role: _describe(body) for role, body in (("object", world.source), ("goal", world.target))}
        if not self._images:
            return {"things": things}
        return {"things": things, "camera": world.camera(), "renderer": render_device()}

    def _snapshot(self, world: World, start: _Start, verdict: Verdict) -> Snapshot:
        tool, base = world.link_pose(TOOL), world.base_pose
        keypoints = _keypoints(world, start, tool)
        hand = base.rotation.T @ tool.rotation
        proprio = [*(base.rotation.T @ (tool.position - base.position)), *Rotation.from_matrix(hand).as_rotvec()]
        return Snapshot(
            image=np.zeros((0, 0, 3), np.uint8),
            proprio=np.array([*proprio, *world.fingers], dtype=np.float32),
            keypoints={name: np.asarray(point, dtype=np.float32) for name, point in keypoints.items()},
            signals=_signals(world, start, verdict),
            success=verdict.success,
            privileged={"world": world},
        )


def _rest(world: World, target: Pose) -> Float64:
    """Where the source's center is when it lies on the middle of the target, meters ``(3,)``."""
    height = world.source.half_extents[2] + world.target.half_extents[2]
    return np.asarray(target.position + np.array([0.0, 0.0, height]))


def _describe(body: Body) -> dict[str, Any]:
    return {"model": body.name, "half_extents": body.half_extents.round(6).tolist()}


def _ends(body: Body, pose: Pose) -> tuple[Float64, Float64]:
    """The two ends of a thing's longest axis, meters ``(3,)`` each."""
    longest = int(np.argmax(body.half_extents))
    reach = body.half_extents[longest] * pose.rotation[:, longest]
    return pose.position - reach, pose.position + reach


def _keypoints(world: World, start: _Start, tool: Pose) -> dict[str, Float64]:
    source, target = world.source_pose, world.target_pose
    left, right = (world.link_pose(name).position for name in FINGERS)
    first, second = _ends(world.source, source)
    return {
        "gripper": tool.position,
        "finger_left": left,
        "finger_right": right,
        "object": source.position,
        "object_end_1": first,
        "object_end_2": second,
        "object_start": start.source,
        "goal": _rest(world, target),
        "target": target.position,
    }


def _signals(world: World, start: _Start, verdict: Verdict) -> dict[str, float]:
    source, target = world.source_pose.position, world.target_pose
    contacts = world.contacts()
    distance = float(np.linalg.norm(source - _rest(world, target)))
    moved_source = float(np.linalg.norm((source - start.source)[:2]))
    moved_target = float(np.linalg.norm((target.position - start.target)[:2]))
    opening = (float(world.fingers.mean()) - _CLOSED) / (_OPEN - _CLOSED)
    return {
        "gripper_opening": float(np.clip(opening, 0.0, 1.0)),
        "grasped": float(verdict.grasped),
        "consecutive_grasp": float(verdict.consecutive_grasp),
        "touching": float(contacts.left or contacts.right),
        "collision": float(contacts.collision),
        "opened": float(np.clip(1.0 - distance / max(start.way, 1e-6), 0.0, 1.0)),
        "object_to_goal": distance,
        "moved_correct_obj": float(moved_source > _MOVED and moved_source > moved_target),
        "moved_wrong_obj": float(moved_target > _MOVED and moved_target > moved_source),
        "src_on_target": float(verdict.on_target),
        "success": float(verdict.success),
    }
