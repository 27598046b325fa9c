"""Poses, shapes and contacts of an episode's state, for keypoints and experts."""

from typing import Any

import numpy as np
import numpy.typing as npt

from grape.envs.libero.goals import Part
from grape.envs.libero.world import Episode, TaskWorld

__all__ = ["Scene"]

Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_COLLISION_GROUP = 0
_GRID = 0.03  # meters between points of a box, roughly
_BOX, _MESH, _SPHERE, _CAPSULE, _CYLINDER = 6, 7, 2, 3, 5  # mjtGeom


class Scene:
    """An episode's state; reads the live simulator, so it shows the present and not the moment it was made.

    Args:
        world: The task's world.
        episode: The episode.
    """

    def __init__(self, world: TaskWorld, episode: Episode) -> None:
        self._world = world
        self._data: Any = episode.data

    @property
    def parts(self) -> tuple[Part, ...]:
        """Parts of the task's goal."""
        return self._world.parts

    @property
    def gripper(self) -> Float64:
        """The point between the finger tips, meters ``(3,)``."""
        return np.array(self._data.site_xpos[self._world.grip_site])

    @property
    def hand(self) -> Float64:
        """Orientation of the hand's body, ``(3, 3)``; fingers move along its y axis and point along its z axis."""
        return np.array(self._data.xmat[self._world.hand_body]).reshape(3, 3)

    @property
    def finger_width(self) -> float:
        """Distance of the fingers, meters: 0 closed to 0.08 open."""
        first, second = (self._data.qpos[joint] for joint in self._world.finger_joints)
        return float(first - second)

    def holds(self, part: Part) -> bool:
        """Whether a part of the goal is done."""
        return self._world.holds(part)

    def joint_point(self, part: Part) -> Float64:
        """Handle of the part's joint, meters ``(3,)``."""
        assert part.joint is not None
        return part.joint.point(self._data)

    def joint_axis(self, part: Part) -> tuple[Float64, Float64]:
        """A point on the axis of the part's joint and its direction, ``(3,)`` each."""
        assert part.joint is not None
        return np.array(self._data.xanchor[part.joint.index]), np.array(self._data.xaxis[part.joint.index])

    def openness(self, part: Part) -> float:
        """How far the part's joint is open or on, 0 to 1."""
        assert part.joint is not None
        return part.joint.openness(self._data)

    def object_point(self, part: Part) -> Float64:
        """The point of a part that has to get to its goal, meters ``(3,)``."""
        return part.object_point(self._data)

    def goal_point(self, part: Part) -> Float64:
        """Where it has to be, meters ``(3,)``."""
        return part.goal_point(self._world.model, self._data)

    def outline_of_others(self, geoms: Mask) -> Float64:
        """Points of everything but some geoms and the robot, meters ``(n, 3)``."""
        others: Mask = ~(geoms | self._world.robot_geoms | self._world.room_geoms)
        return self.outline(others)

    def outline(self, geoms: Mask) -> Float64:
        """Points of what can be touched of some geoms, meters ``(n, 3)``, where they are now."""
        model = self._world.model
        corners = []
        for index in np.flatnonzero(geoms & (model.geom_group == _COLLISION_GROUP)):
            local = _corners(model, int(index))
            rotation = self._data.geom_xmat[index].reshape(3, 3)
            corners.append(local @ rotation.T + self._data.geom_xpos[index])
        return np.concatenate(corners) if corners else np.zeros((0, 3))

    def pressing_pairs(self) -> npt.NDArray[np.int32]:
        """Pairs of geoms that press on each other: contacts with a positive normal force, ``(n, 2)``."""
        contacts, forces = self._data.contact, self._data.efc_force
        addresses = np.asarray(contacts.efc_address)
        pressing = addresses >= 0
        pressing[pressing] = forces[addresses[pressing]] > 0
        return np.asarray(contacts.geom)[pressing]

    @staticmethod
    def touch(pairs: npt.NDArray[np.int32], one: Mask, other: Mask) -> bool:
        """Whether a pair of geoms joins two sets of geoms."""
        first, second = pairs[:, 0], pairs[:, 1]
        return bool(((one[first] & other[second]) | (one[second] & other[first])).any())


def _corners(model: Any, geom: int) -> Float64:
    """Points of a geom in its own frame, meters ``(n, 3)``: a box by a grid, round shapes by their rims."""
    kind, size = int(model.geom_type[geom]), model.geom_size[geom]
    if kind == _MESH:
        mesh = int(model.geom_dataid[geom])
        start, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
        return np.array(model.mesh_vert[start : start + count], dtype=np.float64)
    if kind == _BOX:
        along = [np.linspace(-half, half, 2 + min(int(2 * half / _GRID), 8)) for half in size]
        return np.stack(np.meshgrid(*along), axis=-1).reshape(-1, 3)
    angles = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
    ring = size[0] * np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=1)
    half = size[0] if kind == _SPHERE else size[1]
    end = np.array([0.0, 0.0, half])
    return np.concatenate([ring + end, ring - end])
