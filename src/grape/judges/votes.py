"""Votes of people: the file format, and the judge that they make together.

A folder of votes has one file a rater, ``RATER.jsonl``, that is only ever appended to, one vote a line::

    {"a": "...", "b": "...", "choice": "a", "checksums": {"...": "...", "...": "..."}, "rater": "anna", "vote": 3}

``choice`` is ``a``, ``b``, ``tie``, ``bad`` (both are bad: a tie between two that nobody should imitate), ``skip`` or
``undo``; ``vote`` counts from 1, and an ``undo`` takes back the vote whose number it repeats. The checksums are those
of both episodes when they were seen: a vote for an episode that has changed since does not count. ``marks``, where
there are some, are the states at which an episode went wrong.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from grape.core.errors import DataError, GrapeError
from grape.core.events import append_line
from grape.core.files import make_folder, sync_folder
from grape.core.reading import decode, encode, parse_json, read_file, record
from grape.core.trajectories import Trajectory
from grape.judges.base import Judge, Judgment
from grape.judges.known_orders import recorded_id

__all__ = [
    "Choice",
    "NumberTakenError",
    "RaterVotes",
    "Vote",
    "VotesJudge",
    "append_vote",
    "check_rater",
    "count_votes",
    "load_votes",
    "read_votes",
    "sync_votes",
    "usual_votes_folder",
    "votes_identity",
]

Choice = Literal["a", "b", "tie", "bad", "skip", "undo"]

_P: Mapping[str, float] = {"a": 1.0, "b": 0.0, "tie": 0.5, "bad": 0.5}
_RATER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MOST_VOTES = 10**9
_FIX = "Take the line out, or restore the file from a copy."


class NumberTakenError(DataError):
    """The rater has another vote of that number already."""


@record
@dataclass(frozen=True)
class Vote:
    """One decision of one rater.

    Attributes:
        rater: Who decided: letters, digits, ``-``, ``_`` and dots, as the file is called.
        vote: Number of the vote among those of the rater, from 1.
        a: Episode on the first side.
        b: The other.
        choice: What was decided.
        checksums: Checksum of both episodes when they were seen, by id.
        marks: States at which an episode went wrong, by its id: 0 is before the first control step.
    """

    rater: str
    vote: int
    a: str
    b: str
    choice: Choice
    checksums: Mapping[str, str]
    marks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class RaterVotes:
    """The file of one rater.

    Attributes:
        standing: Votes that were not taken back, by number, in the order in which they were cast.
        highest: Highest number that was ever given, 0 without votes.
        truncated: Bytes of a last line that a kill truncated.
    """

    standing: Mapping[int, Vote] = field(default_factory=dict)
    highest: int = 0
    truncated: int = 0


def check_rater(name: str) -> None:
    """Refuse a name that cannot be a file's.

    Raises:
        DataError: It holds other characters than letters, digits, ``-``, ``_`` and dots, or is too long.
    """
    if not _RATER.fullmatch(name):
        raise DataError(
            f"{name!r:.80} cannot be a rater's name.",
            "Take up to 64 letters from a to z (large or small), digits, - and _, a letter or digit first.",
        )


def append_vote(folder: Path, vote: Vote) -> None:
    """Add a vote to its rater's file and bring it to the disk.

    What a kill left of a last line is cut off: only whole lines were ever acknowledged. A vote that the file holds
    already, and an undo of a vote that does not stand, add nothing.

    Raises:
        DataError: The rater's name cannot be a file's, the file is damaged, or the number is out of range.
        NumberTakenError: The rater has another vote of that number.
        GrapeError: The file cannot be written.
    """
    check_rater(vote.rater)
    path = folder / f"{vote.rater}.jsonl"
    _check_number(vote, str(path))
    try:
        make_folder(folder)
    except OSError as error:
        raise GrapeError(f"{folder} cannot be made: {error.strerror}.", "Choose another folder.") from error
    with _locked(path) as descriptor:
        votes = _read_votes(path)
        known = votes.standing.get(vote.vote)
        if known == vote if vote.choice != "undo" else known is None:
            _sync(path, descriptor)  # whoever wrote it may have been killed before it was on the disk
            return
        if vote.choice != "undo" and known is not None:
            raise NumberTakenError(
                f"{path} holds a vote number {vote.vote} already: the same rater votes in two places at once.",
                "Go on in one of them, after loading it anew.",
            )
        size = os.fstat(descriptor).st_size - votes.truncated
        if votes.truncated:
            os.ftruncate(descriptor, size)
        try:
            append_line(path, json.dumps(_row(vote), sort_keys=True))
            os.fsync(descriptor)
        except (GrapeError, OSError) as error:
            # Sent again it must be written again, not taken for one that is on the disk.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            if isinstance(error, GrapeError):
                raise
            raise GrapeError(f"{path} cannot be written: {error.strerror}.", "Free space, then vote again.") from error
        if not size:
            sync_folder(folder)  # the file may be new


def sync_votes(folder: Path, rater: str) -> None:
    """Bring what a rater's file holds to the disk, as before a vote that is there already is acknowledged.

    Raises:
        DataError: The name cannot be a file's.
        GrapeError: The file cannot be written.
    """
    check_rater(rater)
    path = folder / f"{rater}.jsonl"
    with _locked(path) as descriptor:
        _sync(path, descriptor)


def _sync(path: Path, descriptor: int) -> None:
    try:
        os.fsync(descriptor)
        sync_folder(path.parent)
    except OSError as error:
        raise GrapeError(f"{path} cannot be written: {error.strerror}.", "Free space, then vote again.") from error


def _check_number(vote: Vote, where: str) -> None:
    if not 1 <= vote.vote <= _MOST_VOTES:
        raise DataError(f"{where}: the number of a vote must be 1 to {_MOST_VOTES:,}.", _FIX)


def _row(vote: Vote) -> dict[str, Any]:
    """JSON value; a vote without marks does not name them."""
    row: dict[str, Any] = encode(vote)
    return {name: value for name, value in row.items() if name != "marks" or value}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Descriptor of a rater's file, which is made when absent, while nobody else adds to it."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise GrapeError(
            f"{path} cannot be written: {error.strerror}.", "Remove it, or choose another folder."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def read_votes(folder: Path, rater: str) -> RaterVotes:
    """Votes of one rater; none where there is no file of that name.

    Raises:
        DataError: The name cannot be a file's, or a line is no vote; file and line are named.
    """
    check_rater(rater)
    path = folder / f"{rater}.jsonl"
    return _read_votes(path) if os.path.lexists(path) else RaterVotes()


def _read_votes(path: Path) -> RaterVotes:
    """What a rater's file holds.

    Raises:
        DataError: A line is no vote, or two votes have one number; file and line are named.
    """
    *lines, truncated = read_file(path, within=path.parent).split(b"\n")  # empty where the last line is whole
    by_number: dict[int, Vote] = {}
    highest = 0
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        vote = _vote_of(line, where)
        if vote.rater != path.stem or not _RATER.fullmatch(vote.rater):
            raise DataError(f"{where}: the vote is of rater {vote.rater!r:.80}.", _FIX)
        _check_number(vote, where)
        highest = max(highest, vote.vote)
        if vote.choice == "undo":
            by_number.pop(vote.vote, None)
        elif vote.vote in by_number:
            raise DataError(f"{where}: a vote number {vote.vote} is there already.", _FIX)
        else:
            by_number[vote.vote] = vote
    return RaterVotes(by_number, highest, len(truncated))


@functools.lru_cache(maxsize=2**14)  # files only grow, and are read again for every vote
def _vote_of(line: bytes, where: str) -> Vote:
    return decode(Vote, parse_json(line, where, hint=_FIX), where, _FIX)


def load_votes(folder: Path, warn: Callable[[str], None], *, skip_damaged: bool = False) -> dict[str, list[Vote]]:
    """The votes that count of every rater, without those that were taken back.

    A last line that was truncated by a kill is left out with a warning; any other line that is no vote is an error.

    Args:
        folder: Folder of the raters' files.
        warn: Hears of what does not count.
        skip_damaged: Leave a damaged file out with a warning, and accept a folder without votes.

    Raises:
        DataError: The folder holds no votes, or a line is no vote; file and line are named.
    """
    votes: dict[str, list[Vote]] = {}
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
        try:
            of_rater = _read_votes(path)
        except DataError as error:
            if not skip_damaged:
                raise
            warn(f"{error.message} The votes of {path.stem!r:.80} do not count. {error.hint}")
            continue
        if of_rater.truncated:
            warn(f"{path} ends in the middle of a line: that vote was never brought to the disk and does not count.")
        votes[path.stem] = list(of_rater.standing.values())
    if not votes and not skip_damaged:
        raise DataError(f"{folder} holds no votes.", "Give the folder with the raters' files, RATER.jsonl.")
    return votes


def usual_votes_folder(place: Path) -> Path:
    """Where ``grape label`` keeps votes unless told otherwise: beside a folder of scores, or beside a store."""
    return place.resolve().parent / "votes"


def votes_identity(folder: Path) -> dict[str, str]:
    """Hash of each rater's file."""
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    return {path.stem: hashlib.sha256(read_file(path, within=folder)).hexdigest() for path in files}


def count_votes(
    folder: Path, checksums: Mapping[str, str], warn: Callable[[str], None], *, skip_damaged: bool = False
) -> dict[str, tuple[Judgment, ...]]:
    """What each rater decided of couples as they are now, by rater; a couple decided more than once counts as the mean.

    Couples are shown again with the sides exchanged: whoever takes one side each time has decided nothing.

    Args:
        folder: Folder of the raters' files.
        checksums: Of the episodes as they are now; votes for others do not count.
        warn: Hears of votes that do not count.
        skip_damaged: See :func:`load_votes`.

    Raises:
        DataError: There are no votes, or they are damaged.
    """
    counted: dict[str, tuple[Judgment, ...]] = {}
    stale = 0
    # Raters know an episode by the id of its store, which stores that are tried together may share.
    names: dict[tuple[str, str | None], str]
    names = {(recorded_id(name, checksum), checksum): name for name, checksum in checksums.items()}
    for rater, votes in load_votes(folder, warn, skip_damaged=skip_damaged).items():
        decisions: dict[tuple[str, ...], list[float]] = {}
        for vote in votes:
            a, b = (names.get((name, vote.checksums.get(name))) for name in (vote.a, vote.b))
            if a is None or b is None or vote.checksums.keys() != {vote.a, vote.b}:
                stale += 1
            elif vote.choice in _P:
                p = _P[vote.choice]
                decisions.setdefault(tuple(sorted((a, b))), []).append(p if a < b else 1.0 - p)
        counted[rater] = tuple(Judgment(a, b, sum(ps) / len(ps)) for (a, b), ps in decisions.items())
    if stale:
        one = stale == 1
        which = f"1 vote in {folder} is" if one else f"{stale} votes in {folder} are"
        warn(f"{which} for episodes that are gone or have changed: {'it does' if one else 'they do'} not count.")
    return counted


class VotesJudge(Judge):
    """What people decided: the mean of their votes; no answer where nobody voted.

    Args:
        folder: Folder of the raters' files.
        checksums: Of the episodes as they are now; votes for others do not count.
        warn: Hears of votes that do not count.

    Raises:
        DataError: There are no votes, or they are damaged.
    """

    def __init__(self, folder: Path, checksums: Mapping[str, str], warn: Callable[[str], None]) -> None:
        self._by_rater = count_votes(folder, checksums, warn)
        self._votes: dict[tuple[str, ...], list[Judgment]] = {}
        for judgments in self._by_rater.values():
            for judgment in judgments:
                self._votes.setdefault(tuple(sorted((judgment.a, judgment.b))), []).append(judgment)

    def judge(self, a: Trajectory, b: Trajectory) -> Judgment:
        """The share of the raters for the first, ties counting half."""
        one, other = a.meta.episode_id, b.meta.episode_id
        votes = [p for vote in self._votes.get(tuple(sorted((one, other))), ()) if (p := vote.p_of(one)) is not None]
        if not votes:
            return Judgment(one, other, None, problem="nobody voted on these two")
        return Judgment(one, other, sum(votes) / len(votes), f"{len(votes)} vote{'s' * (len(votes) > 1)}")

    def known_couples(self) -> frozenset[frozenset[str]]:
        """The couples on which somebody voted."""
        return frozenset(map(frozenset, self._votes))

    def provenance(self) -> Mapping[str, Any]:
        """On how many couples each rater's votes count."""
        return {"raters": {rater: len(judgments) for rater, judgments in self._by_rater.items()}}
