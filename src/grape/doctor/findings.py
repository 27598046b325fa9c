"""What a check of the doctor gives."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level"]

Level = Literal["ok", "warn", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What was looked at, e.g. ``"python"`` or ``"extra train"``.
        level: ``"ok"``; ``"warn"`` where something is slow or not available; ``"error"`` where the work that was asked
            about cannot be done.
        found: What was seen, with versions and sizes.
        fix: The command or step that fixes it; empty where nothing needs fixing.
    """

    name: str
    level: Level
    found: str
    fix: str = ""
