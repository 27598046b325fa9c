"""Scores and pairs without files are those of the verbs; own tasks need no specification."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grape.core.errors import CompatibilityError, DataError, NoPairsError, SettingsError
from grape.core.trajectories import Trajectory
from grape.costs import builtin_specification
from grape.preferences import (
    PairSettings,
    ScoreSettings,
    make_pairs,
    read_pairs,
    read_scores,
    run_pair,
    run_score,
    save_pairs,
    score_trajectories,
)
from grape.preferences.memory import ScoredTrajectories
from grape.preferences.records import score_to_row
from grape.store import EpisodeStore, save_trajectories
from tests.preferences.rollouts import TASKS, make_rollout
from tests.reporters import Hearing

ROLLOUTS = [
    make_rollout(task, state, sample, success=(sample + state) % 3 == 0, steps=10 + sample)
    for task in TASKS
    for state in range(3)
    for sample in range(4)
]


@pytest.mark.parametrize(
    ("scoring", "pairing"),
    [
        ({}, {}),
        ({"calibrate": False, "price_verdict": True}, {"mode": "best-worst", "cut": "length"}),
        ({"objectives": {"safety": 4}, "soft_share": 0.5}, {"stage_wise": True, "m": 2}),
        ({"weights": (0.1, 0.2, 1)}, {"mode": "random", "max_pairs": 3, "seed": 5}),
    ],
)
def test_memory_gives_what_the_verbs_give(tmp_path: Path, scoring: dict[str, Any], pairing: dict[str, Any]) -> None:
    store = save_trajectories(tmp_path / "store", ROLLOUTS)
    summary = run_score(ScoreSettings(store=store.path, out=tmp_path / "scores", **scoring))
    pair_summary = run_pair(PairSettings(scores=tmp_path / "scores", out=tmp_path / "pairs", **pairing))
    for trajectories in (ROLLOUTS[::-1], store):  # from memory, and read from the store one after another
        scored = score_trajectories(trajectories, **scoring)
        written = read_scores(tmp_path / "scores")
        assert [score_to_row(score) for score in scored] == [score_to_row(score) for score in written.values()]
        assert {**scored.summary, "store": summary["store"]} == summary
        pairs = make_pairs(scored, **pairing)
        assert pairs.pairs == read_pairs(tmp_path / "pairs")
        assert {**pairs.summary, "store": pair_summary["store"]} == pair_summary
        assert save_pairs(tmp_path / "saved", pairs, store) == tmp_path / "saved"
        same = [(folder / "pairs.jsonl").read_bytes() for folder in (tmp_path / "saved", tmp_path / "pairs")]
        assert same[0] == same[1]


def own(state: int, sample: int, success: bool | None, *, task: str = "pour", logp: float | None = None) -> Trajectory:
    steps = 5
    likely = {} if logp is None else {"tokens": np.ones((steps, 2), int), "logps": np.full((steps, 2), logp)}
    return Trajectory.from_arrays(
        task=task, instruction=f"{task} the tea", images=np.zeros((steps + 1, 4, 4, 3), np.uint8),
        actions=np.zeros((steps, 2)), success=success, initial_state=state, sample=sample, **likely,
    )  # fmt: skip


def test_an_own_task_without_costs_ranks_by_its_outcome() -> None:
    hearing = Hearing()
    scored = score_trajectories([own(0, 0, True), own(0, 1, False)], reporter=hearing)
    assert [score.gcpg for score in scored] == [2.0, 0.0]
    assert any(
        "no cost specification for pour: scored by success alone" in warning for warning in scored.summary["warnings"]
    )
    assert any("no cost specification" in warning for warning in hearing.warnings)
    (pair,) = make_pairs(scored)
    assert (pair.chosen, pair.rejected) == ("pour-i000000-k00", "pour-i000000-k01")


def test_likelihood_does_not_rank_an_own_task_without_costs() -> None:
    for success in (None, True, False):
        scored = score_trajectories([own(0, 0, success, logp=-1), own(0, 1, success, logp=-0.25)])
        assert len({score.r_self for score in scored}) == 2
        assert len({score.gcpg for score in scored}) == 1
        with pytest.raises(NoPairsError):
            make_pairs(scored, require_mixed_outcomes=False)


def test_success_must_count_where_nothing_else_can() -> None:
    with pytest.raises(SettingsError, match="success counts for nothing"):
        score_trajectories([own(0, 0, True), own(0, 1, False)], weights=(1, 1, 0))


def test_the_verb_scores_an_own_task_too(tmp_path: Path) -> None:
    store = save_trajectories(tmp_path / "store", [own(0, 0, True), own(0, 1, False)])
    settings = ScoreSettings(store=store.path, out=tmp_path / "scores")
    summary = run_score(settings)
    assert summary["calibration"]["specifications"] == {}
    assert summary["calibration"]["success_alone"] == ["pour"]
    assert run_score(settings) == summary
    assert run_pair(PairSettings(scores=tmp_path / "scores", out=tmp_path / "pairs"))["pairs"] == 1


def test_specifications_by_object_name_and_path(tmp_path: Path) -> None:
    drawer = [rollout for rollout in ROLLOUTS if rollout.meta.task == "drawer-open"]
    specification = builtin_specification("metaworld", "drawer-open")
    by_object = score_trajectories(drawer, specification)
    assert [score.cost for score in by_object] == [score.cost for score in score_trajectories(drawer)]
    other = dataclasses.replace(specification, task="", stages=specification.stages[:1])
    assert [len(score.stages) for score in score_trajectories(drawer, other)] == [2] * len(drawer)
    mixed = score_trajectories(ROLLOUTS, {"drawer-open": other})
    assert {len(score.stages) for score in mixed if score.task == "faucet-open"} != {2}
    with pytest.raises(SettingsError, match="Unknown task of the trajectories 'drawer-opn'"):
        score_trajectories(drawer, {"drawer-opn": other})
    with pytest.raises(SettingsError, match="does not exist"):
        score_trajectories(drawer, str(tmp_path / "costs.yaml"))


@pytest.mark.parametrize(
    ("trajectories", "settings", "error", "message"),
    [
        ([], {}, DataError, "no trajectories"),
        ([own(0, 0, True)] * 2, {}, DataError, "Two trajectories are called pour-i000000-k00"),
        ([own(0, 0, True), ROLLOUTS[0]], {}, CompatibilityError, "several suites: metaworld, own"),
        ([own(0, 0, True)], {"calibrat": False}, SettingsError, "Did you mean 'calibrate'"),
        ([own(0, 0, True)], {"out": "x"}, SettingsError, "Unknown setting 'out'"),
        ([own(0, 0, True)], {"beta": "much"}, SettingsError, r"'beta' needs a number \(float\)"),
        ([own(0, 0, True)], {"beta": -1}, SettingsError, "--beta is -1"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    trajectories: list[Trajectory], settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        score_trajectories(trajectories, **settings)


def test_a_store_of_two_kinds_of_decisions_is_refused(tmp_path: Path) -> None:
    from tests.store.episodes import make_chunked_episode, make_episode

    episodes = [make_episode("a"), make_chunked_episode(episode_id="b")]
    with pytest.raises(CompatibilityError, match="a and b are of two kinds"):
        save_trajectories(tmp_path / "store", episodes)


def test_a_pair_shows_itself_with_both_trajectories() -> None:
    pairs = make_pairs(score_trajectories(ROLLOUTS))
    compared = pairs.side_by_side(1)
    assert (compared.chosen.meta.episode_id, compared.rejected.meta.episode_id) == (pairs[1].chosen, pairs[1].rejected)
    first, second, third = repr(compared).splitlines()
    assert first.startswith("chosen: Trajectory(")
    assert second.startswith("rejected: Trajectory(")
    assert third == f"margin {pairs[1].margin:.4g}: {pairs[1].reason}"
    page = compared._repr_html_()
    assert page.index("chosen: ") < page.index("rejected: ") < page.index("margin ")


def test_tables_have_a_row_each(tmp_path: Path) -> None:
    scored = score_trajectories(ROLLOUTS)
    assert isinstance(scored, ScoredTrajectories)
    pairs = make_pairs(scored)
    assert repr(scored) == "ScoredTrajectories(24 of 6 initial states, 8 succeeded)"
    assert [row["gcpg"] for row in scored.rows()] == [score.gcpg for score in scored]
    assert {"term_self", "term_ext", "term_success"} <= scored.rows()[0].keys()
    assert [row["chosen"] for row in pairs.rows()] == [pair.chosen for pair in pairs]
    store = save_trajectories(tmp_path / "store", ROLLOUTS)
    assert isinstance(store, EpisodeStore)
    assert [row["episode_id"] for row in store.rows()] == list(store.ids())
    for table, word in ((scored, "gcpg"), (pairs, "margin"), (store, "success")):
        page = table._repr_html_()
        assert f"<th>{word}</th>" in page
        assert "drawer-open" in page


def test_paths_and_other_objects_are_told_what_to_do_with_them() -> None:
    with pytest.raises(SettingsError, match="make_pairs takes scored trajectories, not str") as caught:
        make_pairs("runs/scores")  # type: ignore[arg-type]
    assert "grape.pair(scores=FOLDER" in caught.value.hint
    with pytest.raises(SettingsError, match="not the path runs/rollouts") as caught:
        score_trajectories("runs/rollouts")  # type: ignore[arg-type]
    assert "grape.EpisodeStore.open(PATH)" in caught.value.hint
