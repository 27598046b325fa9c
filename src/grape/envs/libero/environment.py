"""One LIBERO task as an :class:`~grape.envs.base.Environment`, in the conventions of OpenVLA's evaluation."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.cameras import camera_from_dict
from grape.core.images import libero_openvla_v1, rotate_180
from grape.core.tasks import Task
from grape.envs.base import Snapshot
from grape.envs.fast_rendering import box_downsample
from grape.envs.ground_truth import SceneView, bodies_of, body_poses
from grape.envs.libero.drawing import CAMERAS, RENDER_SIZE
from grape.envs.libero.goals import numbered
from grape.envs.libero.scene import Scene
from grape.envs.libero.tasks import nano_cameras, steps_per_decision
from grape.envs.libero.world import Episode, TaskWorld, shared_world

__all__ = ["LiberoEnvironment", "measure_view", "simulator_action"]


def measure_view(world: TaskWorld, episode: Episode, camera: dict[str, Any]) -> SceneView:
    """The display image of a state, with ground truth.

    Args:
        world: The task's world, the episode swapped in.
        episode: The episode.
        camera: Its camera, from ``camera_of``.

    Raises:
        RuntimeError: The world cannot draw.
    """
    if world.drawing is None:
        raise RuntimeError("this world was made without a renderer")
    image = world.drawing.image(episode.data, _MAIN)
    depth, segmentation = world.drawing.truth(episode.data, _MAIN)
    return SceneView(
        image=image,
        depth=depth,
        bodies=np.ascontiguousarray(bodies_of(world.model, segmentation)),
        names=tuple(world.model.body(index).name for index in range(world.model.nbody)),
        poses=body_poses(world.model, episode.data),
        camera=camera_from_dict(camera),
    )


_MAIN = CAMERAS["agentview"]
_BLANK = np.zeros((1, 1, 3), dtype=np.uint8)
_FINGER_TRAVEL = 0.08  # meters between the fingers when they are open

Float64 = npt.NDArray[np.float64]


def simulator_action(action: npt.NDArray[np.float32]) -> Float64:
    """A policy's action, gripper 1 = open and 0 = closed, in the simulator's convention, gripper -1 = open.

    As in OpenVLA's evaluation the gripper is binarized at one half and its sign turned; exactly one half keeps still.

    Args:
        action: float32 ``(7,)``: deltas of position and axis-angle in [-1, 1], gripper in [0, 1]; clipped.
    """
    policy_action = np.asarray(action, dtype=np.float64)
    return np.concatenate([np.clip(policy_action[:6], -1.0, 1.0), [-np.sign(2.0 * policy_action[6] - 1.0)]])


class LiberoEnvironment:
    """One episode at a time of one task; see :class:`~grape.envs.base.Environment`.

    Proprioception is the hand's position in meters (3), its orientation as axis-angle in radians (3) and the two
    finger joints in meters, as OpenVLA-OFT reads it.

    Args:
        task: The task.
        images: Whether to draw; without, images are blank (1 x 1) and a step takes a tenth of the time.
    """

    def __init__(self, task: Task, images: bool = True) -> None:
        self._task = task
        self._images = images
        self._steps_per_decision = steps_per_decision(task.suite)
        self._nano_cameras = nano_cameras(task.suite)
        self._world: TaskWorld | None = None
        self._episode: Episode | None = None
        self._starts: list[Float64] = []
        self._ways: list[float] = []
        self._openness: list[float] = []

    def reset(self, initial_state: int) -> Snapshot:
        """Start from one of LIBERO's recorded initial states, after ten waiting steps.

        Raises:
            SettingsError: There is no such initial state, or LIBERO is not installed.
            SimulatorError: No graphics library can be used, or LIBERO cannot load the task.
            DataError: LIBERO's files are damaged.
        """
        self._world = world = shared_world(self._task, self._images)
        self._episode = episode = world.start(initial_state)
        data = episode.data
        self._starts = [part.object_point(data) for part in world.parts]
        self._ways = [
            float(np.linalg.norm(part.object_point(data) - part.goal_point(world.model, data))) for part in world.parts
        ]
        self._openness = [part.joint.openness(data) if part.joint else 0.0 for part in world.parts]
        snapshot = self.look(self._snapshot(world, episode, bool(world.domain._check_success())))
        return dataclasses.replace(snapshot, extra={"camera": camera_of(world, episode)})

    def step(self, action: npt.NDArray[np.float32]) -> Snapshot:
        """Apply one decision, float32 ``(7,)``; see :func:`simulator_action`.

        Where a suite holds decisions for several steps, only the last of them is drawn, and success at any of them
        counts.

        Raises:
            RuntimeError: ``reset`` was not called, or another task was started in this process since.
        """
        return self.look(self.advance(action))

    def advance(self, action: npt.NDArray[np.float32]) -> Snapshot:
        """As :meth:`step`, without images."""
        if self._world is None or self._episode is None:
            raise RuntimeError("reset must be called before step")
        self._world.swap_in(self._episode)
        success = False
        for _ in range(self._steps_per_decision):
            success |= self._world.advance(self._episode, simulator_action(action))
        return self._snapshot(self._world, self._episode, success)

    def look(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot of the last state with images.

        Raises:
            RuntimeError: ``reset`` was not called, or another task was started in this process since.
        """
        if self._world is None or self._episode is None:
            raise RuntimeError("reset must be called before look")
        if self._world.drawing is None:
            return dataclasses.replace(snapshot, image=_BLANK)
        self._world.swap_in(self._episode)
        display = self._world.image(self._episode, _MAIN)
        if self._nano_cameras is None:
            return dataclasses.replace(snapshot, image=libero_openvla_v1(rotate_180(display)), display=display)
        cameras = {name: box_downsample(self._world.image(self._episode, CAMERAS[name])) for name in self._nano_cameras}
        return dataclasses.replace(snapshot, image=box_downsample(display), display=display, cameras=cameras)

    def close(self) -> None:
        """Release the episode; the task's world stays for other environments of this process."""
        self._world = self._episode = None

    def view(self, camera: str = "wrist") -> npt.NDArray[np.uint8]:
        """The last state as another camera sees it, upright and mirrored, RGB uint8 ``(size, size, 3)``; for people.

        Args:
            camera: One of :data:`grape.envs.libero.drawing.CAMERAS`; the wrist's if not given.

        Raises:
            RuntimeError: ``reset`` was not called, or the world cannot draw.
        """
        if self._world is None or self._episode is None:
            raise RuntimeError("reset must be called before view")
        self._world.swap_in(self._episode)
        return self._world.image(self._episode, CAMERAS[camera])

    def scene_view(self) -> SceneView:
        """The state as people's image shows it, with depth, bodies and camera; upright and mirrored as that is.

        Raises:
            RuntimeError: ``reset`` was not called.
        """
        if self._world is None or self._episode is None:
            raise RuntimeError("reset must be called before scene_view")
        self._world.swap_in(self._episode)
        return measure_view(self._world, self._episode, camera_of(self._world, self._episode))

    def _snapshot(self, world: TaskWorld, episode: Episode, success: bool) -> Snapshot:
        scene = Scene(world, episode)
        keypoints, signals = self._measure(world, episode, scene)
        return Snapshot(
            image=np.zeros((0, 0, 3), np.uint8),
            proprio=episode.look.proprio.astype(np.float32),
            keypoints={name: np.asarray(point, dtype=np.float32) for name, point in keypoints.items()},
            signals=signals | {"success": float(success)},
            success=success,
            privileged={"scene": scene},
        )

    def _measure(self, world: TaskWorld, episode: Episode, scene: Scene) -> tuple[dict[str, Float64], dict[str, float]]:
        data: Any = episode.data
        left, right = (np.array(data.geom_xpos[pad]) for pad in world.finger_pads)
        keypoints = {"gripper": scene.gripper, "finger_left": left, "finger_right": right}
        signals = {"gripper_opening": float(np.clip(scene.finger_width / _FINGER_TRAVEL, 0.0, 1.0))}
        pressing = scene.pressing_pairs()
        task_geoms = np.zeros(world.model.ngeom, dtype=bool)
        for index, part in enumerate(world.parts):
            thing, goal = part.object_point(data), part.goal_point(world.model, data)
            keypoints[numbered("object", index)] = thing
            keypoints[numbered("object_start", index)] = self._starts[index]
            keypoints[numbered("goal", index)] = goal
            keypoints[part.predicate.subject] = thing
            if part.predicate.place:
                keypoints[part.predicate.place] = goal
            touches = [scene.touch(pressing, fingers, part.geoms) for fingers in world.finger_geoms]
            distance = float(np.linalg.norm(thing - goal))
            signals[numbered("grasped", index)] = float(all(touches))
            signals[numbered("touching", index)] = float(any(touches))
            signals[numbered("object_to_goal", index)] = distance
            signals[numbered("opened", index)] = self._progress(index, part, data, distance)
            signals[numbered("done", index)] = float(world.holds(part))
            task_geoms |= part.geoms | part.place_geoms
            if part.joint is not None and not part.moves_joint:
                keypoints[numbered("handle", index)] = part.joint.point(data)
                signals[numbered("door", index)] = part.joint.openness(data)
        signals["collision"] = float(scene.touch(pressing, world.robot_geoms, ~(task_geoms | world.robot_geoms)))
        return keypoints, signals

    def _progress(self, index: int, part: Any, data: Any, distance: float) -> float:
        """Part of the way that is done, from 0 at the start to 1 where the goal begins to hold."""
        if not part.moves_joint:
            return float(np.clip(1.0 - distance / max(self._ways[index], 1e-6), 0.0, 1.0))
        now, begin = part.joint.openness(data), self._openness[index]
        end = 1.0 if part.predicate.word in ("open", "turnon") else 0.0
        return float(np.clip((now - begin) / (end - begin), 0.0, 1.0)) if end != begin else 1.0


def camera_of(world: TaskWorld, episode: Episode) -> dict[str, Any]:
    """Pinhole camera of the upright image that people and policies see, before it is resized.

    LIBERO's image is upside down but not mirrored, so half a turn sets it upright and leaves it mirrored: columns
    run against the camera's x axis, and the first focal length is negative.

    Returns:
        ``name``; ``size`` in pixels; ``intrinsic``, 3 x 3 in pixels; ``pose``, 4 x 4, from the camera's frame (x right,
        y down, z away from it) to the world's, meters.
    """
    camera = world.model.camera(_MAIN)
    size = RENDER_SIZE if world.drawing is None else world.drawing.size
    half = size / 2.0
    focal = half / np.tan(np.radians(float(camera.fovy[0])) / 2.0)
    pose = np.eye(4)
    pose[:3, :3] = episode.data.cam_xmat[camera.id].reshape(3, 3) @ np.diag([1.0, -1.0, -1.0])
    pose[:3, 3] = episode.data.cam_xpos[camera.id]
    intrinsic = [[-focal, 0.0, half], [0.0, focal, half], [0.0, 0.0, 1.0]]
    return {"name": _MAIN, "size": size, "intrinsic": intrinsic, "pose": pose.round(9).tolist()}
