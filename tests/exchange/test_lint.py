"""``grape lint``: defects put in are found and counted."""

import shutil

import numpy as np
import pytest

from grape.core.errors import DataError
from grape.exchange import LintSettings, RldsExportSettings, run_export_rlds, run_lint
from tests.exchange.recordings import make_recordings
from tests.store.rlds import datasets
from tests.store.rlds.datasets import make_columns, write_dataset
from tests.store.rlds.golden import golden, needs_golden


def lint(data, rejected=None):
    summary = run_lint(LintSettings(data, rejected=rejected))
    return summary, {row["defect"]: row["count"] for row in summary["defects"]}


def test_an_export_of_ours(tmp_path):
    recordings = make_recordings(tmp_path)
    run_export_rlds(RldsExportSettings(tmp_path / "out", pairs=recordings[1]))
    summary, defects = lint(*(tmp_path / "out" / side / "rlds_np_rollout" for side in ("chosen", "rejected")))
    assert (summary["kind"], summary["episodes"]) == ("rlds pairs", 8)
    # The recordings are noise: lengths differ, images and bins have nothing in common.
    assert defects["pair of unequal lengths"] == 3
    assert defects["pair that starts from different images"] == 4
    assert "failure marked as reward 1" not in defects
    assert "episode without partner" not in defects
    assert "gripper of the environment" not in defects


def test_a_spoiled_pair_set(tmp_path):
    chosen = write_dataset(tmp_path / "chosen", {"train": ["a", "b", "c"]}, shards=2)
    rejected = write_dataset(tmp_path / "rejected", {"train": ["c", "b", "x", "x2"]}, steps=9)
    summary, defects = lint(chosen.path, rejected.path)
    assert summary["episodes"] == 7
    assert defects["no split val"] == 2
    assert defects["several files a split"] == 1
    assert defects["failure marked as reward 1"] == 4
    assert defects["episode without partner"] == 3
    assert defects["pair out of order"] == 1
    assert defects["pair of unequal lengths"] == 2
    assert defects["episode shorter than a window"] == 3
    assert defects["gripper of the environment"] > 0
    assert defects["gripper between open and closed"] > 0


def test_sides_that_cannot_be_joined_are_looked_at_all_the_same(tmp_path):
    chosen = write_dataset(tmp_path / "chosen", {"train": ["a", "b", "c"], "val": ["v", "w"]})
    rejected = write_dataset(tmp_path / "rejected", {"train": ["x", "y"]}, instruction="something else")
    _, defects = lint(chosen.path, rejected.path)
    assert defects["pair joined by order alone"] == 2
    assert defects["pair of two instructions"] == 2
    assert defects["split on one side only"] == 1
    assert defects["episode without partner"] == 3


def test_actions_that_are_not_finite_are_counted_and_the_rest_is_looked_at(tmp_path, monkeypatch):
    def spoiled(*arguments):
        columns = make_columns(*arguments)
        columns["steps/action"][1, 2] = np.nan
        return columns

    monkeypatch.setattr(datasets, "make_columns", spoiled)
    chosen = write_dataset(tmp_path / "chosen", {"train": ["a", "b"]})
    monkeypatch.undo()
    rejected = write_dataset(tmp_path / "rejected", {"train": ["b", "a"]}, steps=4)
    _, defects = lint(chosen.path, rejected.path)
    assert defects["action that is not finite"] == 2
    assert defects["pair of unequal lengths"] == defects["pair out of order"] == 2


def test_names_that_do_not_tell(tmp_path):
    dataset = write_dataset(tmp_path, {"train": ["", "a", "a"], "val": ["b"]}, name="some_set")
    shutil.move(dataset.path.parent, tmp_path / "renamed")
    _, defects = lint(tmp_path / "renamed")
    assert defects["episode without or with a repeated file_path"] == 3
    assert defects["name differs from the folder"] == 1


@needs_golden
def test_golden_pairs():
    summary, defects = lint(*(golden(f"grape_pair/{side}/rlds_np_rollout") for side in ("chosen", "rejected")))
    assert summary["episodes"] == 14
    assert defects["pair of unequal lengths"] == 6
    assert defects["failure marked as reward 1"] == 7
    assert defects["action bins that differ by side"] == 6
    assert defects["name differs from the folder"] == 2


@needs_golden
def test_golden_rollouts():
    summary, defects = lint(golden("grape_npy"))
    assert (summary["kind"], summary["episodes"]) == ("grape-npy", 6)
    assert defects == {
        "unreadable file": 1,
        "gripper of the environment": 2,
        "episode shorter than a window": 5,
        "image taken after the action": 3,
        "cost cut to an integer": 3,
        "no cost": 2,
    }


def test_a_folder_of_nothing(tmp_path):
    with pytest.raises(DataError):
        lint(tmp_path)
