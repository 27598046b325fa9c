"""The page of judges tells what its record holds."""

from pathlib import Path

import pytest

from grape.judges.votes import Vote
from tests.preferences.rollouts import make_store


def test_the_page_tells_what_the_record_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import judges

    page = judges.PAGE.read_text(encoding="utf-8")
    assert judges.with_table(page) == page
    assert page.count("| scripted person, ") == 2 * len(judges.PERSONS)


def test_votes_of_a_run_that_was_killed_are_written_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import judges

    store = make_store(tmp_path / "store", samples=3, tasks=("drawer-open",))
    write, left = judges.append_vote, 2

    def die(folder: Path, vote: Vote) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        write(folder, vote)

    with monkeypatch.context() as patched:
        patched.setattr(judges, "append_vote", die)
        with pytest.raises(KeyboardInterrupt):
            judges.write_votes(tmp_path / "votes", store, 0.95)
    assert not (tmp_path / "votes").exists()
    judges.write_votes(tmp_path / "votes", store, 0.95)
    assert len((tmp_path / "votes" / "scripted-person.jsonl").read_text().splitlines()) == 4 * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "votes"]
