"""Renderers of a LIBERO task: LIBERO's own for the published protocol, and a fast one for small images.

robosuite takes its observation 4 ms before the end of an environment step. To draw only where an image is asked for,
and then the very same one, each environment step keeps what an image depends on (:class:`DrawnState`, about 100 kB).
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from grape.core.images import rotate_180
from grape.envs.fast_rendering import close_renderer, depth_and_segmentation, scene_renderer
from grape.envs.offscreen import load_mujoco

__all__ = ["CAMERAS", "NANO_SIZE", "RENDER_SIZE", "DrawnState", "FastDrawing", "LiberoDrawing", "TaskDrawing"]

RENDER_SIZE = 256
"""Height and width of LIBERO's images in pixels."""

NANO_SIZE = 128
"""Height and width of the images of the fast renderer in pixels; policies see them averaged to half of that."""

CAMERAS: Mapping[str, str] = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}
"""LIBERO's names of the view that policies see, and of the one from the wrist."""

_POSES = ("xpos", "xmat", "geom_xpos", "geom_xmat", "site_xpos", "site_xmat")
_CAMERAS_AND_LIGHTS = ("cam_xpos", "cam_xmat", "light_xpos", "light_xdir")
_ROBOT = ("robot0_", "gripper0_", "mount0_")
_ROBOT_CELL = 0.006  # meters; a pixel of the large image covers 8 mm of the table
_OBJECT_CELL = 0.002  # meters; a pixel of the wrist's image covers 3 mm
_COARSE_FACES = 500
_COLLISION_GROUP = 0

Image = npt.NDArray[np.uint8]


class DrawnState:
    """All that an image of a state depends on, beside the model.

    Args:
        model: The ``mujoco.MjModel``; a burner that is on has another color in it.
        data: The ``mujoco.MjData`` of the moment.
    """

    def __init__(self, model: Any, data: Any) -> None:
        self._arrays = {name: getattr(data, name).copy() for name in (*_POSES, *_CAMERAS_AND_LIGHTS)}
        self._site_rgba = model.site_rgba.copy()

    def restore(self, model: Any, data: Any) -> None:
        """Put the state into a model and a ``mujoco.MjData`` that nothing but drawing uses."""
        for name, values in self._arrays.items():
            getattr(data, name)[:] = values
        model.site_rgba[:] = self._site_rgba


class TaskDrawing(Protocol):
    """Renderer of one task. Images are upright and mirrored: LIBERO's after half a turn."""

    @property
    def size(self) -> int:
        """Height and width in pixels."""

    def image(self, data: Any, camera: str) -> Image:
        """RGB uint8 ``(size, size, 3)`` of a ``mujoco.MjData``; ``camera`` is LIBERO's name."""

    def truth(self, data: Any, camera: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """Depth in meters ``(size, size)`` and MuJoCo's object and kind of object a pixel ``(size, size, 2)``."""

    def close(self) -> None:
        """Free what the renderer holds by itself."""


class LiberoDrawing:
    """robosuite's renderer: the images that published policies were trained on.

    Args:
        domain: LIBERO's environment, made with an offscreen renderer.
    """

    size = RENDER_SIZE

    def __init__(self, domain: Any) -> None:
        self._domain = domain
        self._mujoco = load_mujoco("libero", "libero")

    def image(self, data: Any, camera: str) -> Image:
        """As :meth:`TaskDrawing.image`."""
        sim = self._domain.sim
        # robosuite draws into whatever context another renderer of the process left current.
        sim._render_context_offscreen.gl_ctx.make_current()
        live, sim.data._data = sim.data._data, data
        try:
            return rotate_180(sim.render(width=RENDER_SIZE, height=RENDER_SIZE, camera_name=camera))
        finally:
            sim.data._data = live

    def truth(self, data: Any, camera: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """As :meth:`TaskDrawing.truth`."""
        self.image(data, camera)
        model: Any = self._domain.sim.model._model
        context = self._domain.sim._render_context_offscreen
        camera_id, viewport = int(model.camera(camera).id), self._mujoco.MjrRect(0, 0, RENDER_SIZE, RENDER_SIZE)
        colors = np.empty((RENDER_SIZE, RENDER_SIZE, 3), dtype=np.uint8)
        buffer = np.empty((RENDER_SIZE, RENDER_SIZE), dtype=np.float32)
        context.render(width=RENDER_SIZE, height=RENDER_SIZE, camera_id=camera_id, segmentation=True)
        self._mujoco.mjr_readPixels(rgb=colors, depth=buffer, viewport=viewport, con=context.con)
        number = colors.astype(np.int64) @ np.array([1, 256, 65536])
        things = np.full((context.scn.ngeom + 1, 2), -1, dtype=np.int32)
        for geom in context.scn.geoms[: context.scn.ngeom]:
            if geom.segid != -1:
                things[geom.segid + 1] = geom.objid, geom.objtype
        segmentation = things[np.where(number <= context.scn.ngeom, number, 0)]
        far, near = (float(limit) * float(model.stat.extent) for limit in (model.vis.map.zfar, model.vis.map.znear))
        depth = near / (1.0 - buffer.astype(np.float64) * (1.0 - near / far))
        return depth[::-1, ::-1].astype(np.float32), np.ascontiguousarray(segmentation[::-1, ::-1])

    def close(self) -> None:
        """Nothing: the renderer is LIBERO's."""


class FastDrawing:
    """Renderer without shadows, reflections and multisampling, and with coarsened meshes.

    Args:
        model: The task's ``mujoco.MjModel``; it is left as it was.

    Raises:
        SimulatorError: The graphics library cannot make a context.
    """

    size = NANO_SIZE

    def __init__(self, model: Any) -> None:
        mujoco = load_mujoco("libero", "libero")
        cells = {
            mesh: _ROBOT_CELL if model.mesh(mesh).name.startswith(_ROBOT) else _OBJECT_CELL
            for mesh in range(model.nmesh)
            if model.mesh_facenum[mesh] > _COARSE_FACES
        }
        self._renderer = scene_renderer(mujoco, model, NANO_SIZE, cells)
        self._options = mujoco.MjvOption()
        self._options.geomgroup[_COLLISION_GROUP] = 0

    def image(self, data: Any, camera: str) -> Image:
        """As :meth:`TaskDrawing.image`."""
        self._renderer.update_scene(data, camera, self._options)
        return np.ascontiguousarray(self._renderer.render()[:, ::-1])

    def truth(self, data: Any, camera: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """As :meth:`TaskDrawing.truth`."""
        self._renderer.update_scene(data, camera, self._options)
        depth, segmentation = depth_and_segmentation(self._renderer)
        return np.ascontiguousarray(depth[:, ::-1]), np.ascontiguousarray(segmentation[:, ::-1])

    def close(self) -> None:
        """As :meth:`TaskDrawing.close`."""
        close_renderer(self._renderer)
