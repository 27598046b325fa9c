"""Where mirrors lie, and which address a path in one stands for; see :mod:`grape.core.mirrors`."""

import os
from pathlib import Path
from typing import Any

__all__ = ["ADDRESS_FILE", "address_in_mirror", "are_in_one_mirror", "mirrors_folder", "with_addresses"]

ADDRESS_FILE = "address.txt"
"""File of a mirror that holds its address."""


def mirrors_folder() -> Path:
    """Where mirrors are: ``grape/mirrors`` below ``XDG_CACHE_HOME``, or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "grape" / "mirrors"


def address_in_mirror(path: Path) -> str:
    """The address that a path in a mirror stands for; empty for any other path.

    A store in the folder of its collection is named by that folder, so that both are one mirror.
    """
    parts = path.absolute().parts
    root = mirrors_folder().parts
    if parts[: len(root)] != root or len(parts) < len(root) + 2:
        return ""
    try:
        address = (Path(*parts[: len(root) + 1]) / ADDRESS_FILE).read_text(encoding="utf-8")
    except OSError:
        return ""
    within = parts[len(root) + 2 :]
    return "/".join([address, *(within[:-1] if within[-1:] == ("store",) else within)])


def are_in_one_mirror(path: Path, other: Path) -> bool:
    """Whether two paths lie in the same mirror, so that what is mirrored holds both."""
    depth = len(mirrors_folder().parts) + 1
    parts, others = path.absolute().parts, other.absolute().parts
    return bool(address_in_mirror(path)) and parts[:depth] == others[:depth]


def with_addresses(value: Any) -> Any:
    """A plain value of settings in which the texts of paths in mirrors are the addresses that they stand for."""
    if isinstance(value, dict):
        return {name: with_addresses(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [with_addresses(inner) for inner in value]
    return address_in_mirror(Path(value)) or value if isinstance(value, str) and os.path.isabs(value) else value
