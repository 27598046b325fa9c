"""One Gymnasium environment behind :class:`~grape.envs.base.Environment`: its observations as snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import GrapeError, SettingsError, SimulatorError
from grape.core.images import lanczos3
from grape.envs.base import Snapshot
from grape.envs.gymnasium_options import RENDER, TERMINATED, GymnasiumTask

__all__ = ["GymnasiumEnvironment", "Layout", "entries_of"]


@dataclass(frozen=True)
class Layout:
    """Where a snapshot's parts stand in the observation.

    Attributes:
        image: Entry of the main image, or :data:`~grape.envs.gymnasium_options.RENDER`.
        proprio: Entries of the robot's state, in order.
        low: Lower bounds of the actions, ``(D,)``.
        high: Upper bounds, ``(D,)``.
        dtype: Type of numbers that the environment takes.
    """

    image: str
    proprio: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dtype: str = "float32"
    cameras: Mapping[str, str] = field(default_factory=dict)


def entries_of(value: Any, name: str = "") -> dict[str, Any]:
    """Entries of an observation, or of a space of observations, by their path: ``a/b`` is entry ``b`` of entry ``a``.

    An observation that is no mapping is the one entry ``""``.
    """
    parts = getattr(value, "spaces", value)
    if not isinstance(parts, Mapping):
        return {name: value}
    entries: dict[str, Any] = {}
    for key, part in parts.items():
        entries.update(entries_of(part, f"{name}/{key}" if name else str(key)))
    return entries


class GymnasiumEnvironment:
    """See :class:`~grape.envs.base.Environment`: initial state ``n`` is ``reset(seed=n)``.

    Every number, image and name that the environment gives is checked, so that a fault of it is told as one.

    Args:
        env: What ``gymnasium.make`` gave.
        task: What is known of it.
        layout: Where its observations hold what.
    """

    def __init__(self, env: Any, task: GymnasiumTask, layout: Layout) -> None:
        self._env = env
        self._task = task
        self._layout = layout
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._names: dict[str, frozenset[str]] = {}
        self._tells_success = False
        self._over = True

    def reset(self, initial_state: int) -> Snapshot:
        """Start from ``reset(seed=initial_state)``.

        Raises:
            SettingsError: There is no such initial state.
            SimulatorError: The environment raises, or gives what it must not.
        """
        if not 0 <= initial_state < self._task.initial_states:
            raise SettingsError(
                f"{self._task.id} has no initial state {initial_state}.",
                f"Choose from 0 to {self._task.initial_states - 1}.",
            )
        self._names, self._tells_success, self._over = {}, False, False
        answer = self._call("reset", lambda: self._env.reset(seed=int(initial_state)))
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise self._fault("reset gave no pair of observation and info", "It may follow the older interface of gym.")
        return self._snapshot(answer[0], answer[1], 0.0, terminated=False, truncated=False)

    def step(self, action: npt.NDArray[np.float32]) -> Snapshot:
        """Apply one action, float32 ``(D,)``, clipped to the action space.

        Raises:
            SimulatorError: The environment raises, gives what it must not, or ended the episode before.
        """
        if self._over:
            raise self._fault("step was called after the episode's end", "Call reset first.")
        clipped = np.clip(np.asarray(action, np.float64), self._layout.low, self._layout.high)
        answer = self._call("step", lambda: self._env.step(clipped.astype(self._layout.dtype)))
        if not (isinstance(answer, tuple) and len(answer) == 5):
            raise self._fault("step gave no tuple of five", "It may follow the older interface of gym.")
        observation, reward, terminated, truncated, info = answer
        return self._snapshot(observation, info, reward, terminated=bool(terminated), truncated=bool(truncated))

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _snapshot(self, observation: Any, info: Any, reward: Any, *, terminated: bool, truncated: bool) -> Snapshot:
        if not isinstance(info, Mapping):
            raise self._fault("info is no mapping")
        self._over = terminated or truncated
        entries = entries_of(observation)
        full = self._image(entries, self._layout.image)
        small = self._resized(full)
        return Snapshot(
            image=small,
            proprio=self._proprio(entries),
            keypoints=self._points(info),
            signals={"reward": self._number("reward", reward), **self._signals(info)},
            success=self._success(info, terminated),
            display=None if small is full else full,
            privileged=dict(info),
            cameras={name: self._resized(self._image(entries, key)) for name, key in self._layout.cameras.items()},
            terminated=self._over,
        )

    def _image(self, entries: Mapping[str, Any], key: str) -> npt.NDArray[np.uint8]:
        image = self._call("render", self._env.render) if key == RENDER else self._entry(entries, key)
        if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3):
            kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise self._fault(f"the image {key!r} is {kind}, not uint8 (H, W, 3)")
        if self._shapes.setdefault(key, image.shape) != image.shape:
            raise self._fault(f"the image {key!r} is {image.shape} after {self._shapes[key]}")
        return np.array(image)  # environments may draw the next one into the same memory

    def _resized(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        size = self._task.image_size
        return image if size in (0, max(image.shape[:2])) else lanczos3(image, size, size)

    def _proprio(self, entries: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        if not self._layout.proprio:
            return np.zeros(0, np.float32)
        parts = [np.asarray(self._entry(entries, key), np.float32).reshape(-1) for key in self._layout.proprio]
        state = np.concatenate(parts)
        if not np.isfinite(state).all():
            raise self._fault("the robot's state in the observation is not finite (NaN or infinite)")
        return state

    def _points(self, info: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
        points = {}
        for name, value in self._named(info, self._task.keypoints).items():
            point = np.array(value, np.float32)
            if point.shape != (3,):
                raise self._fault(f"keypoint {name!r} has the shape {point.shape}, not (3,)")
            if not np.isfinite(point).all():
                raise self._fault(f"keypoint {name!r} is not finite")
            points[str(name)] = point
        return points

    def _signals(self, info: Mapping[str, Any]) -> dict[str, float]:
        named = self._named(info, self._task.signals)
        return {str(name): self._number(f"signal {name!r}", value) for name, value in named.items()}

    def _named(self, info: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        """A table in ``info``; its names must be those of the reset, since every state of an episode has them."""
        table = info.get(key, {})
        if not isinstance(table, Mapping):
            raise self._fault(f"info[{key!r}] is {type(table).__name__}, no mapping by name")
        names = self._names.setdefault(key, frozenset(map(str, table)))
        if names != frozenset(map(str, table)):
            raise self._fault(f"info[{key!r}] has the names {sorted(map(str, table))} after {sorted(names)}")
        return table

    def _success(self, info: Mapping[str, Any], terminated: bool) -> bool | None:
        """Whether the task is solved; where ``info`` told before, an end without a word is a failure."""
        if self._task.success == TERMINATED:
            return terminated
        key = next((key for key in self._task.success_keys if info.get(key) is not None), None)
        if key is None:
            return False if terminated and self._tells_success else None
        self._tells_success = True
        return self._number(f"info[{key!r}]", info[key]) > 0.5

    def _number(self, name: str, value: Any) -> float:
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise self._fault(f"{name} is {value!r:.80}, no finite number")
        return float(array.reshape(()))

    def _entry(self, entries: Mapping[str, Any], key: str) -> Any:
        if key not in entries:
            raise self._fault(f"the observation has no entry {key!r}, which its space has")
        return entries[key]

    def _call(self, what: str, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except GrapeError:
            raise
        except Exception as error:
            raise self._fault(f"{what} raised {type(error).__name__}: {error}") from error

    def _fault(self, what: str, hint: str = "Fix the environment.") -> SimulatorError:
        return SimulatorError(f"Gymnasium environment {self._task.id}: {what}.", hint)
