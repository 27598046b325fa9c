"""Files of votes: what a kill left of a line, and two places in which one rater votes."""

import json
from pathlib import Path

import pytest

from grape.core.errors import DataError
from grape.judges.votes import Vote, append_vote, load_votes
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
