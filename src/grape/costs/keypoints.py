"""Where the keypoints of a specification come from: a recording's own names, an image, a tracker, other keypoints.

A plain name stands for the keypoint of that name in the recording. The richer form says more, so that whoever reads
the specification (or records the episodes for it) knows which point in the scene is meant.
"""

from dataclasses import dataclass
from typing import Literal

__all__ = ["PROVENANCES", "KeypointSource", "image_keypoint"]

PROVENANCES = ("object", "picture", "track", "mean_of")
"""What a keypoint's richer form may name as its origin: exactly one of these fields."""


@dataclass(frozen=True)
class KeypointSource:
    """Where one keypoint of a specification comes from.

    Attributes:
        name: What the specification calls it.
        kind: ``"object"``: a simulator's object or place, recorded under the simulator's name. ``"picture"``: a point
            that was numbered on the image shown to a model. ``"track"``: a point that a tracker followed through the
            images, recorded under the tracker's name. ``"mean_of"``: computed from other keypoints.
        recorded: Its name in recordings; empty for ``"mean_of"``.
        number: The number on the image, from 0; None for other kinds.
        mean_of: Names of the specification's keypoints whose mean it is.
        offset: Added to the mean, metres along the world's axes.
        description: For people.
    """

    name: str
    kind: Literal["object", "picture", "track", "mean_of"]
    recorded: str = ""
    number: int | None = None
    mean_of: tuple[str, ...] = ()
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    description: str = ""


def image_keypoint(number: int) -> str:
    """Name under which recordings hold the point with this number on the image, e.g. ``"point_3"``."""
    return f"point_{number}"
