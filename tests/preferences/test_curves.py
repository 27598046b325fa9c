"""Curves beside the scores: written as episodes are priced, read for the episodes that are drawn."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from grape.core.errors import DataError
from grape.core.files import write_jsonl
from grape.costs import builtin_specification, evaluate, with_unknown_outcome
from grape.preferences import ScoreSettings, curves, read_scores, run_score, with_curves
from grape.preferences.records import load_scores, score_with_curves_to_row
from grape.store import EpisodeStore
from tests.preferences.rollouts import make_rollout, make_score, make_stage, make_store


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    run_score(ScoreSettings(store=make_store(folder / "store").path, out=folder / "scores"))
    return folder


def test_they_are_what_was_evaluated(scored: Path) -> None:
    scores, store = read_scores(scored / "scores"), EpisodeStore.open(scored / "store")
    assert not any(item.curve for score in scores.values() for stage in score.stages for item in stage.constraints)
    assert '"curve"' not in (scored / "scores" / "scores.jsonl").read_text()
    drawn = with_curves(scored / "scores", [scores[name] for name in store.ids()[3:30:9]])
    assert list(drawn) == list(store.ids()[3:30:9])
    for name, score in drawn.items():
        trajectory = with_unknown_outcome(store.read(name))
        stages = evaluate(builtin_specification("metaworld", score.task), trajectory)
        for stage, due in zip(score.stages, stages, strict=True):
            assert [len(item.curve) for item in stage.constraints] == [len(item.curve) for item in due.constraints]
            for item, expected in zip(stage.constraints, due.constraints, strict=True):
                np.testing.assert_array_equal(item.curve, np.float32(expected.curve))


def test_a_constraint_that_was_not_measured_has_none(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", "metaworld", {})
    rollout = make_rollout()
    rollout.keypoints["gripper"][:] = np.nan
    store.write(rollout)
    run_score(ScoreSettings(store=store.path, out=tmp_path / "scores"))
    (score,) = with_curves(tmp_path / "scores", read_scores(tmp_path / "scores").values()).values()
    drawn = {item.name: len(item.curve) for item in score.stages[0].constraints}
    assert 0 in drawn.values()
    assert max(drawn.values()) > 0


def test_only_what_is_drawn_is_read(scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = read_scores(scored / "scores")
    monkeypatch.setattr(curves, "EPISODES_PER_GROUP", 4)
    table = pq.read_table(scored / "scores" / "curves.parquet").cast(curves.CURVES_SCHEMA)
    assert table.num_rows == 40
    curves.write_curves(tmp_path / "curves.parquet", (table.slice(first, 4) for first in range(0, 40, 4)))
    read = []

    def counting(path, within, columns, first=0, count=None, reader=curves.read_rows):
        read.append((tuple(columns), first, count))
        return reader(path, within, columns, first, count)

    monkeypatch.setattr(curves, "read_rows", counting)
    names = list(scores)
    drawn = with_curves(tmp_path, [scores[names[number]] for number in (37, 9, 10)])
    assert read == [(("episode_id",), 0, None)] + [
        (tuple(curves.CURVES_SCHEMA.names), n, m) for n, m in ((8, 3), (36, 2))
    ]
    whole = with_curves(scored / "scores", scores.values())
    assert drawn == {names[number]: whole[names[number]] for number in (37, 9, 10)}
    assert list(drawn) == [names[number] for number in (37, 9, 10)]


def test_scores_of_earlier_releases_keep_their_own(tmp_path: Path) -> None:
    old = [make_score("a", stages=(make_stage("reach", 0.25, measured=0.123456789),)), make_score("b")]
    write_jsonl(tmp_path / "scores.jsonl", map(score_with_curves_to_row, old))
    scores = load_scores(tmp_path / "scores.jsonl")
    assert scores["a"].stages[0].constraints[0].curve == (0.1, 0.12346)
    assert with_curves(tmp_path, scores.values()) == scores


@pytest.mark.parametrize("damage", ["cut", "flipped", "other columns"])
def test_a_damaged_file_is_named(scored: Path, tmp_path: Path, damage: str) -> None:
    data = bytearray((scored / "scores" / "curves.parquet").read_bytes())
    if damage == "flipped":
        for place in range(200, 260):
            data[place] ^= 0xFF
    (tmp_path / "curves.parquet").write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    if damage == "other columns":
        table = pq.read_table(scored / "scores" / "curves.parquet")
        pq.write_table(table.set_column(3, "curve", table.column("stage")), tmp_path / "curves.parquet")
    with pytest.raises(DataError, match=r"curves\.parquet"):
        with_curves(tmp_path, read_scores(scored / "scores").values())
