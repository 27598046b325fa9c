"""Where mirrors lie, and which address a path in one stands for; see :mod:`grape.core.remote.mirrors`."""

import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grape.core.errors import SettingsError

__all__ = [
    "ADDRESS_FILE",
    "address_in_mirror",
    "address_led_to",
    "are_in_one_mirror",
    "mirrors_folder",
    "refuse_beside_mirror",
    "with_addresses",
]

ADDRESS_FILE = "address.txt"
"""File of a mirror that holds its address."""


def mirrors_folder() -> Path:
    """Where mirrors are: ``grape/mirrors`` below ``XDG_CACHE_HOME``, or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "grape" / "mirrors"


def address_in_mirror(path: Path) -> str:
    """The address that a path in a mirror stands for; empty for any other path.

    A store in the folder of its collection is named by that folder, so that both are one mirror.
    """
    address, within = _split(path)
    return "/".join([address, *(within[:-1] if within[-1:] == ("store",) else within)]) if address else ""


def address_led_to(folder: Path, name: str) -> str:
    """The address that a relative path leads to from a folder in a mirror, where it leads out of it; else empty.

    Commands that wrote the path mirrored more: in a run both places lay in one mirror, of which another command needs a
    part alone.
    """
    address, within = _split(folder)
    if not address or posixpath.isabs(name):
        return ""
    protocol, _, root = address.partition("://")
    target = posixpath.normpath("/".join([root, *within, name]))
    if target == root or target.startswith((f"{root}/", "..")) or target == ".":
        return ""
    return f"{protocol}://{target}"


def are_in_one_mirror(path: Path, other: Path) -> bool:
    """Whether two paths lie in the same mirror, so that what is mirrored holds both."""
    address = _split(path)[0]
    return bool(address) and address == _split(other)[0]


def with_addresses(value: Any) -> Any:
    """A plain value of settings or results, with addresses for the paths in mirrors that stand for them.

    Other machines have mirrors in other places, so that nothing that is uploaded may name a folder in one.
    """
    if isinstance(value, Mapping):
        return {name: with_addresses(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [with_addresses(inner) for inner in value]
    named = isinstance(value, str | Path) and os.path.isabs(value)
    return address_in_mirror(Path(value)) or value if named else value


def refuse_beside_mirror(folder: Path, what: str, flag: str) -> None:
    """Refuse to write beside what was fetched from an address, whence it would never go up.

    Args:
        folder: What is read, or where is to be written.
        what: What is to be written, e.g. ``"the page"``.
        flag: How to say where else, e.g. ``"--out FILE"``.

    Raises:
        SettingsError: The folder lies in a mirror.
    """
    if address := address_in_mirror(folder):
        raise SettingsError(
            f"{what[0].upper()}{what[1:]} would not get to {address}, which is only read here.",
            f"Say where on this machine {what} is to be written: {flag}.",
        )


def _split(path: Path) -> tuple[str, tuple[str, ...]]:
    """The address of the mirror that a path lies in, and the path's parts within it; empty where it lies in none."""
    parts = path.absolute().parts
    for root in (mirrors_folder(), mirrors_folder().resolve()):  # a cache may be a link to another disk
        depth = len(root.parts)
        if parts[:depth] == root.parts and len(parts) >= depth + 2:
            try:
                address = (Path(*parts[: depth + 1]) / ADDRESS_FILE).read_text(encoding="utf-8")
            except (OSError, ValueError):  # ValueError: a NUL character
                return "", ()
            return address, parts[depth + 2 :]
    return "", ()
