"""Asking a judge about couples of episodes: each once, in random order, kept at once."""

import contextlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, ProgramError
from grape.core.events import append_line
from grape.core.files import read_jsonl, write_jsonl
from grape.core.reading import decode, encode, parse_json, read_file
from grape.core.seeds import derive_rng
from grape.core.trajectories import Trajectory
from grape.judges.base import Judge, Judgment
from grape.scorers.program import ProgramRefusalError
from grape.store import Episodes

__all__ = ["JUDGMENTS_FILE", "AskedJudge", "combined", "load_judgments"]

JUDGMENTS_FILE = "judgments.jsonl"
_FIX = "Do not edit the file; delete its folder and run the verb that writes it again."
_FAILURES_IN_A_ROW = 3
_MOST_READ = 8  # episodes with images that are kept in memory


class AskedJudge:
    """A judge with the episodes of a store and a memory of what it answered.

    Which of the two is shown first is drawn for each couple. Asked both ways, a judge whose answers contradict each
    other has decided nothing: the couple is a tie.

    Args:
        judge: The judge; it is not closed.
        episodes: What it compares.
        seed: Of the order in which two episodes are shown.
        both_orders: Whether each couple is shown both ways; some judges ask for it.
        log: File to which answers are appended, so that a run that was killed goes on; None keeps them in memory.
    """

    def __init__(
        self, judge: Judge, episodes: Episodes, *, seed: int = 0, both_orders: bool = False, log: Path | None = None
    ) -> None:
        self._judge, self._episodes, self._seed = judge, episodes, seed
        self._both_orders, self._log = both_orders or judge.both_orders, log
        self._known: dict[tuple[str, str], Judgment] = {} if log is None else dict(_logged(log))
        self._read: OrderedDict[str, Trajectory] = OrderedDict()
        self._failures = 0

    @property
    def answers(self) -> tuple[Judgment, ...]:
        """Every answer, in the order in which they were given."""
        return tuple(self._known.values())

    @property
    def known_couples(self) -> frozenset[frozenset[str]] | None:
        """The couples about which the judge can be asked; None for any."""
        return self._judge.known_couples()

    def compare(self, one: str, other: str) -> Judgment:
        """The judgment of two episodes, as if ``one`` had been shown first.

        Raises:
            ProgramError: An external judge fails at several couples in a row, or refuses to work.
        """
        first, second = sorted((one, other))
        if derive_rng(self._seed, "judge", "order", first, second).integers(2):
            first, second = second, first
        answers = [self.answer(first, second)]
        if self._both_orders:
            answers.append(self.answer(second, first))
        return combined(answers, one, other)

    def answer(self, first: str, second: str) -> Judgment:
        """What the judge says where ``first`` is shown first; see :meth:`compare`."""
        if (first, second) in self._known:
            return self._known[first, second]
        try:
            judgment = self._judge.judge(self._episode(first), self._episode(second))
            self._failures = 0
        except ProgramRefusalError:
            raise
        except ProgramError as error:
            self._failures += 1
            if self._failures == _FAILURES_IN_A_ROW:
                raise
            judgment = Judgment(first, second, None, problem=error.message[:400])
        if (judgment.a, judgment.b) != (first, second) or not 0.0 <= (0.5 if judgment.p is None else judgment.p) <= 1.0:
            raise DataError(
                f"The judge answered {judgment!r:.120} about {first} and {second}.",
                "A judgment names both episodes in the order shown, and p is in [0, 1] or None.",
            )
        self._known[first, second] = judgment
        # What a program failed at is tried again by the next run.
        if self._log is not None and not self._failures:
            append_line(self._log, json.dumps(_row(judgment), sort_keys=True, allow_nan=False))
        return judgment

    def finish(self) -> None:
        """Write all answers into the file, also those of failures, which then are not tried again: the run is over."""
        if self._log is not None:
            write_jsonl(self._log, map(_row, self.answers))

    def _episode(self, name: str) -> Trajectory:
        if name not in self._read:
            self._read[name] = self._episodes.read(name, frames=self._judge.needs_images)
            while len(self._read) > _MOST_READ:
                self._read.popitem(last=False)
        self._read.move_to_end(name)
        return self._read[name]


def combined(answers: list[Judgment], one: str, other: str) -> Judgment:
    """One judgment from the answers to one or both orders: their mean, a tie where they contradict each other.

    Where one of the orders has no answer there is none: the other alone could be a preference for a place.

    Args:
        answers: About ``one`` and ``other``.
        one: Episode whose probability the judgment gives.
        other: The other.
    """
    values = [p for answer in answers if (p := answer.p_of(one)) is not None]
    if len(values) < len(answers):
        problem = next(answer.problem for answer in answers if answer.p is None)
        return Judgment(one, other, None, problem=problem)
    if min(values) < 0.5 < max(values):
        return Judgment(one, other, 0.5, "its answers to the two orders contradict each other")
    return Judgment(one, other, sum(values) / len(values), answers[0].reason)


def load_judgments(path: Path) -> tuple[Judgment, ...]:
    """Read the answers of a finished run.

    Raises:
        DataError: The file is missing, or a line is no judgment; file and line are named.
    """
    rows = enumerate(read_jsonl(path, hint=_FIX, within=path.parent), start=1)
    judgments = [decode(Judgment, row, f"{path}, line {number}", _FIX) for number, row in rows]
    for number, judgment in enumerate(judgments, start=1):
        if judgment.p is not None and not 0.0 <= judgment.p <= 1.0:
            raise DataError(f"{path}, line {number}: p is {judgment.p:g}, which is no probability.", _FIX)
    return tuple(judgments)


def _row(judgment: Judgment) -> dict[str, Any]:
    """JSON value; texts that say nothing are left out."""
    row: dict[str, Any] = encode(judgment)
    return {name: value for name, value in row.items() if value != ""}


def _logged(log: Path) -> Iterator[tuple[tuple[str, str], Judgment]]:
    """Answers that an earlier run kept; its last line may be truncated."""
    if not log.is_file():
        return
    for line in read_file(log, max_bytes=2**30, within=log.parent).split(b"\n"):
        with contextlib.suppress(DataError):
            judgment = decode(Judgment, parse_json(line, str(log)), str(log))
            yield (judgment.a, judgment.b), judgment
