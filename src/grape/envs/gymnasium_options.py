"""What the adapter has to know of a Gymnasium environment, and how ``--suite gym:...`` names one.

``gym:ID`` names an environment by its id, as ``gymnasium.make`` takes it (``gym:MODULE:ID`` imports a module first);
``gym:FILE.yaml`` a file with the fields of :class:`GymnasiumTask`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grape.core.errors import SettingsError
from grape.core.reading import decode, parse_yaml, read_file, record
from grape.core.tasks import plain_name
from grape.envs.registry import GYMNASIUM_PREFIX

__all__ = ["RENDER", "TERMINATED", "GymnasiumTask", "read_reference", "task_name"]

RENDER = "render"
"""As the image's entry: what the environment's ``render`` gives."""

TERMINATED = "terminated"
"""As the key of success: the environment ends an episode where it is solved, and nowhere else."""

_HINT = "For example gym:my_package:MyEnv-v0, or gym:my-env.yaml with 'id: my_package:MyEnv-v0' in it."


@record
@dataclass(frozen=True)
class GymnasiumTask:
    """One Gymnasium environment as a task. Only ``id`` is needed where the environment follows the usual names.

    Attributes:
        id: What ``gymnasium.make`` takes: ``ID`` or ``MODULE:ID``.
        kwargs: Further arguments of ``gymnasium.make``.
        instruction: What the policy is told; by default the environment's attribute ``instruction``, else the words of
            its id.
        max_steps: Actions after which an episode ends; 0 takes ``max_episode_steps`` of the environment's registration.
        initial_states: How many there are; initial state ``n`` is ``reset(seed=n)``.
        image: Entry of the observation with the policy's image, uint8 ``(H, W, 3)``; ``a/b`` is entry ``b`` of entry
            ``a``, and ``render`` what ``render()`` gives. By default the only such entry, else ``render``.
        cameras: Entries of further cameras by name.
        image_size: Side in pixels that images are resized to; 0 keeps them. The main one is then recorded in full as
            the display image.
        proprio: Entries with the robot's state, separated by commas: ``auto`` for all that are vectors of floats, in
            the order of the observation space, ``none`` for none.
        success: Key of ``info`` that tells success; by default ``success`` or ``is_success``. ``terminated`` for
            environments that end an episode where it is solved and nowhere else.
        keypoints: Key of ``info`` with points in meters by name.
        signals: Key of ``info`` with numbers by name.
        action_names: One a dimension; the last one is called ``gripper`` where there is one.
        gripper: What the last dimension means, e.g. ``"+1 closes"``; ``none`` where it is no gripper.
        rotation: What dimensions 3 to 5 mean: ``axis-angle``, ``roll-pitch-yaw`` or ``none``.
        control_hz: Actions a second; 0 takes the environment's ``render_fps``, else 10.
    """

    id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    instruction: str = ""
    max_steps: int = 0
    initial_states: int = 1_000_000
    image: str = ""
    cameras: Mapping[str, str] = field(default_factory=dict)
    image_size: int = 0
    proprio: str = "auto"
    success: str = ""
    keypoints: str = "keypoints"
    signals: str = "signals"
    action_names: tuple[str, ...] = ()
    gripper: str = "none"
    rotation: str = "none"
    control_hz: float = 0.0

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("max_steps", self.max_steps, 0, 1_000_000),
            ("initial_states", self.initial_states, 1, 2**31),
            ("image_size", self.image_size, 0, 4096),
            ("control_hz", self.control_hz, 0, 100_000),
        ):
            if not least <= value <= most:
                raise SettingsError(f"{self.id}: {name} is {value}.", f"It must be from {least} to {most}.")
        if not self.id:
            raise SettingsError("No Gymnasium environment is named.", _HINT)

    @property
    def success_keys(self) -> tuple[str, ...]:
        """Keys of ``info`` that may tell success, the first one that is there counts."""
        return (self.success,) if self.success else ("success", "is_success")

    @property
    def digest(self) -> str:
        """Equal for equal options."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_reference(name: str) -> GymnasiumTask:
    """The environment that the name of a suite stands for.

    Args:
        name: ``gym:ID``, ``gym:MODULE:ID`` or ``gym:FILE.yaml``.

    Raises:
        SettingsError: No environment is named.
        DataError: The file is missing, no YAML, or has unknown fields or values of another kind.
    """
    place = name[len(GYMNASIUM_PREFIX) :]
    if not place.endswith((".yaml", ".yml")):
        return GymnasiumTask(place)
    document = parse_yaml(read_file(Path(place)), place, hint=_HINT)
    return decode(GymnasiumTask, document, place, hint=_HINT)


def task_name(environment_id: str) -> str:
    """Name of the task that is made of an environment."""
    return plain_name(environment_id.rpartition(":")[2])
