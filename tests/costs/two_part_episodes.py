"""Made-up episodes of tasks with several things to do: any of them done, in any order, for any specification.

The scene is symmetrical: what belongs to one part lies as far from the gripper as what belongs to another, so that
costs of two halves differ by the specification's own numbers only.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from grape.core.trajectories import Trajectory
from grape.costs.specification import CostSpecification

HOME = np.array([0.0, 0.0, 0.3])
_SIDES = (np.array([-1.0, 1.0, 1.0]), np.array([1.0, 1.0, 1.0]), np.array([-1.0, -1.0, 1.0]))
_LIFT = np.array([0.0, 0.0, 0.1])


def parts_of(specification: CostSpecification) -> tuple[str, ...]:
    """Suffixes of the names of each part's keypoints and signals: ``("", "_2")``."""
    return tuple(part for part in ("", "_2", "_3") if f"done{part}" in specification.signals)


class Scene:
    """Records states while parts of the task are done one after the other."""

    def __init__(self, specification: CostSpecification) -> None:
        self.parts = parts_of(specification)
        self.carried = {part: f"grasped{part}" in specification.signals for part in self.parts}
        self.points = {"gripper": HOME.copy()}
        for part, side in zip(self.parts, _SIDES, strict=False):
            self.points[f"object{part}"] = np.array([0.2, 0.25, 0.0]) * side
            self.points[f"goal{part}"] = np.array([0.2, -0.25, 0.0]) * side
        self.signals = dict.fromkeys(specification.signals, 0.0)
        self.states: list[tuple[dict[str, Any], dict[str, float]]] = []
        self.wait(1)

    def wait(self, steps: int) -> None:
        """Stand still."""
        for _ in range(steps):
            points = {name: point.copy() for name, point in self.points.items()}
            self.states.append((points, dict(self.signals)))

    def go(self, goal: np.ndarray, *names: str) -> None:
        """Move the gripper to a point, and keypoints with it, about 1.5 cm a step."""
        way = goal - self.points["gripper"]
        steps = max(1, int(np.ceil(np.linalg.norm(way) / 0.015)))
        for _ in range(steps):
            for name in ("gripper", *names):
                self.points[name] = self.points[name] + way / steps
            self.wait(1)

    def do(self, part: str) -> None:
        """Carry a part's object to its goal, or turn its knob."""
        thing = f"object{part}"
        self.go(self.points[thing])
        if self.carried[part]:
            self.signals[f"grasped{part}"] = 1.0
            self.wait(3)
            self.go(self.points[thing] + _LIFT, thing)
            self.go(self.points[f"goal{part}"] + _LIFT, thing)
            self.go(self.points[f"goal{part}"], thing)
            self.signals[f"grasped{part}"] = 0.0
        else:
            for opened in np.linspace(0.05, 1.0, 20):
                self.signals[f"opened{part}"] = float(opened)
                self.wait(1)
        self.signals[f"done{part}"] = 1.0
        self.wait(1)


def play(
    specification: CostSpecification,
    make_trajectory: Callable[..., Trajectory],
    parts: Sequence[str],
    *,
    until: str = "success",
    afterwards: Callable[[Scene], None] = lambda scene: None,
) -> Trajectory:
    """The episode in which these parts are done in this order; it ends with success or at the specification's limit.

    Args:
        specification: Whose parts, names and limit.
        make_trajectory: The fixture of that name.
        parts: Some of :func:`parts_of`, in the order in which they are done.
        until: When the episode was to end.
        afterwards: What happens after that, in episodes that go on to the last step.
    """
    scene = Scene(specification)
    for part in parts:
        scene.do(part)
    solved = all(scene.signals[f"done{part}"] for part in scene.parts)
    if not solved or until == "last-step":
        scene.go(HOME)
        afterwards(scene)
        scene.wait(max(0, specification.limit + 1 - len(scene.states)))
    states = scene.states
    points = {name: np.stack([state[0][name] for state in states]) for name in scene.points}
    signals = {name: np.array([state[1][name] for state in states]) for name in scene.signals}
    signals["success"] = np.min([signals[f"done{part}"] for part in scene.parts], axis=0)
    episode = make_trajectory(points, signals, success=bool(signals["success"][-1]), task=specification.task)
    return dataclasses.replace(episode, meta=dataclasses.replace(episode.meta, until=until))
