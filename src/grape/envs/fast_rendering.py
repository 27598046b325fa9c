"""Images of MuJoCo scenes at a fraction of the usual time, for suites whose images follow no published protocol.

What costs most in MuJoCo's default settings does not depend on the image's size: a shadow map of 4096 x 4096, several
samples a pixel, and triangles far smaller than a pixel. These renderers draw without shadows, reflections and
multisampling, twice as large as the policy's image and averaged, and may draw coarsened meshes.
"""

import atexit
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.envs import offscreen

__all__ = ["box_downsample", "close_renderer", "coarsen", "depth_and_segmentation", "make_renderer", "scene_renderer"]

_MESH_ARRAYS = ("mesh_face", "mesh_facenormal", "mesh_facetexcoord", "mesh_facenum")


def box_downsample(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Mean of each 2 x 2 block, rounded: uint8 ``(2H, 2W, 3)`` to ``(H, W, 3)``."""
    rows = image[::2].astype(np.uint16) + image[1::2]
    return ((rows[:, ::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)


def make_renderer(mujoco: Any, model: Any, size: int) -> Any:
    """New ``mujoco.Renderer`` of square images without shadows and reflections.

    Args:
        mujoco: The module.
        model: The ``mujoco.MjModel``; its quality settings and meshes are read here, once.
        size: Height and width in pixels.

    Raises:
        SimulatorError: The graphics library cannot make a context.
    """
    try:
        renderer = mujoco.Renderer(model, size, size)
    except Exception as error:  # each backend raises its own kind
        raise offscreen.graphics_error(error) from error
    atexit.register(renderer.close)  # later the graphics library is unloaded and reports errors
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        renderer.scene.flags[flag] = 0
    return renderer


def close_renderer(renderer: Any) -> None:
    """Free what a renderer from here holds, which is some hundred MB for scenes with many textures."""
    atexit.unregister(renderer.close)
    renderer.close()


def scene_renderer(mujoco: Any, model: Any, size: int, cells: Mapping[int, float]) -> Any:
    """:func:`make_renderer` without multisampling, of a model that others use, too: it is left as it was.

    Args:
        mujoco: The module.
        model: The ``mujoco.MjModel``. The renderer reads sizes and colors from it at each image, meshes only here.
        size: Height and width in pixels.
        cells: Meshes that are drawn coarsened, each with the grid's edge for :func:`coarsen`, meters.
    """
    saved = {name: getattr(model, name).copy() for name in _MESH_ARRAYS}
    quality = model.vis.quality
    samples, shadows = quality.offsamples, quality.shadowsize
    try:
        quality.offsamples = quality.shadowsize = 0
        for mesh, cell in cells.items():
            coarsen(model, mesh, cell)
        return make_renderer(mujoco, model, size)
    finally:
        quality.offsamples, quality.shadowsize = samples, shadows
        for name, values in saved.items():
            getattr(model, name)[:] = values


def depth_and_segmentation(renderer: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Depth in meters ``(H, W)``, and object and kind of object a pixel ``(H, W, 2)``, of the scene last updated."""
    renderer.enable_depth_rendering()
    try:
        depth = renderer.render().copy()
    finally:
        renderer.disable_depth_rendering()
    renderer.enable_segmentation_rendering()
    try:
        return depth, renderer.render().copy()
    finally:
        renderer.disable_segmentation_rendering()


def coarsen(model: Any, mesh: int, cell: float) -> None:
    """Merge vertices that share a cell of a grid, and drop the triangles that vanish by that.

    Corners keep their normals, so that shading stays smooth. Works in place: the mesh uses the first part of its
    old range of faces.

    Args:
        model: The ``mujoco.MjModel``.
        mesh: Index of the mesh.
        cell: Edge of the grid's cells, meters; less than what a pixel covers goes unseen.
    """
    vertices = model.mesh_vert[model.mesh_vertadr[mesh] :][: model.mesh_vertnum[mesh]]
    start, count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
    every = slice(start, start + count)
    _, first, cells = np.unique(
        np.floor(vertices / cell).astype(np.int64), axis=0, return_index=True, return_inverse=True
    )
    faces = first[cells.reshape(-1)][model.mesh_face[every]]
    _, unique = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    keep = np.zeros(count, dtype=bool)
    keep[unique] = True
    keep &= (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    kept_faces = slice(start, start + int(keep.sum()))
    model.mesh_face[kept_faces] = faces[keep]
    model.mesh_facenormal[kept_faces] = model.mesh_facenormal[every][keep]
    model.mesh_facetexcoord[kept_faces] = model.mesh_facetexcoord[every][keep]
    model.mesh_facenum[mesh] = kept_faces.stop - kept_faces.start
