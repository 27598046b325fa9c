"""Scores and pairs speak of control steps, however many of them one decision covers."""

import dataclasses
from pathlib import Path

import pytest

from grape.core.errors import CompatibilityError
from grape.preferences import PairSettings, ScoreSettings, read_pairs, read_scores, run_pair, run_score
from grape.store import EpisodeStore
from tests.preferences.rollouts import in_chunks, make_rollout, make_store


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rollouts with one action a decision, and in chunks of 8 of which 5 are executed; scored."""
    root = tmp_path_factory.mktemp("runs")
    single = make_store(root / "single", states=2, tasks=("drawer-open",))
    chunked = EpisodeStore.create(root / "chunked", "metaworld", {})
    for name in single.ids():
        chunked.write(in_chunks(single.read(name), 8, 5))
    for name in ("single", "chunked"):
        run_score(ScoreSettings(store=root / name, out=root / f"{name}-scores"))
    return root


def test_scores_do_not_depend_on_how_many_actions_a_decision_covers(runs: Path) -> None:
    """R_self sums executed tokens alone (those behind have a log-probability of -99), costs see every control step."""
    single, chunked = (read_scores(runs / f"{name}-scores") for name in ("single", "chunked"))
    assert len(single) == 10
    assert single == chunked


@pytest.mark.parametrize("settings", [{"cut": "stage"}, {"cut": "length"}, {"stage_wise": True}])
def test_so_do_pairs_whose_ranges_are_control_steps(runs: Path, tmp_path: Path, settings: dict) -> None:
    for name in ("single", "chunked"):
        run_pair(PairSettings(scores=runs / f"{name}-scores", out=tmp_path / name, **settings))
    pairs = read_pairs(tmp_path / "single")
    assert pairs == read_pairs(tmp_path / "chunked")
    assert any(pair.rejected_steps for pair in pairs)


@pytest.mark.parametrize("temperature", [1.6, 1.0])
def test_log_probabilities_of_several_kinds_are_not_scored_together(tmp_path: Path, temperature: float) -> None:
    store = EpisodeStore.create(tmp_path / "store", "metaworld", {})
    rollout = in_chunks(make_rollout(sample=0), 4, 4)
    assert rollout.chunks is not None
    chunks = dataclasses.replace(rollout.chunks, temperature=temperature)
    store.write(dataclasses.replace(rollout, chunks=chunks))
    store.write(in_chunks(make_rollout(sample=1, success=False), 4, 4, support="vocabulary"))
    with pytest.raises(CompatibilityError, match=f"-00 over the window at temperature {temperature:g}; .*-01 over the"):
        run_score(ScoreSettings(store=store.path, out=tmp_path / "scores"))
    assert not (tmp_path / "scores" / "scores.jsonl").exists()


def test_chunk_lengths_may_differ_where_log_probabilities_compare(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", "metaworld", {})
    store.write(in_chunks(make_rollout(sample=0), 4, 4))
    store.write(in_chunks(make_rollout(sample=1, success=False), 8, 2))
    assert run_score(ScoreSettings(store=store.path, out=tmp_path / "scores"))["episodes"] == 2
