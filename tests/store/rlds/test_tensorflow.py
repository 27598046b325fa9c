"""Real TensorFlow Datasets reads our exports exactly as we do, and the public loaders' way of reading keeps the order.

TensorFlow is no dependency of GRAPE: `make test-tf` puts it into an environment of its own and runs this file.
"""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from grape.core.events import SILENT
from grape.core.preferences import PreferencePair
from grape.store import EpisodeStore
from grape.store.rlds import open_rlds
from grape.store.rlds.collection import write_collection
from grape.store.rlds.pairs import write_pairs
from grape.store.rlds.writer import TrainValSplit
from tests.architecture.allowed_imports import ROOT
from tests.store.episodes import make_episode

PYTHON = ROOT / os.environ.get("TF_VENV", ".venv-tf") / "bin" / "python"

pytestmark = [
    pytest.mark.skipif(not PYTHON.exists(), reason=f"no TensorFlow at {PYTHON.parent.parent}: run `make test-tf`"),
    pytest.mark.slow,
]


def tfds_reads(folder: Path, split: str):
    reply = subprocess.run(
        [str(PYTHON), str(Path(__file__).with_name("read_with_tfds.py")), str(folder), split],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert reply.returncode == 0, reply.stderr
    return json.loads(reply.stdout)


def fact(column):
    if isinstance(column, list):
        return {"text": hashlib.sha256("\0".join(column).encode()).hexdigest()}
    array = column if isinstance(column, np.ndarray) else column.decode()
    return {
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
    }


def assert_same(folder: Path, split: str):
    """What TFDS read of a split, after comparison with what we read."""
    theirs, dataset = tfds_reads(folder, split), open_rlds(folder)
    ours = [
        {
            "steps": {path: fact(column) for path, column in episode.steps.items()},
            "facts": {path: fact(column) for path, column in episode.facts.items()},
        }
        for episode in dataset.read(split)
    ]
    assert theirs["episodes"] == ours
    assert theirs["splits"] == {
        name: [shard.episodes for shard in item.shards] for name, item in dataset.description.splits.items()
    }
    return theirs


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = EpisodeStore.create(tmp_path_factory.mktemp("run") / "store", "toy", {})
    for state in range(12):
        for sample in (0, 1):
            store.write(
                make_episode(
                    f"s{state:02d}-{sample}", 3 + (5 * state + 3 * sample) % 7, (64, 48), seed=2 * state + sample,
                    initial_state=state, sample=sample, success=sample == 0, instruction="mets le bol là 碗",
                )
            )  # fmt: skip
    return store


@pytest.fixture(scope="module")
def progress():
    with SILENT.progress("", 0) as bar:
        yield bar


@pytest.mark.parametrize("shards", [1, 3])
def test_pairs(store, tmp_path, progress, shards):
    pairs = [
        PreferencePair(f"pair-{state}", "drawer-open", state, f"s{state:02d}-0", f"s{state:02d}-1", 1.0, "x", "y")
        for state in range(12)
    ]
    division = TrainValSplit(0.2, shards)
    write_pairs(tmp_path, store, pairs, gripper="+1 closes", division=division, progress=progress)
    places = [tmp_path / side / "rlds_np_rollout" / "1.0.0" for side in ("chosen", "rejected")]
    for split, count in (("train", 10), ("val", 2)):
        chosen, rejected = (assert_same(place, split) for place in places)
        assert len(chosen["episodes"]) == count
        names = [episode.file_path for episode in open_rlds(places[0]).read(split)]
        orders = [chosen["orders"], rejected["orders"]]
        assert orders[0]["grape"] == orders[1]["grape"]
        if shards == 1:  # in one file, shuffled files leave episodes where they are
            assert orders[0] == orders[1] == {"grape": [names] * 3, "openvla": [names] * 3}
        else:
            assert all(
                sorted(order) == sorted(names) for side in orders for loader in side.values() for order in loader
            )


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_a_flat_collection(store, tmp_path, progress, encoding):
    write_collection(
        tmp_path,
        store,
        store.metas(),
        name="toy_set",
        gripper="+1 closes",
        actions="labels",
        encoding=encoding,
        division=TrainValSplit(0.2, 2),
        progress=progress,
    )
    for split in ("train", "val"):
        assert_same(tmp_path / "toy_set" / "1.0.0", split)
