"""Scores of a collection that did not come to its end say how many rollouts are missing."""

import shutil
from pathlib import Path

import pytest

from grape.collect import CollectSettings, run_collect
from grape.preferences import ScoreSettings, run_score, score_trajectories
from grape.store import EpisodeStore
from tests.reporters import Hearing


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    out = tmp_path / "rollouts"
    run_collect(CollectSettings(out=out, suite="toy", tasks="push-block", initial_states="0-3", workers=1))
    return out


def cut(collection: Path, episodes: int) -> None:
    """Leave what a kill would have left."""
    (collection / "done.json").unlink()
    for path in sorted((collection / "store" / "episodes").glob("*.parquet"))[:episodes]:
        path.unlink()


def scored_with(collection: Path, name: str) -> list[str]:
    heard = Hearing()
    summary = run_score(ScoreSettings(store=collection, out=collection.parent / name), heard)
    assert [text for text in heard.warnings if text not in summary["warnings"]] == []
    return heard.warnings


def warned(collection: Path, name: str) -> list[str]:
    return [text for text in scored_with(collection, name) if "did not come to its end" in text]


def test_missing_rollouts_are_counted(collection: Path) -> None:
    assert warned(collection, "whole") == []
    cut(collection, 3)
    [sentence] = warned(collection, "cut")
    assert "3 of 4 rollouts are missing, and what follows is of the 1 that are there" in sentence
    assert str(collection) in sentence
    heard = Hearing()
    score_trajectories(EpisodeStore.open(collection), reporter=heard)
    assert sentence in heard.warnings


def test_a_kill_after_the_last_rollout_lacks_none(collection: Path) -> None:
    cut(collection, 0)
    assert warned(collection, "scores") == []


def test_a_collection_of_an_earlier_release_is_warned_of_without_a_number(collection: Path) -> None:
    cut(collection, 1)
    (collection / "plan.json").unlink()
    [sentence] = warned(collection, "scores")
    assert "so rollouts may be missing" in sentence


@pytest.mark.parametrize("plan", ['{"epis', "[]", '{"episodes": "4"}', '{"episodes": true}'])
def test_a_damaged_plan_stops_nothing(collection: Path, plan: str) -> None:
    cut(collection, 1)
    (collection / "plan.json").write_text(plan)
    [sentence] = warned(collection, "scores")
    assert "so rollouts may be missing" in sentence


def test_where_outcomes_decide_on_further_rollouts_no_number_is_told(tmp_path: Path) -> None:
    """A kill between two rounds leaves all that were planned so far."""
    settings = CollectSettings(
        out=tmp_path / "rollouts", suite="toy", tasks="push-block", initial_states="0-3", samples=4, operators="sloppy",
        mixed_episodes=18, workers=1,
    )  # fmt: skip
    run_collect(settings)
    cut(tmp_path / "rollouts", 0)
    [sentence] = warned(tmp_path / "rollouts", "scores")
    assert "so rollouts may be missing" in sentence


@pytest.mark.parametrize("with_plan", [True, False], ids=["now", "earlier-release"])
def test_an_episode_that_is_gone_from_a_finished_collection_is_missed_and_played_again(
    collection: Path, with_plan: bool
) -> None:
    if not with_plan:
        (collection / "plan.json").unlink()
    settings = CollectSettings(out=collection, suite="toy", tasks="push-block", initial_states="0-3", workers=1)
    path = min((collection / "store" / "episodes").glob("*.parquet"))
    content, summary = path.read_bytes(), (collection / "done.json").read_bytes()
    path.unlink()
    [sentence] = [text for text in scored_with(collection, "few") if "rollouts are missing" in text]
    assert "is not what it was: 1 of 4 rollouts are missing" in sentence
    heard = Hearing()
    run_collect(settings, heard)
    assert any("1 of 4 episodes are gone" in text and "played again" in text for text in heard.warnings)
    assert (path.read_bytes(), (collection / "done.json").read_bytes()) == (content, summary)
    assert not [text for text in scored_with(collection, "whole") if "missing" in text]
    shutil.rmtree(collection / "store")  # to save space
    run_collect(settings)
    assert not (collection / "store").exists()
