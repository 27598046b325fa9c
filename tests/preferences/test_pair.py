"""The verb ``pair`` on scores of recorded episodes."""

import shutil
from pathlib import Path

import pytest

from grape.core.errors import CompatibilityError, DataError, NoPairsError, SettingsError
from grape.preferences import PairSettings, ScoreSettings, read_pairs, read_scores, recorded_stores, run_pair, run_score
from tests.preferences.rollouts import make_rollout, make_store


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with ``store`` and ``scores``."""
    root = tmp_path_factory.mktemp("run")
    make_store(root / "store")
    run_score(ScoreSettings(store=root / "store", out=root / "scores"))
    return root


def pair(scores: Path, out: Path, **settings) -> dict:
    return dict(run_pair(PairSettings(scores=scores, out=out, **settings)))


def test_pairs_and_summary(scored: Path, tmp_path: Path) -> None:
    summary = pair(scored / "scores", tmp_path / "out", require_mixed_outcomes=True)
    pairs, scores = read_pairs(tmp_path / "out"), read_scores(scored / "scores")
    assert len(pairs) == summary["pairs"] == 8  # two mixed states a task, two pairs from five episodes
    assert {item.initial_state for item in pairs} == {0, 1}
    assert summary["tasks"]["drawer-open"] == {
        "mixed": 2, "all_successes": 1, "all_failures": 1, "single": 0, "unknown": 0,
        "used": 2, "narrow": 0, "failed": 0, "pairs": 4,
    }  # fmt: skip
    assert summary["overall"]["pairs"] == 8
    assert summary["chosen_success_rate"] > summary["rejected_success_rate"]
    assert all(scores[item.chosen].gcpg > scores[item.rejected].gcpg for item in pairs)
    assert recorded_stores(tmp_path / "out") == ((scored / "store").resolve(),)


def test_states_of_one_outcome_count(scored: Path, tmp_path: Path) -> None:
    pair(scored / "scores", tmp_path / "out", mode="best-worst")
    pairs, scores = read_pairs(tmp_path / "out"), read_scores(scored / "scores")
    assert len(pairs) == 8
    failures = next(item for item in pairs if not scores[item.chosen].success)
    assert failures.reason.startswith("Both failed")


def test_pairs_among_successes(scored: Path, tmp_path: Path) -> None:
    summary = pair(scored / "scores", tmp_path / "out", among_successes=True)
    pairs, scores = read_pairs(tmp_path / "out"), read_scores(scored / "scores")
    assert pairs
    assert summary["chosen_success_rate"] == summary["rejected_success_rate"] == 1.0
    assert all(scores[item.chosen].gcpg > scores[item.rejected].gcpg for item in pairs)
    # The census says what the states are like, not what is left of them.
    plain = pair(scored / "scores", tmp_path / "plain")
    kinds = ("mixed", "all_successes", "all_failures", "single", "unknown")
    assert {kind: summary["overall"][kind] for kind in kinds} == {kind: plain["overall"][kind] for kind in kinds}
    assert summary["overall"]["all_failures"] > 0
    assert summary["among_successes"] is True
    assert summary["left_out"] == sum(score.success is not True for score in scores.values()) > 0
    assert "among_successes" not in plain
    everyone = {score.initial_state: 0 for score in scores.values()}
    for score in scores.values():
        everyone[score.initial_state] += score.success is True and score.task == pairs[0].task
    paired = {item.initial_state for item in pairs if item.task == pairs[0].task}
    assert paired == {state for state, successes in everyone.items() if successes > 1}


@pytest.mark.parametrize(
    "settings",
    [{"mode": "success-only"}, {"mode": "every-success"}, {"require_mixed_outcomes": True}, {"judge": "success"}],
)
def test_pairs_among_successes_need_no_failure(tmp_path: Path, settings: dict) -> None:
    with pytest.raises(SettingsError, match="--among-successes leaves all failures out"):
        pair(tmp_path, tmp_path / "out", among_successes=True, **settings)


def test_limits_reach_the_file(scored: Path, tmp_path: Path) -> None:
    summary = pair(scored / "scores", tmp_path / "out", max_pairs_per_state=1, max_pairs=3)
    assert len(read_pairs(tmp_path / "out")) == summary["overall"]["pairs"] == summary["overall"]["used"] == 3


def test_a_moved_run_still_finds_its_store(scored: Path, tmp_path: Path) -> None:
    shutil.copytree(scored, tmp_path / "before")
    pair(tmp_path / "before" / "scores", tmp_path / "before" / "pairs")
    (tmp_path / "before").rename(tmp_path / "after")
    assert recorded_stores(tmp_path / "after" / "pairs") == ((tmp_path / "after" / "store").resolve(),)
    first = (tmp_path / "after" / "pairs" / "done.json").read_bytes()
    pair(tmp_path / "after" / "scores", tmp_path / "after" / "again")
    assert (tmp_path / "after" / "again" / "done.json").read_bytes() == first


def test_resuming_and_refusing(scored: Path, tmp_path: Path) -> None:
    first = pair(scored / "scores", tmp_path / "out", mode="random")
    data = (tmp_path / "out" / "pairs.jsonl").read_bytes()
    assert pair(scored / "scores", tmp_path / "out", mode="random") == first
    (tmp_path / "out" / "done.json").unlink()
    assert pair(scored / "scores", tmp_path / "out", mode="random") == first
    assert (tmp_path / "out" / "pairs.jsonl").read_bytes() == data
    with pytest.raises(CompatibilityError, match=r"settings\.seed"):
        pair(scored / "scores", tmp_path / "out", mode="random", seed=1)


LOWER = "Lower --margin. Otherwise collect more --samples of each initial state."


@pytest.mark.parametrize(
    ("outcomes", "settings", "message", "hint"),
    [
        (
            [True] * 3,
            {"require_mixed_outcomes": True},
            "2 with only successes",
            "Pass --no-require-mixed-outcomes to rank by costs and likelihood alone. Otherwise collect with a higher "
            "--temperature or on harder tasks.",
        ),
        (
            [False] * 3,
            {"require_mixed_outcomes": True},
            "2 with only failures",
            "Pass --no-require-mixed-outcomes to rank by costs and likelihood alone. Otherwise collect from a better "
            "policy or on easier tasks.",
        ),
        (
            [False] * 3,
            {"mode": "success-only"},
            "2 with only failures",
            "Collect from a better policy or on easier tasks. Otherwise collect more --samples of each initial state.",
        ),
        (
            [False] * 3,
            {"chosen_must_succeed": True},
            "2 pairs have a chosen side that did not succeed",
            "Pass --no-chosen-must-succeed. Otherwise collect from a better policy or on easier tasks.",
        ),
        (
            [False] * 3,
            {"among_successes": True},
            r"2 initial states \(2 with only failures\)\. Only successes count \(--among-successes\)",
            "Leave --among-successes out. Otherwise collect from a better policy or on easier tasks.",
        ),
        (
            [True, False],
            {"among_successes": True},
            "2 with both outcomes",
            "Leave --among-successes out. Otherwise collect more --samples of each initial state.",
        ),
        ([True], {}, "2 with a single episode", "Collect more --samples of each initial state."),
        ([True, False], {"margin": 99.0}, "2 with both outcomes.*2 pairs lie within the margin 99", LOWER),
        ([True] * 3, {"margin": 50.0}, "2 with only successes.*2 pairs lie within the margin 50", LOWER),
    ],
)
def test_no_pair_says_why_and_leaves_nothing(
    tmp_path: Path, outcomes: list[bool], settings: dict, message: str, hint: str
) -> None:
    store = make_store(tmp_path / "store", states=0)
    for state in range(2):
        for sample, success in enumerate(outcomes):
            store.write(make_rollout(state=state, sample=sample, success=success))
    run_score(ScoreSettings(store=store.path, out=tmp_path / "scores"))
    with pytest.raises(NoPairsError, match=message) as caught:
        pair(tmp_path / "scores", tmp_path / "out", **settings)
    assert caught.value.exit_code == 2
    assert caught.value.hint == hint
    assert not (tmp_path / "out").exists()


def test_missing_foreign_and_incomplete_folders(scored: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no output folder of 'grape score'"):
        pair(tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match=r"scores\.jsonl is a file, not the output folder of 'grape score'") as caught:
        pair(scored / "scores" / "scores.jsonl", tmp_path / "out")
    assert caught.value.hint == f"Did you mean the folder {scored / 'scores'}?"
    (tmp_path / "notes.txt").write_text("beside nothing that a verb wrote")
    with pytest.raises(DataError, match="no output folder of 'grape score'"):
        pair(tmp_path / "notes.txt", tmp_path / "out")
    pair(scored / "scores", tmp_path / "pairs")
    with pytest.raises(DataError, match="written by 'grape pair', not by 'grape score'"):
        pair(tmp_path / "pairs", tmp_path / "out")
    with pytest.raises(DataError, match=r"Did you mean the folder .*pairs\?"):
        read_pairs(tmp_path / "pairs" / "pairs.jsonl")
    with pytest.raises(DataError, match="written by 'grape score', not by 'grape pair'"):
        read_pairs(scored / "scores")
    (tmp_path / "pairs" / "done.json").unlink()
    with pytest.raises(DataError, match="not complete"):
        read_pairs(tmp_path / "pairs")


@pytest.mark.parametrize("settings", [{"m": 0}, {"max_pairs": 0}, {"max_pairs_per_state": -1}, {"margin": -0.1}])
def test_settings_out_of_range(tmp_path: Path, settings: dict) -> None:
    with pytest.raises(SettingsError):
        pair(tmp_path, tmp_path / "out", **settings)
