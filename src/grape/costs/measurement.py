"""Quantities measured on a recording: vectorised over its ``T + 1`` states, NaN where a keypoint or signal is lost."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from grape.core.trajectories import Trajectory
from grape.costs.specification import Call, Condition
from grape.costs.vocabulary import QUANTITIES

__all__ = ["TOLERANCE", "Recording", "holds", "relation_cost", "truth"]

Float64 = npt.NDArray[np.float64]

TOLERANCE = 1e-6
"""Costs up to this count as zero when a relation is asked whether it holds: keypoints are recorded as float32."""


class Recording:
    """Keypoints and signals of one trajectory in float64, with measured quantities kept for reuse.

    Args:
        trajectory: What was recorded; pictures are not looked at.
        limit: The task's limit in steps, for times.
    """

    def __init__(self, trajectory: Trajectory, limit: int) -> None:
        self.rows = trajectory.steps + 1
        self.limit = limit
        self._trajectory = trajectory
        self._points: dict[str, Float64] = {}
        self._measured: dict[tuple[str, tuple[tuple[str, str | float], ...]], Float64] = {}

    def point(self, name: str | float) -> Float64:
        """Keypoint ``(T+1, 3)`` in metres; a state with any coordinate that is not finite is NaN as a whole."""
        name = str(name)
        if name not in self._points:
            point = np.asarray(self._trajectory.keypoints[name], dtype=np.float64)
            known = np.isfinite(point).min(axis=1, keepdims=True)
            self._points[name] = point if known.all() else np.where(known, point, np.nan)
        return self._points[name]

    def signal(self, name: str | float) -> Float64:
        """Signal ``(T+1,)``, NaN where it is not finite."""
        signal = np.asarray(self._trajectory.signals[str(name)], dtype=np.float64)
        return np.where(np.isfinite(signal), signal, np.nan)

    def quantity(self, call: Call) -> Float64:
        """The relation's quantity at each state ``(T+1,)``; increments for quantities that accumulate."""
        key = (call.word.quantity, call.measured)
        if key not in self._measured:
            self._measured[key] = _MEASURES[call.word.quantity](self, dict(call.measured))
        return self._measured[key]


_Arguments = dict[str, str | float]


def _difference(recording: Recording, arguments: _Arguments) -> Float64:
    return recording.point(arguments["of"]) - recording.point(arguments["to"])


def _norm(vectors: Float64) -> Float64:
    squares: Float64 = np.einsum("ij,ij->i", vectors, vectors)
    return np.sqrt(squares)


def _motion(recording: Recording, arguments: _Arguments) -> Float64:
    """Velocity a step ``(T+1, 3)``; the first state has none."""
    point = recording.point(arguments["of"])
    motion = np.zeros_like(point)
    motion[1:] = point[1:] - point[:-1]
    return motion


def _along(vectors: Float64, axis: str | float) -> Float64:
    """Component along a world axis such as ``"-y"``, ``(T+1,)``."""
    name = str(axis)
    return vectors[:, "xyz".index(name[-1])] * (-1.0 if name[0] == "-" else 1.0)


def _angle(recording: Recording, arguments: _Arguments) -> Float64:
    direction = -_difference(recording, arguments)  # from 'of' to 'to'
    length = _norm(direction)
    along = _along(direction, arguments["axis"])
    cosine = np.divide(along, length, out=np.full_like(length, np.nan), where=length > 1e-9)
    angle: Float64 = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    return angle


def _acceleration(recording: Recording, arguments: _Arguments) -> Float64:
    motion = _motion(recording, arguments)
    change = np.zeros_like(motion)
    change[2:] = motion[2:] - motion[1:-1]
    return _norm(change)


def _time(recording: Recording, arguments: _Arguments) -> Float64:
    steps = np.full(recording.rows, 1.0 / recording.limit)
    steps[0] = 0.0
    return steps


def _flag(recording: Recording, arguments: _Arguments) -> Float64:
    signal = recording.signal(arguments["signal"])
    return np.where(np.isnan(signal), np.nan, signal > 0.5)


_MEASURES: dict[str, Callable[[Recording, _Arguments], Float64]] = {
    "distance": lambda recording, names: _norm(_difference(recording, names)),
    "distance_xy": lambda recording, names: _norm(_difference(recording, names)[:, :2]),
    "distance_z": lambda recording, names: np.abs(_difference(recording, names)[:, 2]),
    "height": lambda recording, names: _difference(recording, names)[:, 2],
    "offset": lambda recording, names: _along(_difference(recording, names), names["axis"]),
    "displacement": lambda recording, names: _norm(recording.point(names["of"]) - recording.point(names["of"])[0]),
    "rise": lambda recording, names: recording.point(names["of"])[:, 2] - recording.point(names["of"])[0, 2],
    "angle": _angle,
    "flag": _flag,
    "part": lambda recording, names: np.clip(recording.signal(names["signal"]), 0.0, 1.0),
    "reading": lambda recording, names: recording.signal(names["signal"]),
    "speed": lambda recording, names: _norm(_motion(recording, names)),
    "acceleration": _acceleration,
    "travel": lambda recording, names: _norm(_motion(recording, names)) / float(names["reference"]),
    "time": _time,
}
assert _MEASURES.keys() == QUANTITIES.keys(), "every published quantity has its measure"


def relation_cost(recording: Recording, call: Call) -> Float64:
    """Cost of a relation at each state ``(T+1,)``: zero where it holds, NaN where it cannot be told.

    For relations that accumulate over a stage these are the increments of each step.
    """
    value = recording.quantity(call)
    low, high = call.bounds
    if high < math.inf:
        return np.maximum(0.0, value - high)
    if low > -math.inf:
        return np.maximum(0.0, low - value)
    return value


def holds(recording: Recording, call: Call) -> Float64:
    """1 where a bounded relation holds, 0 where it does not, NaN where it cannot be told, ``(T+1,)``."""
    cost = relation_cost(recording, call)
    return np.where(np.isnan(cost), np.nan, cost <= TOLERANCE)


def truth(recording: Recording, condition: Condition) -> Float64:
    """Truth of a condition at each state in Kleene's three values: 1, 0, or NaN for "cannot be told", ``(T+1,)``."""
    if condition.call is not None:
        return holds(recording, condition.call)
    values = np.stack([truth(recording, operand) for operand in condition.operands])
    if condition.operator == "not":
        return np.asarray(1.0 - values[0])
    if condition.operator == "all":  # np.min spreads NaN; a single certain 0 decides
        return np.where((values == 0.0).any(axis=0), 0.0, values.min(axis=0))
    return np.where((values == 1.0).any(axis=0), 1.0, values.max(axis=0))
