"""Files of votes: what a kill left of a line, and two places in which one rater votes."""

import errno
import json
import os
from pathlib import Path

import pytest

from grape.core.errors import DataError, GrapeError
from grape.judges import parse_judge
from grape.judges.votes import Vote, append_vote, count_votes, load_votes, read_votes
from tests.reporters import Hearing


def vote(number: int, choice: str = "a") -> Vote:
    return Vote("anna", number, "one", "two", choice, {"one": "1", "two": "2"})


def test_a_truncated_vote_costs_itself_alone(tmp_path: Path) -> None:
    listener = Hearing()
    append_vote(tmp_path, vote(1))
    with (tmp_path / "anna.jsonl").open("a") as file:
        file.write('{"a": "one", "b": "tw')  # the kill
    append_vote(tmp_path, vote(2, "b"))
    assert [item.vote for item in load_votes(tmp_path, listener.warn)["anna"]] == [1, 2]
    assert [json.loads(line)["vote"] for line in (tmp_path / "anna.jsonl").read_text().splitlines()] == [1, 2]
    assert listener.warnings == []


def test_a_couple_decided_twice_counts_as_the_mean(tmp_path: Path) -> None:
    checksums = {"one": "1", "two": "2"}
    append_vote(tmp_path, vote(1, "a"))
    append_vote(tmp_path, Vote("anna", 2, "two", "one", "a", checksums))  # the left one both times: no opinion
    (judgment,) = count_votes(tmp_path, checksums, print)["anna"]
    assert judgment.p == 0.5
    append_vote(tmp_path, vote(3, "skip"))
    append_vote(tmp_path, vote(2, "undo"))
    append_vote(tmp_path, Vote("anna", 2, "two", "one", "tie", checksums))
    (judgment,) = count_votes(tmp_path, checksums, print)["anna"]
    assert judgment.p_of("one") == 0.75


def test_a_folder_of_votes_is_called_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    long = "/".join(["very-long-name"] * 8)
    for text, label in ((f"votes:{long}/votes-0.95", "votes-0.95"), ("votes:.", tmp_path.name), ("x=votes:y", "x")):
        assert parse_judge(text).label == label


def test_two_votes_of_one_number_are_refused(tmp_path: Path) -> None:
    append_vote(tmp_path, vote(1))
    with pytest.raises(DataError, match="holds a vote number 1 already"):
        append_vote(tmp_path, vote(1, "b"))
    append_vote(tmp_path, vote(1, "undo"))
    append_vote(tmp_path, vote(1, "b"))
    assert [item.choice for item in load_votes(tmp_path, print)["anna"]] == ["b"]
    with (tmp_path / "anna.jsonl").open("a") as file:
        file.write((tmp_path / "anna.jsonl").read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError, match=r"anna\.jsonl, line 4: a vote number 1 is there already"):
        load_votes(tmp_path, print)


def test_a_vote_that_did_not_reach_the_disk_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_vote(tmp_path, vote(1))
    before = (tmp_path / "anna.jsonl").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(GrapeError, match="No space left"):
            append_vote(tmp_path, vote(2))
    assert (tmp_path / "anna.jsonl").read_bytes() == before
    append_vote(tmp_path, vote(2))
    assert list(read_votes(tmp_path, "anna").standing) == [1, 2]


def test_equal_lines_are_written_once(tmp_path: Path) -> None:
    for item in (vote(1), vote(1), vote(1, "undo"), vote(1, "undo"), vote(7, "undo")):
        append_vote(tmp_path, item)
    lines = (tmp_path / "anna.jsonl").read_text().splitlines()
    assert [json.loads(line)["choice"] for line in lines] == ["a", "undo"]
    assert read_votes(tmp_path, "anna").highest == 1
    assert read_votes(tmp_path, "ben").highest == 0


def test_marks_are_kept_and_may_be_absent(tmp_path: Path) -> None:
    marked = Vote("anna", 1, "one", "two", "bad", {"one": "1", "two": "2"}, {"two": (3, 9)})
    append_vote(tmp_path, marked)
    append_vote(tmp_path, vote(2))
    assert list(read_votes(tmp_path, "anna").standing.values()) == [marked, vote(2)]
    assert "marks" not in json.loads((tmp_path / "anna.jsonl").read_text().splitlines()[1])


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GrapeError, match="cannot be made"):
        append_vote(tmp_path / "file" / "votes", vote(1))


@pytest.mark.parametrize("number", [0, -1, 10**9 + 1])
def test_numbers_out_of_range_are_refused(number: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="number of a vote must be"):
        append_vote(tmp_path, vote(number))
    append_vote(tmp_path, vote(1))
    path = tmp_path / "anna.jsonl"
    path.write_text(path.read_text().replace('"vote": 1', f'"vote": {number}'))
    with pytest.raises(DataError, match=r"anna\.jsonl, line 1: the number of a vote must be"):
        read_votes(tmp_path, "anna")
