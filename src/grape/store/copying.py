"""Copies of episodes from store to store, checked against their checksums on the way."""

import errno
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from grape.core.errors import DataError, GrapeError
from grape.core.files import sync_folder, write_bytes
from grape.core.reading import read_file
from grape.store.encoded import EpisodeFile
from grape.store.episode_file import check_columns
from grape.store.episode_store import EpisodeStore
from grape.store.packs import PackedFile, size_of_place, write_pack

__all__ = ["check_space", "copy_episode", "pack_episodes", "size_of"]

_MOST_BYTES = 2**29  # of an episode's file
_SPARE = 64 * 2**20  # bytes left for the rest of a run


def copy_episode(source: EpisodeStore, episode_id: str, folder: Path, *, link: bool) -> None:
    """Copy an episode's file, or link it, into a store's folder. It appears whole or not at all.

    Args:
        source: Where it is.
        episode_id: Which one.
        folder: The folder of episode files.
        link: Make a hard link: one file in two stores.

    Raises:
        DataError: The file is truncated, altered or that of another episode.
        GrapeError: The disk is full, or the link cannot be made.
    """
    data = _checked(source, episode_id)
    target = folder / f"{episode_id}.parquet"
    if not link:
        write_bytes(target, data)
        return
    path = source.place_of(episode_id)
    if isinstance(path, PackedFile):
        raise GrapeError(
            f"Episode {episode_id} cannot be linked: it is a part of {path.pack}.", "Leave --link out, which copies."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.link(path, target, follow_symlinks=True)
        sync_folder(folder)
    except OSError as error:
        across = error.errno == errno.EXDEV
        raise GrapeError(
            f"{path} cannot be linked to {target}: {error.strerror or error}.",
            "They lie on two file systems: leave --link out." if across else "Leave --link out, which copies.",
        ) from error


def pack_episodes(owners: Mapping[str, EpisodeStore], names: Iterable[str], pack: Path) -> None:
    """Copy the files of some episodes into a new pack, which appears whole or not at all.

    Raises:
        DataError: A file is truncated, altered or that of another episode.
        GrapeError: The disk is full.
    """
    write_pack(pack, ((name, _checked(owners[name], name)) for name in names))


def _checked(source: EpisodeStore, episode_id: str) -> bytes:
    """The bytes of an episode's file, once all of them fit their checksums."""
    place = source.place_of(episode_id)

    if isinstance(place, PackedFile):
        data = place.read()
    else:
        data = read_file(place, max_bytes=_MOST_BYTES, within=place.parent)
    check_columns(data, str(place))
    if (own := EpisodeFile.parse(data, str(place)).meta.episode_id) != episode_id:
        raise DataError(f"Episode file {place} holds episode {own}.", "Restore the file from a copy.")
    return data


def size_of(owners: Mapping[str, EpisodeStore], names: Iterable[str]) -> int:
    """Bytes of the files of some episodes.

    Raises:
        DataError: One is gone.
    """
    return sum(size_of_place(owners[name].place_of(name)) for name in names)


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        folder: Where it is to be written; it need not exist.
        needed: Bytes.

    Raises:
        GrapeError: There is too little space.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed and needed + _SPARE > free:
        raise GrapeError(
            f"{folder} needs {needed / 2**20:,.0f} MiB, and its disk has {free / 2**20:,.0f} MiB left.",
            "Free space, choose another --out, or give --link where the stores lie on the same file system.",
        )
