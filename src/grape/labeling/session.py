"""What raters are asked and what they answered, between the page's requests and the files of votes.

Nothing is remembered but what the files hold: each request reads its rater's file, so that a process that was killed
loses nothing, and two of them may serve one folder.
"""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grape.core.errors import DataError, GrapeError, printable
from grape.core.reading import record
from grape.judges.raters import RaterSummary, summary_of
from grape.judges.votes import (
    Choice,
    NumberTakenError,
    RaterVotes,
    Vote,
    append_vote,
    check_rater,
    load_votes,
    read_votes,
    sync_votes,
)
from grape.labeling.choosing import Answer, Plan, Question, next_question, remaining
from grape.labeling.videos import VIDEO_FPS, EpisodeVideos
from grape.report.videos import frames_per_second
from grape.store import EpisodeStore

__all__ = ["AnsweredError", "Cast", "Labeling", "Rater", "Undone"]

_MOST_MARKS = 50


class AnsweredError(GrapeError):
    """A question that was answered in another place, or cannot be answered any more: the page goes on with the next."""


@record
@dataclass(frozen=True)
class Rater:
    """Who is at the page.

    Attributes:
        rater: The name.
    """

    rater: str


@record
@dataclass(frozen=True)
class Cast:
    """A vote as the page sends it.

    Attributes:
        rater: Who decided.
        vote: Number of the question.
        left: Name of the episode on the left.
        right: Name of the other.
        choice: What was decided.
        left_marks: States at which the left one went wrong.
        right_marks: The same of the other.
    """

    rater: str
    vote: int
    left: str
    right: str
    choice: Literal["left", "right", "tie", "bad", "skip"]
    left_marks: tuple[int, ...] = ()
    right_marks: tuple[int, ...] = ()


@record
@dataclass(frozen=True)
class Undone:
    """A vote that the page takes back.

    Attributes:
        rater: Whose vote it is.
        vote: Its number.
    """

    rater: str
    vote: int


class Labeling:
    """Questions for raters, and their votes; several threads may ask.

    Args:
        store: The episodes.
        plan: What raters are asked.
        folder: The raters' files.
        videos: The episodes as videos.
        secret: From which the names follow that the page knows episodes by.
        warn: Hears of episodes that cannot be shown.
        hide_length: Show no sign of where the shorter episode ends: it holds its last image.
    """

    def __init__(
        self,
        store: EpisodeStore,
        plan: Plan,
        folder: Path,
        videos: EpisodeVideos,
        secret: bytes,
        warn: Callable[[str], None] = lambda message: None,
        hide_length: bool = False,
    ) -> None:
        self._hide_length = hide_length
        self._store, self._plan, self._folder, self._videos, self._warn = store, plan, folder, videos, warn
        checksums = store.checksums()
        shown = {name for couple in plan.names for name in couple}
        self._checksums = {name: checksums[name] for name in shown}
        self._metas = {meta.episode_id: meta for meta in store.metas() if meta.episode_id in shown}
        # No id or path reaches the page: it could tell who acted.
        self._name_of = {
            name: hashlib.blake2b(name.encode(), key=secret[:64], digest_size=12).hexdigest() for name in shown
        }
        self._by_name = {hidden: name for name, hidden in self._name_of.items()}
        self._couple_of = {frozenset(names): number for number, names in enumerate(plan.names)}
        self._unusable: set[str] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._cast: set[tuple[str, int]] = set()

    @property
    def cast_count(self) -> int:
        """Votes that were cast here and not taken back."""
        return len(self._cast)

    def question(self, rater: str) -> dict[str, Any]:
        """What the page shows this rater now: JSON values.

        Raises:
            DataError: The name cannot be a rater's, or the file is damaged.
        """
        with self._lock:
            return self._question(rater, self._read(rater))

    def cast(self, vote: Cast) -> dict[str, Any]:
        """Keep a vote; returns the next question once it is on the disk. A vote that is there already changes nothing.

        Raises:
            AnsweredError: Another vote of that number is there, an episode has changed since it was shown, or this
                rater is asked another question.
            DataError: The vote is none of a couple that can be shown, or the rater's file is damaged.
            GrapeError: The file cannot be written.
        """
        names = self._by_name.get(vote.left, ""), self._by_name.get(vote.right, "")
        if frozenset(names) not in self._couple_of or len(set(names)) < 2:
            raise DataError("These two episodes are no couple of this run.", "Load the page anew.")
        choices: dict[str, Choice] = {"left": "a", "right": "b", "tie": "tie", "bad": "bad", "skip": "skip"}
        row = Vote(
            rater=vote.rater,
            vote=vote.vote,
            a=names[0],
            b=names[1],
            choice=choices[vote.choice],
            checksums={name: self._checksums[name] for name in names},
            marks={
                name: self._checked_marks(name, marks)
                for name, marks in zip(names, (vote.left_marks, vote.right_marks), strict=True)
                if marks
            },
        )
        with self._lock:
            votes = self._read(vote.rater)
            if votes.standing.get(vote.vote) == row:
                with self._plain_errors():
                    sync_votes(self._folder, vote.rater)
            else:
                self._require_next(vote.vote, votes)
                self._require_unchanged(names)
                self._require_asked(names, vote.rater, votes)
                with self._plain_errors():
                    append_vote(self._folder, row)
                self._cast.add((row.rater, row.vote))
                votes = RaterVotes({**votes.standing, row.vote: row}, row.vote)
            return self._question(vote.rater, votes)

    def undo(self, vote: Undone) -> dict[str, Any]:
        """Take a vote back, by a line of its own; returns the question that it answered, or what is due otherwise.

        Raises:
            AnsweredError: It is not the rater's last vote.
            DataError: The rater's file is damaged.
            GrapeError: The file cannot be written.
        """
        with self._lock:
            votes = self._read(vote.rater)
            last = max(self._answers(votes), default=0)
            if vote.vote == last and last:
                self._require_open()
                row = votes.standing[last]
                with self._plain_errors():
                    append_vote(self._folder, Vote(row.rater, row.vote, row.a, row.b, "undo", row.checksums))
                self._cast.discard((row.rater, row.vote))
                standing = {number: item for number, item in votes.standing.items() if number != last}
                votes = RaterVotes(standing, votes.highest)
            elif not 0 < vote.vote <= votes.highest or vote.vote in votes.standing:
                raise AnsweredError("Only the last vote can be taken back.")
            else:
                with self._plain_errors():
                    sync_votes(self._folder, vote.rater)
            return self._question(vote.rater, votes)

    def video(self, name: str) -> bytes:
        """MP4 of the episode that the page knows by this name.

        Raises:
            DataError: There is no such episode, or it cannot be shown.
        """
        if name not in self._by_name:
            raise DataError("There is no such video.")
        episode_id = self._by_name[name]
        try:
            return self._videos.video(episode_id, self._checksums[episode_id])
        except DataError as error:
            self._warn(f"A video cannot be shown: {error.message}")
            raise DataError("This video cannot be shown.", "Skip this couple.") from error

    def summary(self) -> dict[str, RaterSummary]:
        """What every rater of the folder has done, of what counts for these episodes; damaged files are left out."""
        summaries = {}
        for rater, votes in load_votes(self._folder, lambda message: None, skip_damaged=True).items():
            counted = self._answers(RaterVotes({vote.vote: vote for vote in votes}))
            summaries[rater] = summary_of([vote for vote in votes if vote.vote in counted])
        return summaries

    def close(self) -> None:
        """Wait for the vote that is being written; no further one is taken."""
        with self._lock:
            self._closed = True

    def _read(self, rater: str) -> RaterVotes:
        """A rater's votes; the page hears nothing of paths."""
        check_rater(rater)
        try:
            return read_votes(self._folder, rater)
        except DataError as error:
            self._warn(f"A rater was refused: {error.message} {error.hint}".strip())
            raise DataError(
                "The file of votes under this name is damaged.", "Tell whoever started 'grape label'."
            ) from error

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Tell this process in full, and the page without paths, why a vote was not written."""
        try:
            yield
        except NumberTakenError as error:
            raise AnsweredError("This couple was answered in another window.") from error
        except GrapeError as error:
            self._warn(f"A vote could not be written: {error.message} {error.hint}".strip())
            raise GrapeError("It could not be written.", "Tell whoever started 'grape label'.") from error

    def _question(self, rater: str, votes: RaterVotes) -> dict[str, Any]:
        counted = self._answers(votes)
        answers = list(counted.values())
        question = self._usable_question(rater, answers)
        left = 0 if question is None else remaining(self._plan, answers, self._unusable)
        facts = {
            "vote": votes.highest + 1,
            "undo": max(counted, default=None),
            "done": len(answers),
            "total": len(answers) + left,
        }
        if question is None:
            return facts | {"question": None, "soon": []}
        following = next_question(self._plan, rater, [*answers, Answer(question.couple)], self._unusable)
        sides = {"left": question.left, "right": question.right}
        images = {side: self._metas[name].steps + 1 for side, name in sides.items()}
        shown = {
            "instruction": printable(self._metas[question.left].instruction),
            "rate": frames_per_second(max(images.values())) / VIDEO_FPS,
            "fps": VIDEO_FPS,
            "hide_length": self._hide_length,
            **{side: {"name": self._name_of[name], "images": images[side]} for side, name in sides.items()},
        }
        soon = () if following is None else (following.left, following.right)
        return facts | {"question": shown, "soon": [self._name_of[name] for name in soon]}

    def _usable_question(self, rater: str, answers: Sequence[Answer]) -> Question | None:
        """The next question of which both episodes are what they were."""
        while (question := next_question(self._plan, rater, answers, self._unusable)) is not None:
            if not self._find_changed((question.left, question.right)):
                break
        return question

    def _find_changed(self, names: Sequence[str]) -> bool:
        """Whether an episode is gone or has changed; it is not shown again."""
        for name in names:
            try:
                changed = self._store.checksum(name) != self._checksums[name]
            except DataError:
                changed = True
            if changed and name not in self._unusable:
                self._unusable.add(name)
                self._warn(f"Episode {name} is gone or has changed: it is not shown any more.")
        return not self._unusable.isdisjoint(names)

    def _require_open(self) -> None:
        if self._closed:
            raise GrapeError("Nothing was kept: 'grape label' has ended.", "Start it again.")

    def _require_next(self, number: int, votes: RaterVotes) -> None:
        self._require_open()
        if number != votes.highest + 1:
            raise AnsweredError("This couple was answered in another window.")

    def _require_unchanged(self, names: Sequence[str]) -> None:
        if self._find_changed(names):
            raise AnsweredError("An episode has changed since it was shown: the vote does not count.")

    def _require_asked(self, names: Sequence[str], rater: str, votes: RaterVotes) -> None:
        """Refuse a vote on other episodes, or other sides, than this rater is shown now."""
        question = self._usable_question(rater, list(self._answers(votes).values()))
        if question is None or (question.left, question.right) != tuple(names):
            raise AnsweredError("This couple is not the one that is asked of this rater now.")

    def _checked_marks(self, name: str, marks: Sequence[int]) -> tuple[int, ...]:
        places = tuple(sorted(set(marks)))
        if len(places) > _MOST_MARKS or not all(0 <= place <= self._metas[name].steps for place in places):
            raise DataError("A mark lies outside the episode, or there are too many.", "Load the page anew.")
        return places

    def _answers(self, votes: RaterVotes) -> dict[int, Answer]:
        """Those votes, by number, that are on couples of this run as they are now."""
        return {
            number: Answer(couple, vote.choice != "skip")
            for number, vote in votes.standing.items()
            if (couple := self._couple_of.get(frozenset((vote.a, vote.b)))) is not None
            and vote.checksums.keys() == {vote.a, vote.b}
            and all(self._checksums[name] == mark for name, mark in vote.checksums.items())
        }
