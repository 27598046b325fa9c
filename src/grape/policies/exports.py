"""A policy that is ready to be written for other programs: what a policy type gives to the verb ``export``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["PolicyExport", "PolicySource"]


@dataclass(frozen=True)
class PolicySource:
    """Files of a policy.

    Attributes:
        folder: Folder of the checkpoint or adapter.
        base: Folder of the adapter's base; None for a whole checkpoint.
        base_name: What the adapter calls its base: a path or a name on the hub; empty for a whole checkpoint.
        hashes: SHA-256 of every file that matters, by ``policy/NAME`` and ``base/NAME``.
    """

    folder: Path
    base: Path | None
    base_name: str
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class PolicyExport:
    """What was found out of a policy before anything is written.

    Attributes:
        source: Its files.
        base: Name of the policy that the result descends from, or belongs to: a path or a name on the hub.
        description: What the result is and how it is loaded, in Markdown.
        statistics: Names of its normalization statistics.
        write: Writes all files of the result into an existing folder, where they appear one by one.
        layers: Full names of the layers of an adapter.
        warning: What users of other programs would not expect; empty for nothing.
        identity: What decides the result's files beside the source's.
    """

    source: PolicySource
    base: str
    description: str
    statistics: tuple[str, ...]
    write: Callable[[Path], None]
    layers: tuple[str, ...] = ()
    warning: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)
