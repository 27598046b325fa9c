"""Scores of a file of which memory holds what ranks them alone."""

from pathlib import Path

import pytest

from grape.core.errors import DataError
from grape.core.files import write_jsonl
from grape.preferences import PairSettings, ScoreSettings, read_pairs, run_pair, run_score, score_trajectories
from grape.preferences.memory import make_pairs
from grape.preferences.records import ScoreFile, load_scores, score_to_row
from grape.store import EpisodeStore
from tests.preferences.rollouts import make_score, make_stage, make_store, without_curves


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    run_score(ScoreSettings(store=make_store(folder / "store", states=6, samples=6).path, out=folder / "scores"))
    return folder


def test_stages_are_read_when_they_are_asked_for(scored: Path) -> None:
    path = scored / "scores" / "scores.jsonl"
    file, whole = ScoreFile(path), load_scores(path)
    assert list(file) == list(file.brief) == list(whole)
    assert not any(score.stages for score in file.brief.values())
    assert file.brief == {name: without_stages(score) for name, score in whole.items()}
    for name in list(whole)[::-7]:
        assert file[name] == whole[name]


def without_stages(score):
    return type(score)(**{**vars(score), "stages": ()})


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    scores = [make_score("a", stages=(make_stage("reach", 0.25),)), make_score("b")]
    write_jsonl(path, map(score_to_row, scores))
    file = ScoreFile(path)
    assert file["a"] == without_curves(scores[0])
    write_jsonl(path, map(score_to_row, scores[1:]))
    with pytest.raises(DataError, match=r"scores\.jsonl has changed"):
        file["a"]


def test_an_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grape.core.files._LONGEST_LINE", 1000)
    path = tmp_path / "scores.jsonl"
    write_jsonl(path, [score_to_row(make_score("a"))])
    with path.open("ab") as handle:
        handle.write(b"\0" * 1001)
    with pytest.raises(DataError, match=r"line 2: it has more than 1,000 bytes"):
        ScoreFile(path)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mode": "best-worst", "cut": "stage"},
        {"mode": "top-bottom", "stage_wise": True},
        {"mode": "every-success"},
        {"rejected": "random"},
        {"judge": "success", "mode": "random"},
    ],
    ids=str,
)
def test_pairs_are_those_of_whole_scores(scored: Path, tmp_path: Path, settings: dict) -> None:
    run_pair(PairSettings(scores=scored / "scores", out=tmp_path / "out", **settings))
    in_memory = make_pairs(score_trajectories(EpisodeStore.open(scored / "store")), **settings)
    assert read_pairs(tmp_path / "out") == in_memory.pairs
    assert in_memory.pairs
