"""What TensorFlow wrote and how it decoded it: every column of every episode, by hash."""

import hashlib

import numpy as np
import pytest

from grape.store.rlds import open_rlds
from tests.store.rlds.golden import expected, golden, needs_golden, splits

pytestmark = needs_golden


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).hexdigest()


def check_column(column, due, where):
    kind = due.get("kind")
    if kind == "image":
        assert sha256(*column.blobs) == due["encoded_sha256"], where
        pixels = column.decode()
        assert list(pixels.shape) == due["tf_decoded"]["shape"], where
        assert sha256(pixels.tobytes()) == due["tf_decoded"]["sha256"], where
    elif kind == "text":
        assert column[0] == due["first"], where
        assert sha256("\0".join(column).encode()) == due["sha256"], where
    else:
        assert (str(column.dtype), list(column.shape)) == (due["dtype"], due["shape"]), where
        assert sha256(column.tobytes()) == due["sha256"], where


@pytest.mark.parametrize(("name", "split"), splits() or [("", "")])
def test_every_column_is_what_tensorflow_read(name, split):
    dataset, due = open_rlds(golden(name)), expected()["datasets"][name]
    assert dataset.description.name == due["name"]
    assert [shard.episodes for shard in dataset.description.splits[split].shards] == due["splits"][split][
        "shard_lengths"
    ]
    episodes = list(dataset.read(split))
    assert len(episodes) == len(due["splits"][split]["episodes"])
    for episode, facts in zip(episodes, due["splits"][split]["episodes"], strict=True):
        assert episode.length == facts["num_steps"]
        assert set(episode.steps) == set(facts["features"])
        for path, column in facts["features"].items():
            check_column(episode.steps[path], column, f"{episode.where}: {path}")
        columns = {path.removeprefix("episode_metadata/"): column[0] for path, column in episode.facts.items()}
        assert {
            key: value.item() if isinstance(value, np.generic) else value for key, value in columns.items()
        } == facts["metadata"]
