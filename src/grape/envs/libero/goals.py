"""Goals of LIBERO tasks as measured points: one *part* for each predicate of the goal.

A part is about an object that has to be placed (``on``, ``in``) or a joint that has to be turned or pulled
(``open``, ``close``, ``turnon``, ``turnoff``). Its keypoint ``object`` is the body's origin or the joint's handle, its
keypoint ``goal`` where that point has to be. Parts are numbered in the order in which they are done: as in the task's
file, but what is to be closed comes last. Names of the first part have no number: ``object``, ``object_2``, ...
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["HANDLES", "Joint", "Part", "Predicate", "goal_parts", "numbered", "ordered_predicates"]

Float64 = npt.NDArray[np.float64]

HANDLES: Mapping[str, tuple[float, float, float]] = {
    "top_level": (-0.00278, -0.10161, 0.18393),
    "middle_level": (-0.00278, -0.10161, 0.11041),
    "bottom_level": (-0.00278, -0.10161, 0.04114),
    "button": (0.00115, -0.02496, 0.02505),
    "microjoint": (0.2375, -0.054, 0.0),
}
"""Where a hand takes hold, in the frame of the joint's body, meters, by the end of the joint's name."""

_LAST = ("close", "turnoff")


@dataclass(frozen=True)
class Predicate:
    """One statement of a goal.

    Attributes:
        word: ``on``, ``in``, ``open``, ``close``, ``turnon`` or ``turnoff``.
        subject: LIBERO's name of the object, fixture or region it is about.
        place: LIBERO's name of the place; empty where the word needs none.
    """

    word: str
    subject: str
    place: str = ""


@dataclass(frozen=True)
class Joint:
    """A joint that a task turns or pulls.

    Attributes:
        index: The joint in the model.
        address: Its place in the positions.
        body: The body that it moves.
        handle: Where a hand takes hold, in the body's frame, meters ``(3,)``.
        opened: Position from which it counts as open or on.
        closed: Position up to which it counts as closed or off.
    """

    index: int
    address: int
    body: int
    handle: tuple[float, float, float]
    opened: float
    closed: float

    def position(self, data: Any) -> float:
        """Radians or meters."""
        return float(data.qpos[self.address])

    def openness(self, data: Any) -> float:
        """0 where it counts as closed to 1 where it counts as open."""
        return float(np.clip((self.position(data) - self.closed) / (self.opened - self.closed), 0.0, 1.0))

    def point(self, data: Any) -> Float64:
        """The handle, meters ``(3,)``."""
        return np.asarray(data.xpos[self.body] + data.xmat[self.body].reshape(3, 3) @ np.array(self.handle))

    def point_at(self, model: Any, data: Any, position: float) -> Float64:
        """Where the handle is when the joint is in another position, meters ``(3,)``."""
        by = position - self.position(data)
        axis: Float64 = data.xaxis[self.index]
        if model.jnt_type[self.index] == 2:  # mjJNT_SLIDE
            return np.asarray(self.point(data) + by * axis)
        arm = self.point(data) - data.xanchor[self.index]
        rotated_arm = arm * np.cos(by) + np.cross(axis, arm) * np.sin(by) + axis * (axis @ arm) * (1.0 - np.cos(by))
        return np.asarray(data.xanchor[self.index] + rotated_arm)


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a task's goal in the simulator.

    Attributes:
        predicate: What has to hold.
        geoms: Which geoms belong to what is grasped or pushed, bool ``(ngeom,)``.
        place_geoms: Which geoms belong to where it goes, bool ``(ngeom,)``.
        body: The body that has to get somewhere; None where a joint has to be moved.
        place_body: The body at whose origin the goal is, or None.
        place_site: The site at which the goal is, or None.
        joint: The joint that has to be moved, or the drawer or door of the place where there is one.
    """

    predicate: Predicate
    geoms: npt.NDArray[np.bool_]
    place_geoms: npt.NDArray[np.bool_]
    body: int | None
    place_body: int | None
    place_site: int | None
    joint: Joint | None

    @property
    def moves_joint(self) -> bool:
        """Whether the part is about a joint."""
        return self.body is None

    def object_point(self, data: Any) -> Float64:
        """The point that has to get to the goal, meters ``(3,)``."""
        if self.body is not None:
            return np.array(data.xpos[self.body])
        assert self.joint is not None
        return self.joint.point(data)

    def goal_point(self, model: Any, data: Any) -> Float64:
        """Where that point has to be, meters ``(3,)``."""
        if self.place_body is not None:
            return np.array(data.xpos[self.place_body])
        if self.place_site is not None:
            return np.array(data.site_xpos[self.place_site])
        assert self.joint is not None
        goal_position = self.joint.opened if self.predicate.word in ("open", "turnon") else self.joint.closed
        return self.joint.point_at(model, data, goal_position)


def numbered(name: str, part: int) -> str:
    """Name of a keypoint or signal of the part with this number from 0 on: ``object``, ``object_2``, ..."""
    return name if part == 0 else f"{name}_{part + 1}"


def ordered_predicates(goal_state: Sequence[Sequence[str]]) -> tuple[Predicate, ...]:
    """LIBERO's parsed goal in the order in which its parts are done."""
    parsed = [Predicate(str(words[0]).lower(), *(str(word) for word in words[1:])) for words in goal_state]
    return tuple(sorted(parsed, key=lambda predicate: predicate.word in _LAST))


def goal_parts(domain: Any, model: Any) -> tuple[Part, ...]:
    """Parts of a task's goal.

    Args:
        domain: LIBERO's environment of the task, after a reset.
        model: Its ``mujoco.MjModel``.
    """
    return tuple(
        _part(domain, model, predicate) for predicate in ordered_predicates(domain.parsed_problem["goal_state"])
    )


def _part(domain: Any, model: Any, predicate: Predicate) -> Part:
    region = domain.object_sites_dict.get(predicate.place or predicate.subject)
    if not predicate.place:
        owner = predicate.subject if region is None else region.parent_name
        joint = _joint(domain, model, (domain.get_object(owner) if region is None else region).joints[0], owner)
        whole = geoms_below(model, int(model.body_rootid[joint.body]))
        return Part(predicate, geoms_below(model, joint.body), whole, None, None, None, joint)
    body = domain.obj_body_id[predicate.subject]
    if region is None:
        place = domain.obj_body_id[predicate.place]
        return Part(predicate, geoms_below(model, body), geoms_below(model, place), body, place, None, None)
    site = model.site(predicate.place)
    owner_body = int(model.site_bodyid[site.id])
    place_geoms = geoms_below(model, int(model.body_rootid[owner_body]) or owner_body)
    joint_of_place = _joint(domain, model, region.joints[0], region.parent_name) if region.joints else None
    return Part(predicate, geoms_below(model, body), place_geoms, body, None, site.id, joint_of_place)


def _joint(domain: Any, model: Any, name: str, owner: str) -> Joint:
    """A joint with the limits that LIBERO's predicates of its owner compare with."""
    joint = model.joint(name)
    articulation = domain.get_object(owner).object_properties["articulation"]
    on, off = ("default_turnon_ranges", "default_turnoff_ranges")
    opened = articulation.get(on) or articulation["default_open_ranges"]
    closed = articulation.get(off) or articulation["default_close_ranges"]
    outward = np.sign(sum(opened))  # drawers of the wooden cabinet open towards negative positions
    handle = next((point for end, point in HANDLES.items() if name.endswith(end)), (0.0, 0.0, 0.0))
    return Joint(
        index=int(joint.id),
        address=int(joint.qposadr[0]),
        body=int(joint.bodyid[0]),
        handle=handle,
        opened=float(outward * min(abs(value) for value in opened)),
        closed=float(outward * max(outward * value for value in closed)),
    )


def geoms_below(model: Any, body: int) -> npt.NDArray[np.bool_]:
    """Geoms of a body and of all bodies that hang on it, bool ``(ngeom,)``."""
    inside = np.zeros(model.nbody, dtype=bool)
    inside[body] = True
    for index in range(body + 1, model.nbody):  # parents come before their children
        inside[index] |= inside[model.body_parentid[index]]
    return np.asarray(inside[model.geom_bodyid])
