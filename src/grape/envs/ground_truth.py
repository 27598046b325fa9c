"""Ground truth of a rendered view: depth and the body of each pixel. For tests of perception, never recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.cameras import Camera

__all__ = ["SceneView", "bodies_of", "body_poses"]

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]

_GEOM = 5  # mjOBJ_GEOM


@dataclass(frozen=True, eq=False)
class SceneView:
    """One state rendered by one camera, with ground truth.

    Attributes:
        image: RGB, uint8 ``(H, W, 3)``.
        depth: Meters along the camera's z axis, float32 ``(H, W)``.
        bodies: Index of the body that each pixel shows, int32 ``(H, W)``; -1 for what belongs to none.
        names: Name of each body by index.
        poses: Each body's pose in the world, by name, float64 ``(4, 4)``.
        camera: The camera.
    """

    image: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    bodies: Int32
    names: tuple[str, ...]
    poses: Mapping[str, Float64]
    camera: Camera

    def mask(self, *names: str) -> npt.NDArray[np.bool_]:
        """Pixels that show any of some bodies, ``(H, W)``."""
        indices = [index for index, name in enumerate(self.names) if name in names]
        return np.isin(self.bodies, indices)


def bodies_of(model: Any, segmentation: npt.NDArray[Any]) -> Int32:
    """Body of each pixel, int32 ``(H, W)``, from MuJoCo's pairs of object and kind of object ``(H, W, 2)``."""
    thing, kind = segmentation[..., 0], segmentation[..., 1]
    bodies = np.asarray(model.geom_bodyid)[np.clip(thing, 0, model.ngeom - 1)]
    visible_bodies: Int32 = np.where((kind == _GEOM) & (thing >= 0), bodies, -1).astype(np.int32)
    return visible_bodies


def body_poses(model: Any, data: Any) -> dict[str, Float64]:
    """Pose of every body in the world by name, float64 ``(4, 4)``."""
    poses = {}
    for index in range(model.nbody):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = data.xmat[index].reshape(3, 3), data.xpos[index]
        poses[model.body(index).name] = pose
    return poses
