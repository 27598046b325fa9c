"""Checkpoints and reductions of sharded runs in two processes; called by torchrun with the world's folder.

``python -m torch.distributed.run --nproc-per-node 2 -m tests.training.two_processes_sharded FOLDER``
"""

import json
import os
import signal
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist
from torch.distributed.tensor import DTensor

from grape.core.settings import load_settings
from grape.training import checkpoints, run_train
from grape.training.distributed import join_process_group
from grape.training.loop import TrainLoop
from grape.training.settings import TrainSettings


class KillError(Exception):
    """Stands for the end of all processes."""


def count(owner, name, counts):
    original = getattr(owner, name)

    def counting(*values, **options):
        counts[name] += 1
        return original(*values, **options)

    setattr(owner, name, counting)


def run_until(settings, update):
    """Stop before an update, as a kill would."""
    original = TrainLoop._update

    def dying(self, number, *rest):
        if number == update:
            raise KillError
        return original(self, number, *rest)

    TrainLoop._update = dying
    try:
        run_train(settings)
    except KillError:
        pass
    finally:
        TrainLoop._update = original


def kill_within_a_save(settings, update):
    """End both processes after the shards of a checkpoint are written and before it takes its name."""
    original = checkpoints.write_shards

    def dying(tensors, folder):
        original(tensors, folder)
        if f"update-{update:06d}" in str(folder):
            dist.barrier()
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.write_shards = dying
    run_train(settings)


def main(folder, what):
    settings = replace(load_settings(TrainSettings, folder / "train.yaml"), sharding="full", checkpoint_every=2)
    processes = join_process_group("cpu")
    if what == "kill":
        kill_within_a_save(replace(settings, out=folder / "killed"), 4)
    if what == "resume":
        run_train(replace(settings, out=folder / "killed"))
        run_train(replace(settings, out=folder / "from-one"))
        return
    counts = Counter()
    count(dist, "reduce_scatter_single", counts)
    count(DTensor, "full_tensor", counts)
    run_until(replace(settings, out=folder / "stopped"), 4)
    reports = processes.gather(dict(counts))
    if processes.is_main:
        (folder / "counts.json").write_text(json.dumps(reports))
    run_train(replace(settings, out=folder / "whole"))
    run_train(replace(settings, out=folder / "best", result="best", holdout=0.4))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
