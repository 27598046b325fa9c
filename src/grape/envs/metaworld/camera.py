"""Images of a Meta-World scene in about 3 ms instead of 100.

The package's renderer draws a 4096 x 4096 shadow map and 4 samples a pixel whatever the image's size. This one turns
both off, looks from a free camera close enough for the puck to be seen, and smooths by drawing twice the policy's
size and averaging 2 x 2 pixels. What is left is bound by vertices, so the robot's base, which is out of sight, is
hidden, and its arm's meshes (30,000 triangles on 2,000 pixels) are coarsened to 4 mm, less than a pixel.
"""

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.cameras import Camera
from grape.envs import offscreen
from grape.envs.fast_rendering import coarsen, depth_and_segmentation, make_renderer
from grape.envs.ground_truth import SceneView, bodies_of, body_poses

__all__ = ["DISPLAY_SIZE", "IMAGE_SIZE", "SceneCamera", "load_mujoco"]

IMAGE_SIZE = 64
"""Height and width of the policy's image in pixels."""

DISPLAY_SIZE = 128
"""Height and width of the image for people, which is what is rendered."""

_LOOK_AT = (0.0, 0.74, 0.12)
_DISTANCE = 0.92
_AZIMUTH = 200.0
_ELEVATION = -42.0
_OUT_OF_SIGHT = (
    "controller_box",
    "pedestal_feet",
    "pedestal",
    "torso",
    "head",
    "screen",
    "right_arm_base_link",
    "right_l0",
    "right_l1",
    "right_l1_2",
)
_COARSE_CELL = 0.004  # meters; a pixel of the rendered image covers 6 mm
_COARSE_FACES = 2000  # only the robot's meshes have more triangles
_HIDDEN_GROUP = 5  # MuJoCo draws groups 0 to 2
_GOAL_GROUP = 1
_PUCK_RGBA = (1.0, 0.85, 0.0, 1.0)  # Meta-World's dark red is lost on brown wood at 64 pixels


def load_mujoco() -> Any:
    """The module ``mujoco``, ready to draw without a screen; see :func:`grape.envs.offscreen.load_mujoco`."""
    return offscreen.load_mujoco("metaworld", "metaworld")


class SceneCamera:
    """Renderer of one task, shared by all environments of the task in a process.

    Args:
        model: The task's ``mujoco.MjModel``; it is copied, not changed.
        show_goal: Whether to draw the marker named ``goal``.

    Raises:
        SimulatorError: The graphics library cannot make a context.
    """

    def __init__(self, model: Any, show_goal: bool) -> None:
        mujoco = load_mujoco()
        self._model = _drawable(model, show_goal)
        self._renderers = {DISPLAY_SIZE: make_renderer(mujoco, self._model, DISPLAY_SIZE)}
        self._camera = mujoco.MjvCamera()
        self._camera.lookat = _LOOK_AT
        self._camera.distance, self._camera.azimuth, self._camera.elevation = _DISTANCE, _AZIMUTH, _ELEVATION
        self._options = mujoco.MjvOption()
        self._options.sitegroup[:] = 0
        self._options.sitegroup[_GOAL_GROUP] = 1

    def image(self, data: Any) -> npt.NDArray[np.uint8]:
        """Draw a ``mujoco.MjData`` of the task, RGB uint8 ``(128, 128, 3)``."""
        renderer = self._renderers[DISPLAY_SIZE]
        renderer.update_scene(data, self._camera, self._options)
        image: npt.NDArray[np.uint8] = renderer.render()
        return image

    def view(self, data: Any, size: int = DISPLAY_SIZE) -> SceneView:
        """The same view with depth, bodies and camera; several times as slow.

        Args:
            data: A ``mujoco.MjData`` of the task.
            size: Height and width in pixels.
        """
        model = self._model
        if size not in self._renderers:
            self._renderers[size] = make_renderer(load_mujoco(), model, size)
        renderer = self._renderers[size]
        renderer.update_scene(data, self._camera, self._options)
        image = renderer.render().copy()
        depth, segmentation = depth_and_segmentation(renderer)
        names = tuple(model.body(index).name for index in range(model.nbody))
        return SceneView(
            image,
            depth,
            bodies_of(model, segmentation),
            names,
            body_poses(model, data),
            _pinhole(renderer.scene, float(model.vis.global_.fovy), size),
        )


def _pinhole(scene: Any, field_of_view: float, size: int) -> Camera:
    """The camera that a scene was last drawn with; the field of view is vertical, in degrees."""
    left, right = scene.camera  # the eyes of a stereo view, equal here
    half = size / 2.0
    focal = half / np.tan(np.radians(field_of_view) / 2.0)
    forward, up = np.array(left.forward, np.float64), np.array(left.up, np.float64)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([np.cross(forward, up), -up, forward], axis=1)
    pose[:3, 3] = (np.array(left.pos, np.float64) + np.array(right.pos)) / 2.0
    intrinsic = np.array([[focal, 0.0, half], [0.0, focal, half], [0.0, 0.0, 1.0]])
    return Camera(intrinsic, pose, (size, size), "free")


def _drawable(model: Any, show_goal: bool) -> Any:
    """Copy of a model that draws fast and shows what the policy may see."""
    model = copy.copy(model)
    model.vis.quality.offsamples = 0
    model.vis.quality.shadowsize = 0
    for index in range(model.ngeom):
        if model.body(model.geom_bodyid[index]).name in _OUT_OF_SIGHT:
            model.geom_group[index] = _HIDDEN_GROUP
        if model.body(model.geom_bodyid[index]).name == "obj":
            model.geom_rgba[index] = _PUCK_RGBA
            model.geom_matid[index] = -1
    for index in range(model.nsite):
        is_visible = show_goal and model.site(index).name == "goal"
        model.site_group[index] = _GOAL_GROUP if is_visible else _HIDDEN_GROUP
    for mesh in range(model.nmesh):
        if model.mesh_facenum[mesh] > _COARSE_FACES:
            coarsen(model, mesh, _COARSE_CELL)
    return model
