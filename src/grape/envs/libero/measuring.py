"""LIBERO's agent view with depth and bodies: robosuite's renderer, read without robosuite's own arithmetic.

robosuite 1.4 multiplies bytes by 256 when it reads a segmentation, which numpy 2 refuses, so the pixels are read here.
"""

from typing import Any

import numpy as np

from grape.core.cameras import camera_from_dict
from grape.core.images import rotate_180
from grape.envs.ground_truth import SceneView, bodies_of, body_poses
from grape.envs.libero.world import CAMERAS, RENDER_SIZE, Episode, TaskWorld
from grape.envs.offscreen import load_mujoco

__all__ = ["measure_view"]


def measure_view(world: TaskWorld, episode: Episode, camera: dict[str, Any]) -> SceneView:
    """What people's image shows, with the truth about it.

    Args:
        world: The task's world, the episode swapped in.
        episode: The episode.
        camera: Its camera, from ``camera_of``.

    Raises:
        RuntimeError: The world cannot draw.
    """
    if not world.images:
        raise RuntimeError("this world was made without a renderer")
    mujoco = load_mujoco("libero", "libero")
    image = rotate_180(world.image(CAMERAS[0]))
    model: Any = world.model
    context = world.domain.sim._render_context_offscreen
    camera_id, viewport = int(model.camera(CAMERAS[0]).id), mujoco.MjrRect(0, 0, RENDER_SIZE, RENDER_SIZE)
    colors = np.empty((RENDER_SIZE, RENDER_SIZE, 3), dtype=np.uint8)
    buffer = np.empty((RENDER_SIZE, RENDER_SIZE), dtype=np.float32)
    context.render(width=RENDER_SIZE, height=RENDER_SIZE, camera_id=camera_id, segmentation=True)
    mujoco.mjr_readPixels(rgb=colors, depth=buffer, viewport=viewport, con=context.con)
    number = colors.astype(np.int64) @ np.array([1, 256, 65536])
    things = np.full((context.scn.ngeom + 1, 2), -1, dtype=np.int64)
    for geom in context.scn.geoms[: context.scn.ngeom]:
        if geom.segid != -1:
            things[geom.segid + 1] = geom.objid, geom.objtype
    segmentation = things[np.where(number <= context.scn.ngeom, number, 0)]
    far, near = (float(limit) * float(model.stat.extent) for limit in (model.vis.map.zfar, model.vis.map.znear))
    depth = near / (1.0 - buffer.astype(np.float64) * (1.0 - near / far))
    return SceneView(
        image=image,
        depth=np.ascontiguousarray(depth[::-1, ::-1]).astype(np.float32),
        bodies=np.ascontiguousarray(bodies_of(model, segmentation)[::-1, ::-1]),
        names=tuple(model.body(index).name for index in range(model.nbody)),
        poses=body_poses(model, episode.data),
        camera=camera_from_dict(camera),
    )
