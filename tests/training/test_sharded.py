"""Sharded runs: a part of the state a process on disk, one reduction an update, and resumption in all combinations."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from grape.core.events import SILENT, SilentReporter
from grape.core.files import file_hash, read_json, read_jsonl, write_json
from grape.core.settings import save_settings
from grape.training import TrainSettings, run_train
from grape.training.distributed import ReducedOnce
from grape.training.shards import write_shards
from tests.training.recordings import record, snapshot, write_pairs, write_policy
from tests.training.test_checkpoints import make, take_steps

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def launch(folder, what):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, "-m", "tests.training.two_processes_sharded", str(folder), what],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with an interrupted, a whole and a killed run of two processes, and its settings."""
    folder = tmp_path_factory.mktemp("sharded")
    policy = write_policy(folder / "policy")
    settings = TrainSettings(
        pairs=write_pairs(folder / "pairs", record(folder / "store", policy)),
        policy=policy,
        out=folder / "unused",
        pairs_per_update=3,
        epochs=6,
        lr=1e-3,
        micro_batch=4,
        keep_checkpoints=9,
        device="cpu",
    )
    save_settings(folder / "train.yaml", settings)
    done = launch(folder, "first")
    assert done.returncode == 0, done.stderr[-4000:]
    assert launch(folder, "kill").returncode != 0
    return folder, settings


def read_metadata(path):
    with safe_open(path, framework="pt") as handle:
        return handle.metadata()


def state(folder):
    """Whole tensors of a checkpoint, whichever its layout."""
    if (folder / "state.safetensors").exists():
        return load_file(folder / "state.safetensors")
    tensors = {}
    for path in sorted((folder / "shards").iterdir()):
        for name, part in load_file(path).items():
            tensors[name] = part if name not in tensors else torch.cat([tensors[name], part])
    return tensors


def test_gradients_are_reduced_once_an_update_and_no_state_is_gathered(world):
    folder, _ = world
    # Four updates of several micro-batches each; the tiny network has three groups: a tower's block, the language
    # model's block, and the rest.
    rows = read_jsonl(folder / "stopped" / "metrics.jsonl")
    assert len(rows) == 4
    assert min(row["frames"] for row in rows) > 2 * 4 * 2
    for counts in read_json(folder / "counts.json"):
        assert counts == {"reduce_scatter_single": 4 * 3}


def test_each_process_holds_its_part_of_a_checkpoint(world):
    folder, _ = world
    checkpoint = folder / "stopped" / "checkpoints" / "update-000004"
    assert {path.suffix for path in checkpoint.rglob("*") if path.is_file()} == {".safetensors", ".json"}
    parts = [path.stat().st_size for path in sorted((checkpoint / "shards").iterdir())]
    run = folder / "stopped-alone"
    single = TrainSettings(**{**vars(world[1]), "out": run})
    run_train(replace(single, checkpoint_every=4))
    whole = (run / "checkpoints" / "update-000004" / "state.safetensors").stat().st_size
    assert len(parts) == 2
    assert max(parts) < 0.6 * whole
    assert sum(parts) < 1.1 * whole


def test_an_interrupted_run_goes_on_to_the_same_bytes(world):
    folder, settings = world
    assert [path.name for path in (folder / "killed" / "checkpoints").glob("update-*")] == ["update-000002"]
    # A run of one process, stopped, that two take up: as a checkpoint of release 0.1 does, it holds whole tensors.
    run_train(replace(settings, out=folder / "from-one", checkpoint_every=2))
    shutil.rmtree(folder / "from-one" / "policy")
    (folder / "from-one" / "done.json").unlink()
    shutil.rmtree(folder / "from-one" / "checkpoints" / "update-000006")
    one = state(folder / "from-one" / "checkpoints" / "update-000004")
    rows = read_jsonl(folder / "from-one" / "metrics.jsonl")
    done = launch(folder, "resume")
    assert done.returncode == 0, done.stderr[-4000:]
    # The headers of shards name their facts in any order, and so their hashes differ; their tensors must be equal.
    whole, resumed = (
        {name: value for name, value in snapshot(folder / run).items() if "checkpoints" not in name}
        for run in ("whole", "killed")
    )
    assert resumed == whole
    for update in (2, 4, 6):
        states = [
            read_json(folder / run / "checkpoints" / f"update-{update:06d}" / "state.json")
            for run in ("whole", "killed")
        ]
        assert [sorted(facts.pop("sha256")) for facts in states] == [facts["shards"] for facts in states]
        assert states[0] == states[1]
        tensors, others = (state(folder / run / "checkpoints" / f"update-{update:06d}") for run in ("whole", "killed"))
        assert tensors.keys() == others.keys()
        assert all(torch.equal(value, others[name]) for name, value in tensors.items())
    assert read_jsonl(folder / "from-one" / "metrics.jsonl")[:4] == rows[:4]  # they went on, not from the start
    two = state(folder / "whole" / "checkpoints" / "update-000004")
    assert one.keys() == two.keys()
    for name, value in state(folder / "from-one" / "checkpoints" / "update-000006").items():
        other = state(folder / "whole" / "checkpoints" / "update-000006")[name]
        assert name.endswith("qkv.bias") or torch.allclose(value, other, atol=1e-5), name  # see test_distributed.py


def test_one_process_goes_on_from_a_checkpoint_of_two(world):
    folder, settings = world
    run = folder / "by-one"
    shutil.copytree(folder / "stopped", run)
    heard = []

    class Listening(SilentReporter):
        def warn(self, message):
            heard.append(message)

    run_train(replace(settings, out=run), Listening())
    assert not heard
    rows, expected = read_jsonl(run / "metrics.jsonl"), read_jsonl(folder / "whole" / "metrics.jsonl")
    assert rows[:4] == expected[:4]
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], rel=1e-4)
    weights, other = (load_file(path / "policy" / "model.safetensors") for path in (run, folder / "whole"))
    for name, value in weights.items():
        if not name.endswith("qkv.bias"):  # see test_distributed.py
            assert torch.allclose(value, other[name], atol=1e-6), name


def test_the_best_of_a_sharded_run_is_its_result(world):
    folder, _ = world
    best, result = folder / "best" / "checkpoints" / "best", load_file(folder / "best" / "policy" / "model.safetensors")
    kept = state(best)
    assert sum(name.startswith("optimizer/exp_avg/") for name in kept) == sum(
        name.startswith("parameter/") for name in kept
    )
    for name, value in kept.items():
        kind, _, parameter = name.partition("/")
        if kind == "parameter" and parameter in result:
            assert torch.equal(value, result[parameter]), name


@pytest.mark.parametrize("damage", ["cut", "missing", "another", "shape", "mixed"])
def test_a_damaged_part_sends_a_run_back_to_the_checkpoint_before(tmp_path, damage):
    model, optimizer, folder = make(tmp_path)
    take_steps(model, optimizer, 0, 1)
    folder.save(1)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    take_steps(model, optimizer, 1, 2)
    folder.save(2)
    checkpoint = tmp_path / "update-000002"
    tensors = load_file(checkpoint / "state.safetensors")
    (checkpoint / "state.safetensors").unlink()
    write_shards(tensors, checkpoint / "shards")  # as one process would
    facts = read_json(checkpoint / "state.json")
    (part,) = (checkpoint / "shards").iterdir()
    facts |= {"shards": [part.name], "sha256": {part.name: file_hash(part)}}
    write_json(checkpoint / "state.json", facts)
    its, its_optimizer, folder = make(tmp_path, seed=5)
    assert folder.restore(SILENT) == 2
    take_steps(model, optimizer, 2, 4)
    take_steps(its, its_optimizer, 2, 4)
    assert all(torch.equal(value, its.state_dict()[name]) for name, value in model.state_dict().items())
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:-50])
    elif damage == "missing":
        part.unlink()
    elif damage == "another":
        write_json(checkpoint / "state.json", {**facts, "update": 3})
    elif damage == "mixed":
        tensors = load_file(part)
        save_file({name: value + 1 for name, value in tensors.items()}, part, read_metadata(part))
    else:
        tensors = load_file(part)
        name = next(name for name in tensors if name.startswith("parameter/"))
        save_file({**tensors, name: tensors[name][:1].clone()}, part)
    other, _, folder = make(tmp_path, seed=5)
    heard = []

    class Listening(SilentReporter):
        def warn(self, message):
            heard.append(message)

    assert folder.restore(Listening()) == 1
    assert "Checkpoint" in heard[0]
    assert all(torch.equal(value, kept[name]) for name, value in other.state_dict().items())
    assert not checkpoint.exists()


def test_a_gradient_that_was_never_reduced_is_an_error():
    class Model:
        def set_requires_gradient_sync(self, now):
            switched.append(now)

    switched = []
    reduced = ReducedOnce(lambda frames: frames, Model(), 3)
    for frames in range(2):
        with torch.no_grad():
            reduced(frames)
        assert reduced(frames) == frames
    with pytest.raises(RuntimeError, match="took 2 backward passes where 3"):
        reduced.check()
    reduced(2)
    reduced.check()
    assert switched == [False, False, True]
