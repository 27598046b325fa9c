"""A folder of recorded episodes.

Layout::

    store.json                     format version, suite, contract
    episodes/<episode_id>.parquet  one immutable file an episode (see grape.store.episode_file)
    packs/<name>.zip               many such files in one (see grape.store.packs); beside single files or in their place
    .cache/index.jsonl             facts of all episodes; may be deleted at any time

Several processes may write to a store at once, each its own episodes; readers see whole episodes only.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.errors import CompatibilityError, DataError, GrapeError
from grape.core.files import content_hash, read_json, sweep_temporaries, write_bytes, write_json
from grape.core.reading import allowed_root
from grape.core.repositories import local_folder
from grape.core.tables import Table
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.store.encoded import EpisodeFile
from grape.store.episode_file import read_decisions, read_display, read_episode, read_header, read_images
from grape.store.header import check_episode_id, is_episode_id
from grape.store.index import IndexEntry, SharedValues, file_fingerprint, load_index, save_index
from grape.store.packs import EpisodePlace, PackedFile, Packs
from grape.store.source import Decisions

__all__ = ["EpisodeStore"]

_FORMAT = "grape-episode-store"
_FORMAT_VERSION = 1  # of the folder; index and episode files have their own
_HEADER = "store.json"
_SUFFIX = ".parquet"


class EpisodeStore(Table):
    """Episodes of one suite under one contract. Use :meth:`create` or :meth:`open`.

    Attributes:
        path: The store's folder.
        suite: The suite's registered name.
        contract: JSON facts on which all episodes of the store agree: action space, image preprocessing, camera,
            versions.
        packs: Its packs.
    """

    def __init__(self, path: Path, suite: str, contract: Mapping[str, Any]) -> None:
        self.path = path
        self.suite = suite
        self.contract = contract
        self.packs = Packs(path / "packs")
        self._entries: dict[str, IndexEntry] = {}
        self._stored: dict[str, IndexEntry] = {}  # what the index on disk held when it was read or written last
        self._values = SharedValues()

    def __repr__(self) -> str:
        return f"EpisodeStore({str(self.path)!r}, suite={self.suite!r})"

    @property
    def parts(self) -> "tuple[EpisodeStore, ...]":
        """The stores that this one consists of: itself, see :mod:`grape.store.combined`."""
        return (self,)

    def part_of(self, episode_id: str) -> "EpisodeStore":
        """The one of :attr:`parts` that an episode is in."""
        return self

    @property
    def place(self) -> str:
        """Where the episodes are, for messages."""
        return ", ".join(str(part.path) for part in self.parts)

    def place_of(self, episode_id: str) -> EpisodePlace:
        """Where the bytes of one episode's file are.

        Raises:
            DataError: There is no such episode, or a pack is damaged.
        """
        place = self._find(episode_id)
        if place is None:
            raise self._missing(episode_id)
        return place

    @classmethod
    def create(cls, path: Path, suite: str, contract: Mapping[str, Any]) -> "EpisodeStore":
        """Make a store, or join the one that is there.

        Half-written files that a killed process left behind are swept away when joining.

        Args:
            path: The folder; made when absent.
            suite: The suite's registered name.
            contract: JSON facts that all episodes must share.

        Raises:
            CompatibilityError: A store of another suite or contract is there.
            DataError: The folder holds something else.
            GrapeError: The folder cannot be written.
        """
        expected = json.loads(json.dumps(dict(contract), allow_nan=False))
        if not (path / _HEADER).exists():
            if path.exists() and (not path.is_dir() or any(entry.name[0] != "." for entry in path.iterdir())):
                raise DataError(f"{path} is not empty and no episode store.", "Choose another folder.")
            write_json(
                path / _HEADER,
                {"format": _FORMAT, "format_version": _FORMAT_VERSION, "suite": suite, "contract": expected},
            )
        store = cls.open(path)
        if store.suite != suite:
            raise CompatibilityError(
                f"Store {path} holds episodes of suite '{store.suite}', not '{suite}'.", "Choose another folder."
            )
        if content_hash(store.contract) != content_hash(expected):
            keys = sorted({*store.contract, *expected})
            differing = [key for key in keys if store.contract.get(key) != expected.get(key)]
            first = differing[0] if differing else "contract"
            raise CompatibilityError(
                f"Store {path} was made under another contract; it differs in {', '.join(differing)}: "
                f"{first} was {json.dumps(store.contract.get(first))}, now {json.dumps(expected.get(first))}.",
                "Episodes of different contracts cannot be mixed: choose another folder.",
            )
        for folder in (path, path / "episodes", path / "packs", path / ".cache"):
            sweep_temporaries(folder)  # a writer whose file is taken away fails loudly, it loses nothing
        return store

    @classmethod
    def open(cls, path: Path | str) -> "EpisodeStore":
        """Open an existing store; an output folder of ``grape collect`` stands for the store in it.

        Args:
            path: The folder, or ``hf://NAMESPACE/NAME`` with or without ``@REVISION``.

        Raises:
            SettingsError: The hub does not give what is named.
            DataError: There is no store, or its header is damaged.
            CompatibilityError: A newer version of the package made it.
        """
        path = local_folder(path)
        if not (path / _HEADER).exists() and (path / "store" / _HEADER).exists():
            path = path / "store"
        if not path.exists():
            raise DataError(f"Episode store {path} does not exist.", "Check the path, or run 'grape collect' first.")
        if not (path / _HEADER).exists():
            raise DataError(
                f"{path} is no episode store: {_HEADER} is missing.",
                "Give the folder that 'grape collect' or 'grape import' wrote.",
            )
        header = read_json(path / _HEADER, hint="Restore it from a copy.", within=path)
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise DataError(f"{path / _HEADER} is not the header of an episode store.", "Check the path.")
        version = header.get("format_version")
        if isinstance(version, int) and version > _FORMAT_VERSION:
            raise CompatibilityError(
                f"Store {path} has format version {version}; the newest known here is {_FORMAT_VERSION}.",
                "Install a newer release of GRAPE.",
            )
        suite, contract = header.get("suite"), header.get("contract")
        if not isinstance(version, int) or not isinstance(suite, str) or not isinstance(contract, dict):
            raise DataError(f"{path / _HEADER} is damaged.", "Restore it from a copy, or collect into another folder.")
        return cls(path, suite, contract)

    def write(self, trajectory: Trajectory) -> None:
        """Add an episode. It appears whole or not at all; a damaged file of the same id is replaced.

        Writing an equal episode again does nothing.

        Raises:
            DataError: The store has another episode under this id, or the trajectory cannot be stored.
            CompatibilityError: The episode is of another suite.
            GrapeError: The disk is full or the folder cannot be written.
        """
        self.write_file(EpisodeFile.encode(trajectory))

    def write_file(self, file: EpisodeFile) -> None:
        """Add an episode that is encoded already, as :meth:`write` does.

        Raises:
            DataError: The store has another episode under this id.
            CompatibilityError: The episode is of another suite.
            GrapeError: The disk is full or the folder cannot be written.
        """
        meta = file.meta
        if meta.suite != self.suite:
            raise CompatibilityError(
                f"Episode {meta.episode_id} is of suite '{meta.suite}'; store {self.path} holds '{self.suite}'."
            )
        place = self._find(meta.episode_id)
        if place is not None and _problem(place) is None:
            if read_header(place).checksum == file.checksum:
                return
            raise DataError(
                f"Store {self.path} has another episode {meta.episode_id} already; episodes never change.",
                "Write to another store, or move the old file away.",
            )
        write_bytes(self._file(meta.episode_id), file.data)  # a damaged one in a pack is no longer found then

    def __contains__(self, episode_id: object) -> bool:
        return isinstance(episode_id, str) and self._find(episode_id) is not None

    def __len__(self) -> int:
        return len(self.ids())

    def ids(self) -> tuple[str, ...]:
        """Ids of all episodes, sorted.

        Raises:
            DataError: A pack is damaged.
        """
        try:
            names = os.listdir(self.path / "episodes")
        except FileNotFoundError:
            names = []
        ids = {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)}
        return tuple(
            sorted({episode_id for episode_id in ids if is_episode_id(episode_id)} | self.packs.files().keys())
        )

    def meta(self, episode_id: str) -> EpisodeMeta:
        """Facts of one episode.

        Raises:
            DataError: There is no such episode, or its file is damaged.
        """
        return self._entry(episode_id).meta

    def metas(self) -> tuple[EpisodeMeta, ...]:
        """Facts of all episodes in the order of their ids; fast, through the index.

        Raises:
            DataError: A file is damaged; it is named.
        """
        return tuple(entry.meta for entry in self._all_entries().values())

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        """One mapping an episode, for tables."""
        names = ("episode_id", "task", "instruction", "initial_state", "sample", "success", "steps", "actor")
        return ({name: getattr(meta, name) for name in names} for meta in self.metas())

    def digest(self) -> str:
        """Hash of everything recorded, in 64 hexadecimal digits: equal for stores of equal episodes.

        Raises:
            DataError: A file's header is damaged. The arrays are not read; :meth:`verify` does that.
        """
        return content_hash(self.checksums())

    def checksums(self) -> dict[str, str]:
        """Checksum of each episode by id, which covers everything recorded.

        Raises:
            DataError: A file's header is damaged.
        """
        return {name: entry.checksum for name, entry in self._all_entries().items()}

    def checksum(self, episode_id: str) -> str:
        """Checksum of one episode as it is now.

        Raises:
            DataError: There is no such episode, or its header is damaged.
        """
        return self._entry(episode_id).checksum

    def read(self, episode_id: str, *, frames: bool = True, display: bool = False) -> Trajectory:
        """Read an episode, checked against its checksums.

        Args:
            episode_id: Which one.
            frames: Whether to decode the images; without them ``frames`` is ``(T+1, 0, 0, 3)`` and reading takes
                well under a millisecond for a short episode.
            display: Whether to decode the images for people; None where none were recorded.

        Raises:
            DataError: There is no such episode, or its file is damaged.
            CompatibilityError: A newer version of the package wrote it.
        """
        return read_episode(self.place_of(episode_id), frames=frames, display=display)

    def decisions(self, episode_id: str) -> Decisions:
        """The decisions of an episode, checked against their checksums; no image is read.

        Raises:
            DataError: There is no such episode, or its file is damaged.
            CompatibilityError: A newer version of the package wrote it.
        """
        return read_decisions(self.place_of(episode_id))

    def images(self, episode_id: str, decisions: Sequence[int], camera: str = "") -> npt.NDArray[np.uint8]:
        """Images before some decisions of an episode, in that order, uint8 ``(B, H, W, 3)``; no other is decoded.

        Args:
            episode_id: Which one.
            decisions: Positions on the decision axis.
            camera: Name of a further camera; empty for the main one.

        Raises:
            DataError: There is no such episode, or its file is damaged where it was read.
            CompatibilityError: A newer version of the package wrote it.
        """
        return read_images(self.place_of(episode_id), decisions, camera)

    def display_files(self, episode_id: str) -> tuple[bytes, ...]:
        """The images for people of an episode as they are stored, one JPEG each; none where none were recorded.

        Raises:
            DataError: There is no such episode, or its file is damaged.
            CompatibilityError: A newer version of the package wrote it.
        """
        return read_display(self.place_of(episode_id))

    def verify(self) -> list[str]:
        """Read everything and list what is wrong, one sentence a problem; an empty list is good news."""
        problems = []
        try:
            ids = self.ids()
        except DataError as error:
            return [error.message]
        for place in map(self.place_of, ids):
            problem = _problem(place)
            if problem is not None:
                problems.append(problem)
            elif (suite := read_header(place).meta.suite) != self.suite:
                problems.append(f"Episode file {place} is of suite '{suite}', not '{self.suite}'.")
        known = {self._file(episode_id) for episode_id in ids} | set(self.packs.paths())
        for folder in (self.path / "episodes", self.path / "packs"):
            for entry in sorted(folder.iterdir()) if folder.exists() else ():
                if entry not in known:
                    kind = "half-written by a process that was killed" if entry.name[0] == "." else "no episode"
                    problems.append(f"File {entry} is {kind}.")
        return problems

    def _file(self, episode_id: str) -> Path:
        """The single file that an episode is written to."""
        check_episode_id(episode_id)
        return self.path / "episodes" / (episode_id + _SUFFIX)

    def _find(self, episode_id: str) -> EpisodePlace | None:
        """Where an episode is, single files first; None where it is not."""
        if not is_episode_id(episode_id):
            return None
        path = self._file(episode_id)
        return path if path.is_file() else self.packs.find(episode_id)

    def _missing(self, episode_id: str) -> DataError:
        return DataError(
            f"Store {self.place} has no episode '{episode_id}'.",
            f"Episodes it holds: {len(self.ids())}. Restore that one's file, or collect and score again.",
        )

    @property
    def _index(self) -> Path:
        return self.path / ".cache" / "index.jsonl"

    def _entry(self, episode_id: str) -> IndexEntry:
        """Entry of one file: from memory if the file is still the same, else from its header."""
        place = self.place_of(episode_id)
        try:
            fingerprint = place.fingerprint if isinstance(place, PackedFile) else file_fingerprint(place)
        except OSError as error:
            raise DataError(f"Episode file {place} cannot be read: {error.strerror or error}.") from error
        known = self._entries.get(episode_id)
        if known is None or known.fingerprint != fingerprint:
            header = read_header(place)
            known = IndexEntry(fingerprint, header.checksum, self._values.shared(header.meta))
            self._entries[episode_id] = known
        return known

    def _all_entries(self) -> dict[str, IndexEntry]:
        """Entries of all files by sorted id; the index on disk is brought up to date."""
        ids = self.ids()
        if any(episode_id not in self._entries for episode_id in ids):
            self._stored = load_index(self._index, self._values)
            self._entries = {**self._entries, **self._stored}
        entries = {episode_id: self._entry(episode_id) for episode_id in ids}
        self._entries = entries
        if entries != self._stored and allowed_root(self.path) == self.path:  # the hub's cache holds what the hub has
            save_index(self._index, entries)
            self._stored = entries
        return entries


def _problem(place: EpisodePlace) -> str | None:
    """What is wrong with an episode file, all of it being read; None if nothing is."""
    try:
        read_episode(place, frames=True, display=True)
    except GrapeError as error:
        return error.message
    return None
