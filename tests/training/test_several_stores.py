"""Pairs of episodes in several stores are trained on as if one store held them."""

import shutil
from pathlib import Path

import numpy as np

from grape.core.events import SILENT
from grape.core.files import write_json
from grape.training.settings import TrainSettings
from grape.training.sources import read_data
from tests.training.recordings import record, write_pairs, write_policy


def test_decisions_of_several_stores_are_those_of_one(tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "policy")
    whole = record(tmp_path / "whole", policy)
    names = ("one", "two")
    for name in names:
        shutil.copytree(whole.path, tmp_path / name)
    for episode_id in whole.ids():  # one state's episodes lie in both, those of each other state in one
        other = names[episode_id < "toy-3"]
        (tmp_path / other / "episodes" / f"{episode_id}.parquet").unlink()
    apart = write_pairs(tmp_path / "apart", whole)
    write_json(apart / "done.json", {"stores": ["../one", "../two"]})
    data = {
        pairs.name: read_data(TrainSettings(pairs=pairs, policy=policy, out=tmp_path / "out"))
        for pairs in (write_pairs(tmp_path / "plain", whole), apart)
    }
    assert data["apart"].samples == data["plain"].samples
    assert data["apart"].episodes == data["plain"].episodes
    assert data["apart"].metas() == data["plain"].metas()
    steps = {name: item.load(SILENT, 2**24) for name, item in data.items()}
    rows = np.arange(len(steps["plain"]))
    assert np.array_equal(steps["apart"].images_NHWC[rows], steps["plain"].images_NHWC[rows])
    assert np.array_equal(steps["apart"].logps_NKD[:], steps["plain"].logps_NKD[:])
    parts = [part.path.name for part in data["apart"].stores[0].parts]
    assert parts == [*names]
