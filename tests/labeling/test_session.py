"""What raters are asked and what is kept: twice sent, sent from two places, changed episodes, damaged files."""

import json
from pathlib import Path
from typing import Any

import pytest

from grape.core.errors import DataError, GrapeError
from grape.judges.votes import Vote, VotesJudge, append_vote, load_votes
from grape.labeling.session import AnsweredError, Cast, Labeling, Undone
from grape.store import EpisodeStore
from tests.labeling.episodes import TOKEN, make_labeling, make_store
from tests.reporters import Hearing


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    return make_store(tmp_path_factory.mktemp("episodes") / "store")


def cast_of(state: dict[str, Any], choice: Any = "left", rater: str = "anna", **marks: Any) -> Cast:
    question = state["question"]
    return Cast(rater, state["vote"], question["left"]["name"], question["right"]["name"], choice, **marks)


def lines(folder: Path, rater: str = "anna") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{rater}.jsonl").read_text().splitlines()]


def test_a_vote_says_what_was_shown_on_the_left(store: EpisodeStore, tmp_path: Path) -> None:
    labeling = make_labeling(store, tmp_path / "votes")
    state = labeling.question("anna")
    sizes = {state["question"][side]["images"] for side in ("left", "right")}
    following = labeling.cast(cast_of(state, "left", left_marks=(5, 1, 5)))
    assert (following["vote"], following["undo"], following["done"], following["total"]) == (2, 1, 1, 12)
    (row,) = lines(tmp_path / "votes")
    metas = {name: store.meta(name) for name in (row["a"], row["b"])}
    assert {meta.steps + 1 for meta in metas.values()} == sizes
    assert metas[row["a"]].steps + 1 == state["question"]["left"]["images"]
    assert (row["choice"], row["marks"]) == ("a", {row["a"]: [1, 5]})
    assert row["checksums"] == {name: store.checksums()[name] for name in metas}
    judge = VotesJudge(tmp_path / "votes", store.checksums(), print)
    assert judge.judge(store.read(row["a"], frames=False), store.read(row["b"], frames=False)).p == 1.0


def test_nothing_that_the_page_knows_tells_who_acted(store: EpisodeStore, tmp_path: Path) -> None:
    text = json.dumps(make_labeling(store, tmp_path / "votes").question("anna"))
    assert not [name for name in store.ids() if name in text]
    assert not [checksum for checksum in store.checksums().values() if checksum in text]
    assert "success" not in text


def test_a_vote_that_is_sent_again_counts_once(store: EpisodeStore, tmp_path: Path) -> None:
    labeling = make_labeling(store, tmp_path / "votes")
    vote = cast_of(labeling.question("anna"), "tie", right_marks=(2,))
    following = labeling.cast(vote)
    assert labeling.cast(vote) == following == labeling.question("anna")
    assert len(lines(tmp_path / "votes")) == 1


def test_two_windows_of_one_rater_count_once(store: EpisodeStore, tmp_path: Path) -> None:
    # Two processes serve one folder: nothing is shared but the file.
    one, other = make_labeling(store, tmp_path / "votes"), make_labeling(store, tmp_path / "votes")
    state = one.question("anna")
    assert other.question("anna") == state
    one.cast(cast_of(state, "left"))
    with pytest.raises(AnsweredError, match="in another window"):
        other.cast(cast_of(state, "right"))
    other.cast(cast_of(other.question("anna"), "right"))
    other.cast(cast_of(other.question("ben"), "right", rater="ben"))
    assert [row["choice"] for row in lines(tmp_path / "votes")] == ["a", "b"]
    assert {name: item.votes for name, item in one.summary().items()} == {"anna": 2, "ben": 1}


def test_only_the_question_that_is_asked_takes_a_vote(store: EpisodeStore, tmp_path: Path) -> None:
    labeling = make_labeling(store, tmp_path / "votes")
    first = labeling.question("anna")
    left, right = (first["question"][side]["name"] for side in ("left", "right"))
    with pytest.raises(AnsweredError, match="not the one that is asked"):
        labeling.cast(Cast("anna", 1, right, left, "left"))  # sides exchanged
    with pytest.raises(AnsweredError, match="not the one that is asked"):
        labeling.cast(Cast("anna", 1, *first["soon"], "left"))  # the next couple
    questions = {name: labeling.question(name) for name in ("ben", "cleo", "dora", "emil", "fritz")}
    other = next(name for name, state in questions.items() if state["question"] != first["question"])
    with pytest.raises(AnsweredError, match="not the one that is asked"):
        labeling.cast(cast_of(first, rater=other))
    second = labeling.cast(cast_of(first))
    with pytest.raises(AnsweredError, match="not the one that is asked"):
        labeling.cast(Cast("anna", second["vote"], left, right, "left"))  # the same again
    assert len(lines(tmp_path / "votes")) == 1


def test_undo_is_a_line_and_its_question_comes_again(store: EpisodeStore, tmp_path: Path) -> None:
    labeling = make_labeling(store, tmp_path / "votes")
    first = labeling.question("anna")
    second = labeling.cast(cast_of(first, "left"))
    labeling.cast(cast_of(second, "bad"))
    back = labeling.undo(Undone("anna", 2))
    assert back["question"] == second["question"]
    assert (back["vote"], back["undo"], back["done"]) == (3, 1, 1)
    assert labeling.undo(Undone("anna", 2)) == back  # sent again
    with pytest.raises(AnsweredError, match="in another window"):
        labeling.cast(cast_of(second, "bad"))  # the vote of the number that was taken back, sent late
    assert labeling.undo(Undone("anna", 1))["question"] == first["question"]
    with pytest.raises(AnsweredError, match="Only the last vote"):
        labeling.undo(Undone("anna", 7))
    labeling.cast(cast_of(labeling.question("anna"), "right"))
    assert [(row["vote"], row["choice"]) for row in lines(tmp_path / "votes")] == [
        (1, "a"),
        (2, "bad"),
        (2, "undo"),
        (1, "undo"),
        (3, "b"),
    ]
    assert [vote.vote for vote in load_votes(tmp_path / "votes", print)["anna"]] == [3]


def test_a_rater_sees_everything_once_and_some_again(store: EpisodeStore, tmp_path: Path) -> None:
    labeling = make_labeling(store, tmp_path / "votes", couples=8, repeats=0.5)
    state = labeling.question("anna")
    count = 0
    while state["question"]:
        assert state["total"] == 12
        # Always the left one: couples that come again are decided otherwise.
        state = labeling.cast(cast_of(state, "skip" if count == 1 else "left"))
        count += 1
    assert (state["done"], state["total"], state["undo"]) == (12, 12, 12)
    summary = labeling.summary()["anna"]
    assert (summary.votes, summary.couples, summary.skipped, summary.left, summary.right) == (12, 7, 1, 11, 0)
    assert (summary.repeated, summary.alike) == (4, 0)
    reopened = make_labeling(store, tmp_path / "votes", couples=8, repeats=0.5)
    assert reopened.question("anna") == state


def test_an_episode_that_changes_is_not_voted_on(tmp_path: Path) -> None:
    store, listener = make_store(tmp_path / "store"), Hearing()
    labeling = make_labeling(store, tmp_path / "votes", warn=listener.warn)
    state = labeling.question("anna")
    kept = labeling.cast(cast_of(state))
    victim = lines(tmp_path / "votes")[0]["a"]
    shown = kept["question"]["left"]["name"]
    make_store(tmp_path / "other", seed=99)
    for name in store.ids():
        file = f"episodes/{name}.parquet"
        (tmp_path / "store" / file).write_bytes((tmp_path / "other" / file).read_bytes())
    with pytest.raises(AnsweredError, match="has changed since it was shown"):
        labeling.cast(cast_of(kept))
    with pytest.raises(DataError, match="cannot be shown"):
        labeling.video(shown)
    assert "has changed" in listener.warnings[-1]
    assert labeling.question("anna")["question"] is None
    assert len(lines(tmp_path / "votes")) == 1
    assert [text for text in listener.warnings if "gone or has changed: it is not shown any more" in text]
    # Opened anew, the old vote does not count and its couple is shown again.
    reopened = make_labeling(EpisodeStore.open(tmp_path / "store"), tmp_path / "votes")
    assert reopened.question("anna")["done"] == 0
    assert reopened.question("anna")["vote"] == 2
    (tmp_path / "store" / "episodes" / f"{victim}.parquet").unlink()
    total = reopened.question("ben")["total"]
    questions = [reopened.question("ben")]
    while questions[-1]["question"]:
        questions.append(reopened.cast(cast_of(questions[-1], "bad", rater="ben")))
    assert len(questions) - 1 == 12 - 3 <= total


def test_a_file_that_a_kill_truncated_goes_on(store: EpisodeStore, tmp_path: Path) -> None:
    labeling = make_labeling(store, tmp_path / "votes")
    state = labeling.cast(cast_of(labeling.question("anna"), "left"))
    path = tmp_path / "votes" / "anna.jsonl"
    whole = path.read_bytes()
    labeling.cast(cast_of(state, "right"))
    for size in range(len(whole), len(path.read_bytes()), 37):
        path.write_bytes((whole + whole)[:size])
        again = make_labeling(store, tmp_path / "votes")
        assert again.question("anna")["question"] == state["question"]
    again.cast(cast_of(state, "right"))
    assert [row["choice"] for row in lines(tmp_path / "votes")] == ["a", "b"]


def test_a_damaged_file_stops_its_rater_alone(store: EpisodeStore, tmp_path: Path) -> None:
    listener = Hearing()
    labeling = make_labeling(store, tmp_path / "votes", warn=listener.warn)
    vote = cast_of(labeling.question("anna"))
    labeling.cast(vote)
    path = tmp_path / "votes" / "anna.jsonl"
    path.write_text("nonsense\n" + path.read_text())
    before = path.read_bytes()
    for work in (lambda: labeling.question("anna"), lambda: labeling.cast(vote)):
        with pytest.raises(DataError, match="file of votes under this name is damaged") as refused:
            work()
        assert str(tmp_path) not in str(refused.value)  # the page shows it
        assert "anna.jsonl, line 1" in listener.warnings.pop()
    assert path.read_bytes() == before
    assert labeling.cast(cast_of(labeling.question("ben"), rater="ben"))["done"] == 1
    assert list(labeling.summary()) == ["ben"]


def test_two_processes_that_write_one_number(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = make_labeling(store, tmp_path / "votes"), make_labeling(store, tmp_path / "votes")
    state = one.question("anna")

    def late(folder: Path, vote: Vote) -> None:
        patched.undo()
        other.cast(cast_of(state, "right"))
        append_vote(folder, vote)

    with monkeypatch.context() as patched:
        patched.setattr("grape.labeling.session.append_vote", late)
        with pytest.raises(AnsweredError, match="in another window"):
            one.cast(cast_of(state, "left"))
    assert [row["choice"] for row in lines(tmp_path / "votes")] == ["b"]
    assert (one.cast_count, other.cast_count) == (0, 1)


def test_the_page_hears_of_no_path_where_a_vote_cannot_be_written(store: EpisodeStore, tmp_path: Path) -> None:
    listener = Hearing()
    labeling = make_labeling(store, tmp_path / "votes", warn=listener.warn)
    state = labeling.question("anna")
    (tmp_path / "votes").touch()
    with pytest.raises(GrapeError) as failed:
        labeling.cast(cast_of(state))
    assert str(failed.value).startswith("It could not be written.")
    assert str(tmp_path / "votes") in listener.warnings[0]


def test_a_vote_of_other_episodes_leaves_the_numbers_alone(store: EpisodeStore, tmp_path: Path) -> None:
    append_vote(tmp_path, Vote("anna", 5, "one", "two", "a", {"one": "1", "two": "2"}))
    labeling = make_labeling(store, tmp_path)
    state = labeling.question("anna")
    assert (state["vote"], state["undo"], state["done"]) == (6, None, 0)
    with pytest.raises(AnsweredError, match="Only the last vote"):
        labeling.undo(Undone("anna", 5))
    assert labeling.cast(cast_of(state))["undo"] == 6


@pytest.mark.parametrize(
    "name", ["", "../anna", "a/b", "<script>alert(1)</script>", "a" * 65, ".anna", "anna\n", "änna"]
)
def test_a_name_that_is_no_file_is_refused(name: str, store: EpisodeStore, tmp_path: Path) -> None:
    labeling = make_labeling(store, tmp_path / "votes")
    with pytest.raises(DataError, match="cannot be a rater's name"):
        labeling.question(name)
    vote = cast_of(labeling.question("anna"), rater=name)
    with pytest.raises(DataError, match="cannot be a rater's name"):
        labeling.cast(vote)
    assert not (tmp_path / "votes").exists()


def test_what_is_no_couple_or_no_mark_is_refused(store: EpisodeStore, tmp_path: Path) -> None:
    labeling: Labeling = make_labeling(store, tmp_path / "votes")
    state = labeling.question("anna")
    left, right = (state["question"][side] for side in ("left", "right"))
    for names in ((left["name"], left["name"]), (left["name"], "0" * 24), (store.ids()[0], store.ids()[1])):
        with pytest.raises(DataError, match="no couple"):
            labeling.cast(Cast("anna", 1, *names, "left"))
    for marks in ((left["images"],), (-1,), tuple(range(60))):
        with pytest.raises(DataError, match="mark"):
            labeling.cast(Cast("anna", 1, left["name"], right["name"], "left", left_marks=marks))
    for number in (0, -1, 2, 10**6):
        with pytest.raises(AnsweredError):
            labeling.cast(Cast("anna", number, left["name"], right["name"], "left"))
    assert not (tmp_path / "votes").exists()
    assert TOKEN not in json.dumps(state)


def test_after_the_end_no_vote_is_taken(store: EpisodeStore, tmp_path: Path) -> None:
    labeling = make_labeling(store, tmp_path / "votes")
    vote = cast_of(labeling.question("anna"))
    following = labeling.cast(vote)
    labeling.close()
    for work in (lambda: labeling.cast(cast_of(following)), lambda: labeling.undo(Undone("anna", 1))):
        with pytest.raises(GrapeError, match="Nothing was kept"):
            work()
    assert len(lines(tmp_path / "votes")) == labeling.summary()["anna"].votes == 1
