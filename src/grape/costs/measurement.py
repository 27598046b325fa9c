"""Quantities measured on a recording: vectorized over its ``T + 1`` states, NaN where a keypoint or signal is lost."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import DataError
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.costs.formulas import Call, Condition
from grape.costs.specification import KeypointSource
from grape.costs.vocabulary import QUANTITIES

__all__ = ["MEASURES", "TOLERANCE", "Recording", "holds", "relation_cost", "truth"]

Float64 = npt.NDArray[np.float64]

TOLERANCE = 1e-6
"""Costs up to this count as zero when a relation is asked whether it holds: keypoints are recorded as float32."""


_WORLD = np.eye(2)


class Recording:
    """Keypoints and signals of one trajectory in float64, with measured quantities kept for reuse.

    Args:
        trajectory: What was recorded; images are not looked at.
        limit: The task's limit in steps, for times.
        sources: Keypoints that do not have the recording's own name.
    """

    def __init__(self, trajectory: Trajectory, limit: int, sources: Sequence[KeypointSource] = ()) -> None:
        self.rows = trajectory.steps + 1
        self.limit = limit
        self._trajectory = trajectory
        self._sources = {source.name: source for source in sources}
        self._points: dict[str, Float64] = {}
        self._measured: dict[tuple[str, tuple[tuple[str, str | float], ...]], Float64] = {}

    def point(self, name: str | float) -> Float64:
        """Keypoint ``(T+1, 3)`` in meters; a state with any coordinate that is not finite is NaN as a whole."""
        name = str(name)
        if name not in self._points:
            source = self._sources.get(name)
            if source is not None and source.mean_of:
                parts = np.stack([self.point(part) for part in source.mean_of])
                self._points[name] = parts.mean(axis=0) + np.asarray(source.offset)
            else:
                recorded = name if source is None else source.recorded
                point = np.asarray(self._trajectory.keypoints[recorded], dtype=np.float64)
                known = np.isfinite(point).min(axis=1, keepdims=True)
                self._points[name] = point if known.all() else np.where(known, point, np.nan)
        return self._points[name]

    def level(self, axis: int, arguments: "_Arguments") -> Float64:
        """How far 'of' lies to the right of (``axis`` 0) or behind (1) 'to' in the frame, meters ``(T+1,)``."""
        direction = _frame_axes(str(arguments["frame"]), self._trajectory.meta)[axis]
        along: Float64 = _difference(self, arguments)[:, :2] @ direction
        return along

    def signal(self, name: str | float) -> Float64:
        """Signal ``(T+1,)``, NaN where it is not finite."""
        signal = np.asarray(self._trajectory.signals[str(name)], dtype=np.float64)
        return np.where(np.isfinite(signal), signal, np.nan)

    def quantity(self, call: Call) -> Float64:
        """The relation's quantity at each state ``(T+1,)``; increments for quantities that accumulate."""
        key = (call.word.quantity, call.measured)
        if key not in self._measured:
            self._measured[key] = MEASURES[call.word.quantity](self, dict(call.measured))
        return self._measured[key]


_Arguments = dict[str, str | float]


def _frame_axes(frame: str, meta: EpisodeMeta) -> Float64:
    """Directions "right" and "behind" of a frame as rows of unit length in the world's x and y, ``(2, 2)``.

    For the camera, "right" is where things move to the right in the recorded image (whose columns may run against the
    camera's x axis: then the first focal length is negative), and "behind" is the way the camera looks, level with the
    ground; for a camera that looks straight down, the way its image's upper edge points.

    Args:
        frame: One of :data:`grape.costs.vocabulary.FRAMES`.
        meta: Facts of the episode; ``extra["camera"]`` holds ``pose``, 4 x 4, from the camera's axes (x right, y down,
            z forward) to the world, and ``intrinsic``, 3 x 3.

    Raises:
        DataError: The camera is asked for and the episode does not hold a sound one.
    """
    if frame == "world":
        return _WORLD
    camera = meta.extra.get("camera")
    try:
        return _level_axes(camera if isinstance(camera, Mapping) else {})
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"Episode {meta.episode_id} holds no sound camera pose, which the cost specification speaks of.",
            "Use frame 'world', or record episodes with a suite that notes its camera.",
        ) from error


def _level_axes(camera: Mapping[str, Any]) -> Float64:
    rotation = np.asarray(camera["pose"], dtype=np.float64)[:3, :3]
    mirrored = float(np.asarray(camera["intrinsic"], dtype=np.float64)[0, 0]) < 0.0
    right = rotation[:2, 0] * (-1.0 if mirrored else 1.0)
    away = rotation[:2, 2] - rotation[:2, 1]  # forward and image-up point the same way once level
    axes = np.stack([right, away])
    length = np.linalg.norm(axes, axis=1, keepdims=True)
    if not np.isfinite(axes).all() or (length < 1e-6).any():
        raise ValueError("the camera's axes are not level with anything")
    level: Float64 = axes / length
    return level


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


def _line(recording: Recording, start: str | float, end: str | float) -> Float64:
    """Direction of the line between two keypoints ``(T+1, 3)``; NaN where they coincide."""
    direction = recording.point(end) - recording.point(start)
    length = _norm(direction)[:, None]
    return np.divide(direction, length, out=np.full_like(direction, np.nan), where=length > 1e-9)


def _degrees(cosine: Float64) -> Float64:
    angle: Float64 = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    return angle


def _angle(recording: Recording, arguments: _Arguments) -> Float64:
    return _degrees(_along(_line(recording, arguments["of"], arguments["to"]), arguments["axis"]))


def _bend(recording: Recording, arguments: _Arguments) -> Float64:
    one = _line(recording, arguments["of"], arguments["to"])
    other = _line(recording, arguments["base"], arguments["tip"])
    return _degrees(np.einsum("ij,ij->i", one, other))


def _turn(recording: Recording, arguments: _Arguments) -> Float64:
    line = _line(recording, arguments["of"], arguments["to"])
    return _degrees(line @ line[0])


def _protrusion(recording: Recording, arguments: _Arguments) -> Float64:
    reach = np.array([float(arguments[axis]) for axis in "xyz"])
    beyond: Float64 = (np.abs(_difference(recording, arguments)) - reach).max(axis=1)
    return beyond


def _overhang(recording: Recording, arguments: _Arguments) -> Float64:
    difference = _difference(recording, arguments)
    height = difference[:, 2]
    aside = _norm(difference[:, :2]) - float(arguments["within"])
    return np.maximum(aside, np.maximum(height - float(arguments["by"]), -height))


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


MEASURES: dict[str, Callable[[Recording, _Arguments], Float64]] = {
    "distance": lambda recording, names: _norm(_difference(recording, names)),
    "distance_xy": lambda recording, names: _norm(_difference(recording, names)[:, :2]),
    "distance_z": lambda recording, names: np.abs(_difference(recording, names)[:, 2]),
    "height": lambda recording, names: _difference(recording, names)[:, 2],
    "offset": lambda recording, names: _along(_difference(recording, names), names["axis"]),
    "rightward": lambda recording, names: recording.level(0, names),
    "backward": lambda recording, names: recording.level(1, names),
    "protrusion": _protrusion,
    "overhang": _overhang,
    "displacement": lambda recording, names: _norm(recording.point(names["of"]) - recording.point(names["of"])[0]),
    "rise": lambda recording, names: recording.point(names["of"])[:, 2] - recording.point(names["of"])[0, 2],
    "angle": _angle,
    "bend": _bend,
    "turn": _turn,
    "flag": _flag,
    "part": lambda recording, names: np.clip(recording.signal(names["signal"]), 0.0, 1.0),
    "reading": lambda recording, names: recording.signal(names["signal"]),
    "speed": lambda recording, names: _norm(_motion(recording, names)),
    "acceleration": _acceleration,
    "travel": lambda recording, names: _norm(_motion(recording, names)) / float(names["reference"]),
    "time": _time,
}
"""How each quantity of the vocabulary is measured."""

assert MEASURES.keys() == QUANTITIES.keys(), "every published quantity has its measure"


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


def truth(recording: Recording, condition: Condition, start: int = 0) -> Float64:
    """Truth of a condition at each state in Kleene's three values: 1, 0, or NaN for "cannot be told", ``(T+1,)``.

    Operators over time look back from each state to ``start``, where the stage began, because a stage must be known to
    be done when it is: ``eventually`` is "has held", ``always`` "has held throughout" and ``until`` "has held up to a
    state at which the other did".

    Args:
        recording: What was recorded.
        condition: The formula.
        start: State from which operators over time count; values before it mean nothing for them.
    """
    if condition.call is not None:
        return holds(recording, condition.call)
    values = np.stack([truth(recording, operand, start) for operand in condition.operands])
    if condition.operator == "not":
        return np.asarray(1.0 - values[0])
    if condition.operator == "all":
        return _minimum(values)
    if condition.operator == "any":
        return 1.0 - _minimum(1.0 - values)
    since = values[:, start:]
    result = np.full(recording.rows, np.nan)
    if condition.operator == "always":
        result[start:] = _throughout(since[0])
    elif condition.operator == "eventually":
        result[start:] = 1.0 - _throughout(1.0 - since[0])
    else:
        before = np.concatenate([[1.0], _throughout(since[0])[:-1]])
        reached = _minimum(np.stack([before, since[1]]))
        result[start:] = 1.0 - _throughout(1.0 - reached)
    return result


def _minimum(values: Float64) -> Float64:
    """Kleene's "and" over the first axis: a certain 0 decides, else NaN spreads."""
    return np.where((values == 0.0).any(axis=0), 0.0, values.min(axis=0))


def _throughout(values: Float64) -> Float64:
    """Kleene's "and" of all values up to each place."""
    return np.where(np.logical_or.accumulate(values == 0.0), 0.0, np.minimum.accumulate(values))
