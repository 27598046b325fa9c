"""One WidowX task in the simulator: starts episodes, advances them, and reads poses, contacts and images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from grape.core.tasks import Task
from grape.envs.simpler.initial_states import N_BENCHMARK, check_initial_state, drawn_placement
from grape.envs.simpler.scene import CAMERA, make_scene
from grape.envs.simpler.tasks import arrangement_of, is_nano

__all__ = [
    "IMAGE_SIZE",
    "NANO_SIZE",
    "Body",
    "Contacts",
    "Pose",
    "Verdict",
    "World",
]

IMAGE_SIZE = (480, 640)
"""Height and width of the camera's images in pixels."""

NANO_SIZE = (128, 128)
"""Height and width of the suite with small images, the same view; policies see them averaged to half of that."""

_SEED = 0  # of ManiSkill's random numbers, which nothing here depends on
_LEAST_FORCE = 0.01  # newtons from which a contact counts

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pose:
    """Where a body is in the world.

    Attributes:
        position: Meters, ``(3,)``.
        rotation: ``(3, 3)``, from the body's frame to the world's.
    """

    position: Float64
    rotation: Float64


@dataclass(frozen=True, eq=False)
class Body:
    """An object of the scene.

    Attributes:
        name: ManiSkill's name of its model.
        half_extents: Half of its bounding box's edges along its own axes, meters ``(3,)``; the box's center is the
            body's origin.
    """

    name: str
    half_extents: Float64


@dataclass(frozen=True)
class Contacts:
    """Contacts between fingers, source and target.

    Attributes:
        left: The left finger on the source.
        right: The right finger on the source.
        collision: Any part of the robot on anything but source and target.
    """

    left: bool
    right: bool
    collision: bool


@dataclass(frozen=True)
class Verdict:
    """ManiSkill's evaluation of a state.

    Attributes:
        success: The task is solved.
        grasped: Both fingers press on the source, from the right directions and hard enough.
        consecutive_grasp: It was grasped in five successive states at any time of the episode so far.
        on_target: The source is on the target.
    """

    success: bool
    grasped: bool
    consecutive_grasp: bool
    on_target: bool


class World:
    """Simulator of one task for one episode at a time.

    Args:
        task: The task.
        images: Whether it can draw.

    Raises:
        SettingsError: ManiSkill is not installed.
        DataError: Its assets are missing.
        SimulatorError: No Vulkan device draws, or the scene cannot be built.
    """

    def __init__(self, task: Task, images: bool) -> None:
        self.task = task
        self.images = images
        arrangement = arrangement_of(task)
        self._size = NANO_SIZE if is_nano(task.suite) else IMAGE_SIZE
        self._scene: Any = make_scene(arrangement, images, None if self._size == IMAGE_SIZE else self._size)
        self.source, self.target = (self._body(name) for name in (arrangement.source, arrangement.target))

    def _body(self, name: str) -> Body:
        return Body(name, _numbers(self._scene.episode_model_bbox_sizes[name]) / 2.0)

    def start(self, initial_state: int) -> Verdict:
        """Start from an initial state with a newly built scene: what an episode leaves would shift objects by mm.

        Raises:
            SettingsError: There is no such initial state.
        """
        check_initial_state(self.task, initial_state)
        options: dict[str, Any] = {"episode_id": initial_state, "reconfigure": True}
        if initial_state >= N_BENCHMARK:
            placement = drawn_placement(self.task, initial_state, self._scene.places, self._scene.turns)
            options |= {"episode_id": 0, "placement": placement}
        _, info = self._scene.reset(seed=_SEED, options=options)
        return self._verdict(info)

    def advance(self, action: npt.NDArray[np.float32]) -> Verdict:
        """One decision (0.2 s).

        Args:
            action: ManiSkill's convention, float32 ``(7,)``.
        """
        self._scene._step_action(action)
        return self._verdict(self._scene.get_info())

    def _verdict(self, info: Any) -> Verdict:
        return Verdict(
            success=bool(info["success"][0]),
            grasped=bool(self._scene.agent.is_grasping(self._scene.objs[self.source.name])[0]),  # ManiSkill's: ever
            consecutive_grasp=bool(info["consecutive_grasp"][0]),
            on_target=bool(info["src_on_target"][0]),
        )

    def close(self) -> None:
        """Release the simulator."""
        self._scene.close()

    @property
    def source_pose(self) -> Pose:
        """Pose of what is to be moved."""
        return _pose(self._scene.objs[self.source.name])

    @property
    def target_pose(self) -> Pose:
        """Pose of what it is to be put on."""
        return _pose(self._scene.objs[self.target.name])

    @property
    def base_pose(self) -> Pose:
        """Pose of the robot's base, whose axes actions refer to."""
        return _pose(self._scene.agent.robot)

    @property
    def commanded(self) -> Pose:
        """Where the arm was last told to bring its tool; each decision moves this by its change."""
        raw = _numbers(self._scene.agent.controller.controllers["arm"]._target_pose.raw_pose[0])
        base, rotation = self.base_pose, Rotation.from_quat(raw[3:], scalar_first=True).as_matrix()
        return Pose(base.position + base.rotation @ raw[:3], base.rotation @ rotation)

    def link_pose(self, name: str) -> Pose:
        """Pose of one of the robot's links."""
        return _pose(self._scene.agent.robot.links_map[name])

    @property
    def fingers(self) -> Float64:
        """Positions of the two finger joints, meters ``(2,)``: 0.015 closed, 0.037 open."""
        return _numbers(self._scene.agent.robot.get_qpos()[0, -2:])

    def contacts(self) -> Contacts:
        """What presses on what after the last physics step."""
        links = self._scene.agent.robot.links_map
        robot = {link._objs[0].entity for link in links.values()}
        left, right = (links[f"{side}_finger_link"]._objs[0].entity for side in ("left", "right"))
        source, target = (self._scene.objs[body.name]._objs[0] for body in (self.source, self.target))
        least = _LEAST_FORCE * self._scene.scene.px.timestep
        pairs = [
            {body.entity for body in contact.bodies}
            for contact in self._scene.scene.px.get_contacts()
            if np.linalg.norm(np.sum([point.impulse for point in contact.points], axis=0)) > least
        ]
        return Contacts(
            left={left, source} in pairs,
            right={right, source} in pairs,
            collision=any(pair & robot and not pair <= robot | {source, target} for pair in pairs),
        )

    def image(self) -> npt.NDArray[np.uint8]:
        """The camera's view over the real background, RGB uint8 ``(480, 640, 3)``; small ``(128, 128, 3)``."""
        data = self._scene._get_obs_sensor_data()
        image: npt.NDArray[np.uint8] = data[CAMERA]["rgb"][0].numpy().copy()
        return image

    def camera(self) -> dict[str, Any]:
        """Pinhole camera of the image.

        Returns:
            ``name``; ``size``, height and width in pixels; ``intrinsic``, 3 x 3 in pixels; ``pose``, 4 x 4, from the
            camera's frame (x right, y down, z away from it) to the world's, meters.
        """
        parameters = self._scene.get_sensor_params()[CAMERA]
        to_camera = np.vstack([_numbers(parameters["extrinsic_cv"][0]), [0.0, 0.0, 0.0, 1.0]])
        return {
            "name": CAMERA,
            "size": list(self._size),
            "intrinsic": _numbers(parameters["intrinsic_cv"][0]).round(6).tolist(),
            "pose": np.linalg.inv(to_camera).round(9).tolist(),
        }


def _numbers(tensor: Any) -> Float64:
    """A copy of a tensor's numbers."""
    return np.array(tensor.numpy(), dtype=np.float64)


def _pose(thing: Any) -> Pose:
    raw = _numbers(thing.pose.raw_pose[0])
    return Pose(raw[:3], Rotation.from_quat(raw[3:], scalar_first=True).as_matrix())
