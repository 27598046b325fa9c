"""Things that stand where a sound file is due: no files at all, endless ones, links, parts of files."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

SPARSE_BYTES = 20 * 10**9


def remove(path: Path) -> None:
    """Remove whatever stands at ``path``, so that the sound file that it may share its bytes with stays as it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def replace(path: Path, data: bytes | str) -> None:
    """Put a new file with these bytes at ``path``."""
    remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)


def _sparse(path: Path) -> None:
    remove(path)
    with path.open("wb") as handle:
        handle.truncate(SPARSE_BYTES)


def _sparse_tail(path: Path) -> None:
    """The sound file, followed by 20 GB of nothing."""
    data = path.read_bytes()
    remove(path)
    with path.open("wb") as handle:
        handle.write(data)
        handle.truncate(SPARSE_BYTES)


def _socket(path: Path) -> None:
    remove(path)
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{here}/{path.name}")  # the path itself may be too long for a socket's address
    os.close(here)


def _fifo(path: Path) -> None:
    remove(path)
    os.mkfifo(path)


def _folder(path: Path) -> None:
    remove(path)
    path.mkdir()


def _link(target: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        remove(path)
        path.symlink_to(target)

    return make


def _loop(path: Path) -> None:
    remove(path)
    path.symlink_to(f"{path.name}.other")
    path.with_name(f"{path.name}.other").symlink_to(path.name)


def _link_out(path: Path) -> None:
    """The sound file lies in another folder, and a link leads to it."""
    elsewhere = path.parent.parent / f"elsewhere-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def cut(share: float) -> Callable[[Path], None]:
    """The first part of the sound file."""

    def make(path: Path) -> None:
        data = path.read_bytes()
        replace(path, data[: int(len(data) * share)])

    return make


def flip(share: float) -> Callable[[Path], None]:
    """16 bytes of the sound file, at this share of its length, are inverted."""

    def make(path: Path) -> None:
        data = bytearray(path.read_bytes())
        start = int(max(len(data) - 16, 0) * share)
        for place in range(start, min(start + 16, len(data))):
            data[place] ^= 0xFF
        replace(path, bytes(data))

    return make


def content(data: bytes | str) -> Callable[[Path], None]:
    """A file with these bytes."""
    return lambda path: replace(path, data)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "missing": remove,
    "named pipe": _fifo,
    "link to /dev/zero": _link("/dev/zero"),
    "link to /proc/self/mem": _link("/proc/self/mem"),
    "folder": _folder,
    "20 GB sparse": _sparse,
    "20 GB sparse tail": _sparse_tail,
    "socket": _socket,
    "link loop": _loop,
    "dangling link": _link("nothing-here"),
    "link to its folder": _link("."),
    "link out of the folder": _link_out,
    "empty": content(b""),
    "zeros": content(bytes(4096)),
    "first half": cut(0.5),
}
"""Independent of what the file should hold."""

DAMAGED: dict[str, Callable[[Path], None]] = {
    "all but the end": cut(0.98),
    "first 10 %": cut(0.1),
    "flipped beginning": flip(0.0),
    "flipped early": flip(0.1),
    "flipped middle": flip(0.5),
    "flipped late": flip(0.9),
    "flipped end": flip(1.0),
    "noise": content(bytes((i * 7919 + i // 251) % 256 for i in range(8192))),
    "escapes": content(b"\x1b]0;title\x07\x1b[31m" * 64),
}
"""For binary formats."""
