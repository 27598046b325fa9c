"""Samples, with the fields that a preference needs."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Trajectory:
    frames: Any = None
    frames_shape: tuple | None = None
    task: str | None = None
    id: str | None = None
    metadata: dict[str, Any] | None = field(default=None)


@dataclass
class PreferenceSample:
    chosen_trajectory: Trajectory
    rejected_trajectory: Trajectory
    sample_type: str = "preference"
